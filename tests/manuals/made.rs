//! The pages made of the grammar.

use std::collections::BTreeSet;
use std::fs;

use clap::{Command, CommandFactory as _};
use distmsg::daemon::args::Args;

use crate::page;
use crate::root;
use crate::texts::{self, CTL_VARIABLES, DAEMON_VARIABLES, Texts};

/// Every made page: its file's name and its text.
fn pages() -> Vec<(String, String)> {
    let mut pages = Vec::new();
    let mut add = |command: &Command, section: &str, texts: &Texts| {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name());
        pages.push((format!("{name}.{section}"), page::of(command, section, texts)));
    };
    let inner = |command: &Command| -> Vec<Command> {
        command
            .get_subcommands()
            .filter(|c| !c.is_hide_set() && c.get_name() != "help")
            .cloned()
            .collect()
    };
    let mut ctl = distmsg::ctl::command();
    ctl.build();
    add(&ctl, "1", &texts::ctl(&ctl));
    inner(&ctl).iter().for_each(|c| add(c, "1", &texts::ctl_command(c.get_name())));
    let mut daemon = Args::command();
    daemon.build();
    add(&daemon, "8", &texts::daemon(&daemon));
    inner(&daemon).iter().for_each(|c| add(c, "8", &texts::daemon_command(c.get_name())));
    pages
}

#[test]
fn pages_are_those_of_the_grammar() {
    let bless = std::env::var_os("DISTMSG_BLESS").is_some();
    let pages = pages();
    for (file, text) in &pages {
        let path = root("man").join(file);
        if bless {
            fs::write(&path, text).expect("written");
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == *text,
            "man/{file} is stale; write it anew: DISTMSG_BLESS=1 cargo test --test manuals"
        );
    }
    // Nor is there one of a command that is gone.
    let made: BTreeSet<&str> = pages.iter().map(|(file, _)| &**file).collect();
    for entry in fs::read_dir(root("man")).expect("the pages are there") {
        let name = entry.expect("a file").file_name().into_string().expect("text");
        let by_hand = name.ends_with(".5") || name.ends_with(".7");
        assert!(by_hand || made.contains(&*name), "man/{name} is of no command; remove it");
    }
}

#[test]
fn exit_codes_of_commands_are_those_of_the_programs() {
    for (command, name) in [(distmsg::ctl::command(), "distmsgctl"), (Args::command(), "distmsg")] {
        let known: BTreeSet<String> = texts::exits(&command).into_iter().map(|(c, _)| c).collect();
        assert!(known.len() >= 4, "{name}: {known:?}");
        for inner in command.get_subcommands() {
            let texts = match name {
                "distmsgctl" => texts::ctl_command(inner.get_name()),
                _ => texts::daemon_command(inner.get_name()),
            };
            let codes = texts.exits.iter().flat_map(|(codes, _)| codes.split(", "));
            for code in codes.filter(|code| *code != "The others") {
                assert!(known.contains(code), "{name} {}: there is no {code}", inner.get_name());
            }
        }
    }
}

#[test]
fn exit_codes_of_the_readme_are_those_of_the_program() {
    let readme = fs::read_to_string(root("README.md")).expect("the README");
    let (_, part) = readme.split_once("### Exit codes of distmsgctl\n").expect("a table");
    let part = part.split("\n### ").next().expect("its end");
    let codes = part.lines().filter_map(|line| {
        let code = line.strip_prefix("| ")?.split(" |").next()?;
        code.parse::<u8>().ok()
    });
    let told: BTreeSet<u8> = codes.collect();
    let all = texts::exits(&distmsg::ctl::command());
    let all = all.iter().map(|(code, _)| code.parse::<u8>().expect("a number"));
    // What a shell makes of signals is known to who reads a README.
    let known: BTreeSet<u8> = all.filter(|code| *code < 128).collect();
    assert_eq!(told, known);
}

/// Variables that libraries read: home and temporary directories, the time zone, the watchdog's.
const OF_LIBRARIES: &[&str] = &["HOME", "TMPDIR", "TZ", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Rooms whose variables a program's page lists.
const CTL_ROOMS: &[&str] = &["ctl", "control", "config"];
const DAEMON_ROOMS: &[&str] = &["daemon", "config", "node", "link", "store"];

/// Variables that a shared room reads for the other program only.
const NOT_CTL: &[&str] = &["STATE_DIRECTORY", "RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY"];
const NOT_DAEMON: &[&str] = &["DISTMSG_SOCKET", "DISTMSG_INTERFACE_ADDR", "DISTMSG_TOKEN_FILE"];

#[test]
fn the_variables_of_the_code_are_those_of_the_pages() {
    for (page, rooms, table, not) in [
        ("distmsgctl(1)", CTL_ROOMS, CTL_VARIABLES, NOT_CTL),
        ("distmsg(8)", DAEMON_ROOMS, DAEMON_VARIABLES, NOT_DAEMON),
    ] {
        let told: BTreeSet<&str> = table.iter().flat_map(|(names, _)| names.split(", ")).collect();
        let mut read = BTreeSet::new();
        for room in rooms {
            sources(&root("src").join(room), &mut |text| variables(text, &mut read));
        }
        assert!(read.contains("DISTMSG_CONFIG") && read.contains("NO_COLOR"), "{read:?}");
        read.retain(|name| !not.contains(&&**name));
        for name in &read {
            assert!(told.contains(&**name), "{page} does not tell of {name}");
        }
        for name in told {
            let known = read.contains(name) || OF_LIBRARIES.contains(&name);
            assert!(known, "{page} tells of {name}, which nothing reads");
        }
    }
}

/// What a source reads of the environment: names in quotes behind something that reads a variable,
/// and constants of such names. Tests in the same file set many and read none.
fn variables(text: &str, found: &mut BTreeSet<String>) {
    let code = text.split("#[cfg(test)]").next().expect("a part");
    const READS: &[&str] = &["var(", "var_os(", "first_of(", "absolute(", "user_dir(", "&str = "];
    for reads in READS {
        for (at, _) in code.match_indices(&format!("{reads}\"")) {
            let rest = &code[at + reads.len() + 1..];
            let name = &rest[..rest.find('"').expect("its end")];
            let is_name = |b: u8| b.is_ascii_uppercase() || b == b'_';
            // Of constants only those that look like variables.
            let is_variable = *reads != "&str = " || name.contains('_') || name == "COMPLETE";
            if name.len() > 3 && name.bytes().all(is_name) && is_variable {
                found.insert(name.to_owned());
            }
        }
    }
}

fn sources(dir: &std::path::Path, read: &mut impl FnMut(&str)) {
    for entry in fs::read_dir(dir).expect("a room") {
        let path = entry.expect("a file").path();
        if path.is_dir() && path.ends_with("tests") {
            continue;
        } else if path.is_dir() {
            sources(&path, read);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            read(&fs::read_to_string(&path).expect("source is text"));
        }
    }
}
