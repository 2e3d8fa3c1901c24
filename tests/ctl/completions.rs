//! The tab key of real shells: each loads the committed script and is asked what it would offer.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::fake::{Answer, BOB, EVE, Fake, failure, reply, run};
use crate::terminal::Terminal;

/// How much longer it may take than if nobody had to be asked: what the daemon may take, and what a
/// machine that is busy adds.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// A daemon that knows bob, cellar and somebody without an alias, and some listeners.
fn daemon() -> Fake {
    Fake::start(answer)
}

fn answer(method: &str, _: &serde_json::Value) -> Vec<Answer> {
    match method {
        "peers" => {
            let mut known = vec![crate::lists::peer(BOB, Some("bob"))];
            known.push(crate::lists::peer(EVE, Some("cellar")));
            // Nothing of this may reach a command line.
            known.push(crate::lists::peer("dm1$(touch pwned)", Some("bo$(touch pwned)")));
            reply(json!({"peers": known, "next": null}))
        }
        "status" => {
            let listener = |name: &str| {
                json!({
                    "name": name, "unread": 0, "position": 0, "leased": 0, "clients": 0,
                    "last_seen": null,
                })
            };
            let mut status = crate::lists::status();
            status["listeners"] = json!([listener("backup"), listener("ba; touch pwned")]);
            reply(status)
        }
        other => panic!("asked for {other}"),
    }
}

/// Whether a test can run, which needs this file; said where it cannot, unless it must.
fn can_run(file: &str) -> bool {
    let found = Path::new(file).exists();
    let required = std::env::var("DISTMSG_TEST_TOOLS").is_ok_and(|value| value == "required");
    assert!(found || !required, "there is no {file}, and the test that needs it must run");
    if !found {
        eprintln!("SKIPPED: there is no {file}");
    }
    found
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("completions").join(name)
}

/// A shell that finds both programs by their names and nothing of the user who runs the test.
fn shell(name: &str, fake: &Fake) -> Command {
    let bin = fake.path("bin");
    fs::create_dir_all(&bin).expect("a directory");
    for program in [env!("CARGO_BIN_EXE_distmsg"), env!("CARGO_BIN_EXE_distmsgctl")] {
        let name = Path::new(program).file_name().expect("a name");
        // It is there from the shell before.
        let _ = symlink(program, bin.join(name));
    }
    let mut command = Command::new(name);
    command
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
        .env("HOME", fake.path(""))
        .env("XDG_CONFIG_HOME", fake.path("config"))
        .env("XDG_DATA_HOME", fake.path("data"))
        .env("TERM", "xterm")
        .env("DISTMSG_SOCKET", fake.socket())
        .current_dir(fake.path(""));
    command
}

/// How long the key is pressed again and again.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is offered when the key is pressed until something is: nothing is where the daemon takes
/// too long to answer.
fn pressed(once: impl Fn() -> Vec<String>) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let offered = once();
        if !offered.is_empty() || Instant::now() > deadline {
            return offered;
        }
    }
}

/// What bash offers for a command line with the cursor at its end, if anything.
fn bash(fake: &Fake, line: &str) -> Vec<String> {
    pressed(|| bash_once(fake, line))
}

/// What bash would offer for a command line with the cursor at its end, words as readline splits
/// them.
fn bash_once(fake: &Fake, line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for part in line.split(' ') {
        let mut rest = part;
        words.push(String::new());
        while let Some(at) = rest.find(['=', ':']) {
            let (before, after) = rest.split_at(at);
            let word = words.last_mut().expect("just pushed");
            word.push_str(before);
            words.push(after[..1].to_owned());
            rest = &after[1..];
            if !rest.is_empty() {
                words.push(String::new());
            }
        }
        words.last_mut().expect("just pushed").push_str(rest);
    }
    let last = words.last().expect("a word");
    let current = if last == "=" || last == ":" { "" } else { last };
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let program = &words[0];
    let script = script(&format!("{program}.bash"));
    let text = format!(
        "set -u; source '{}'; COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; \
         COMP_WORDS=({}); COMP_CWORD={}; COMP_TYPE=9; \
         complete -p {program} | grep -q -- '-F _{program} ' || exit 9; \
         _{program} {program} '{current}' '' || exit 8; \
         printf '%s\\n' \"${{COMPREPLY[@]-}}\"",
        script.display(),
        quoted.join(" "),
        words.len() - 1,
    );
    let mut command = shell("bash", fake);
    command.args(["--norc", "--noprofile", "-c", &text]);
    let ran = run(command, b"");
    assert_eq!((ran.code, &*ran.stderr), (0, ""), "{line}");
    ran.stdout.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_offers_commands_options_and_their_values() {
    let fake = daemon();
    assert_eq!(bash(&fake, "distmsgctl se"), ["send"]);
    assert_eq!(bash(&fake, "distmsgctl help lis"), ["listen", "listeners"]);
    assert_eq!(bash(&fake, "distmsgctl send --li"), ["--lines"]);
    assert_eq!(bash(&fake, "distmsgctl send bob --wait q"), ["queued"]);
    // Readline replaces only what stands behind the sign.
    assert_eq!(bash(&fake, "distmsgctl send bob --wait=q"), ["queued"]);
    assert_eq!(bash(&fake, "distmsgctl send bob --wait="), ["queued", "sent", "delivered"]);
    assert_eq!(bash(&fake, "distmsgctl connect box:3000 --al"), ["--alias"]);
    assert_eq!(bash(&fake, "distmsgctl log d"), ["debug"]);
    assert_eq!(bash(&fake, "distmsg la"), ["lab"]);
    assert_eq!(bash(&fake, "distmsg lab 3 --topology r"), ["ring", "random"]);
    assert_eq!(bash(&fake, "distmsg init --network cl"), ["closed"]);
    assert!(fake.asked("peers").is_empty(), "nobody is asked for what the grammar knows");
}

#[test]
fn bash_offers_peers_wherever_one_is_named() {
    let fake = daemon();
    for command in [
        "send",
        "ping",
        "disconnect",
        "forget",
        "alias",
        "listen --from",
        "inbox --from",
        "listen --from=",
        "send --timeout 2s",
    ] {
        let gap = if command.ends_with('=') { "" } else { " " };
        let line = format!("distmsgctl {command}{gap}");
        assert_eq!(bash(&fake, &line), ["bob", "cellar"], "{line}");
        assert_eq!(bash(&fake, &format!("{line}ce")), ["cellar"], "{line}");
        let mut ids = bash(&fake, &format!("{line}dm1q"));
        ids.sort();
        assert_eq!(ids, [EVE, BOB], "{line}");
    }
    assert_eq!(bash(&fake, &format!("distmsgctl connect {}", &BOB[..9])), [BOB]);
    // Not where something else is meant.
    for line in ["distmsgctl send bob c", "distmsgctl status b", "distmsgctl connect bob c"] {
        assert!(bash_once(&fake, line).is_empty(), "{line}");
    }
}

#[test]
fn bash_offers_listeners_that_are_words() {
    let fake = daemon();
    assert_eq!(bash(&fake, "distmsgctl listen --name b"), ["backup"]);
    assert_eq!(bash(&fake, "distmsgctl listeners --remove "), ["backup"]);
}

#[test]
fn a_socket_named_on_the_line_is_asked() {
    let fake = daemon();
    let other = Fake::start(|_, _| failure("busy", "not this one"));
    let line = format!("distmsgctl --socket {} send b", fake.socket().display());
    assert_eq!(bash(&other, &line), ["bob"]);
    assert!(other.asked("peers").is_empty());
}

#[test]
fn without_a_daemon_nothing_is_offered_or_said_and_nobody_waits() {
    let silent = Fake::start(|_, _| Vec::new());
    let none = daemon();
    fs::remove_file(none.socket()).expect("it was there");
    let broken = daemon();
    fs::create_dir_all(broken.path("config/distmsg")).expect("a directory");
    fs::write(broken.path("config/distmsg/config.toml"), "socket = 7").expect("written");
    for (what, fake) in [("silent", &silent), ("none", &none), ("broken", &broken)] {
        let deadline = Instant::now() + PATIENCE;
        let timed = |words: &[&str]| {
            let mut command = shell("distmsgctl", fake);
            command.args(["--", "distmsgctl"]).args(words).env("COMPLETE", "bash");
            if what == "broken" {
                command.env_remove("DISTMSG_SOCKET");
            }
            let began = Instant::now();
            (run(command, b""), began.elapsed())
        };
        // What a busy machine adds is not the same each time.
        loop {
            let (_, unasked) = timed(&["se"]);
            let (ran, asked) = timed(&["send", ""]);
            assert_eq!((ran.code, &*ran.stdout, &*ran.stderr), (0, "words\n", ""), "{what}");
            let waited = asked.saturating_sub(unasked);
            if waited < WAIT_MAX {
                break;
            }
            assert!(Instant::now() < deadline, "{what}: {waited:?}");
        }
        if what != "broken" {
            assert!(bash_once(fake, "distmsgctl send ").is_empty(), "{what}");
        }
    }
}

#[test]
fn the_variable_alone_prints_the_script_and_else_it_means_nothing() {
    let fake = daemon();
    for (shell_name, file) in
        [("bash", "distmsgctl.bash"), ("zsh", "_distmsgctl"), ("fish", "distmsgctl.fish")]
    {
        let mut command = shell("distmsgctl", &fake);
        command.env("COMPLETE", shell_name);
        let committed = fs::read_to_string(script(file)).expect("committed");
        assert_eq!(run(command, b"").stdout, committed);
    }
    // Somebody else's variable does not change what a command does.
    for value in ["bash", "1", ""] {
        let mut command = shell("distmsgctl", &fake);
        command.env("COMPLETE", value).args(["id"]);
        assert_eq!(run(command, b"").stdout, format!("{BOB}\n"), "{value:?}");
    }
}

/// Completes a line, beginning with what the daemon is asked for and offers, if anything, and has
/// its words shown.
fn show_words(terminal: &mut Terminal, asked: Option<(&str, &str)>, keys: &str, shown: &str) {
    if let Some((asks, offered)) = asked {
        terminal.type_keys(asks);
        terminal.tab_until(offered);
    }
    // Home, and then show: the line's words are printed instead of run.
    terminal.type_keys(&format!("{keys}\u{1}show \r"));
    terminal.wait_for(shown, 1);
}

#[test]
fn bash_on_a_terminal_completes_what_is_typed() {
    let fake = daemon();
    fs::write(fake.path("a file"), "").expect("written");
    let mut command = shell("bash", &fake);
    let rc = fake.path("rc");
    let lines = format!(
        "source '{}'\nsource '{}'\nPS1='ready> '\n\
         bind 'set enable-bracketed-paste off'\n\
         show() {{ printf '[%s]' \"$@\"; echo; }}\n",
        script("distmsgctl.bash").display(),
        script("distmsg.bash").display(),
    );
    fs::write(&rc, lines).expect("written");
    command.args(["--noprofile", "--rcfile"]).arg(&rc).arg("-i");
    let mut terminal = Terminal::run(command);
    terminal.wait_for("ready> ", 1);
    // What was completed is shown when the line is run as another command's words.
    let mut prompts = 1;
    for (asked, keys, shown) in [
        (
            Some(("distmsgctl sen\tc", "send cellar ")),
            "'hi there' --wai\tq\t",
            "[distmsgctl][send][cellar][hi there][--wait][queued]",
        ),
        (
            Some(("distmsgctl listen --from=ce", "--from=cellar ")),
            "",
            "[distmsgctl][listen][--from=cellar]",
        ),
        (None, "distmsgctl send bob --file a\t", "[distmsgctl][send][bob][--file][a file]"),
        (None, "distmsg check a\t", "[distmsg][check][a file]"),
    ] {
        show_words(&mut terminal, asked, keys, shown);
        prompts += 1;
        terminal.wait_for("ready> ", prompts);
    }
    terminal.type_keys("exit\r");
    assert_eq!(terminal.exit_code(), Some(0));
}

#[test]
fn bash_completion_finds_the_scripts_by_their_names() {
    let base = "/usr/share/bash-completion/bash_completion";
    if !can_run(base) {
        return;
    }
    let fake = daemon();
    let dir = fake.path("data/bash-completion/completions");
    fs::create_dir_all(&dir).expect("a directory");
    for program in ["distmsg", "distmsgctl"] {
        // As a distribution installs them.
        fs::copy(script(&format!("{program}.bash")), dir.join(program)).expect("copied");
        let text = format!(
            "source {base}; __load_completion {program} 2>/dev/null || _comp_load {program}; \
             complete -p {program}"
        );
        let mut command = shell("bash", &fake);
        command.args(["--norc", "--noprofile", "-c", &text]);
        let ran = run(command, b"");
        assert_eq!(ran.stdout, format!("complete -F _{program} {program}\n"), "{}", ran.stderr);
    }
}

#[test]
fn zsh_offers_the_same_with_what_it_means() {
    if !can_run("/usr/bin/zsh") {
        return;
    }
    let fake = daemon();
    let dir = fake.path("functions");
    fs::create_dir_all(&dir).expect("a directory");
    for file in ["_distmsgctl", "_distmsg"] {
        fs::copy(script(file), dir.join(file)).expect("copied");
    }
    fs::write(fake.path("a file"), "").expect("written");
    let rc = format!(
        "fpath=('{}' $fpath)\nautoload -Uz compinit && compinit -D -u\nPS1='ready> '\n\
         unsetopt zle_bracketed_paste 2>/dev/null\nunset zle_bracketed_paste\n\
         show() {{ printf '[%s]' \"$@\"; echo }}\n",
        dir.display()
    );
    fs::write(fake.path(".zshrc"), rc).expect("written");
    let mut command = shell("zsh", &fake);
    command.env("ZDOTDIR", fake.path("")).args(["--no-globalrcs", "-i"]);
    let mut terminal = Terminal::run(command);
    terminal.wait_for("ready> ", 1);
    for (asked, keys, shown) in [
        (
            Some(("distmsgctl send c", "ellar")),
            "hi --wait=q\t",
            "[distmsgctl][send][cellar][hi][--wait=queued]",
        ),
        (None, "distmsgctl send bob --file a\t", "[distmsgctl][send][bob][--file][a file]"),
        (None, "distmsg lab --topology st\t", "[distmsg][lab][--topology][star]"),
    ] {
        show_words(&mut terminal, asked, keys, shown);
    }
    // Several are listed, each with its meaning.
    terminal.type_keys("distmsgctl send ");
    terminal.tab_until(&format!("cellar  -- {EVE}"));
}

#[test]
fn fish_offers_the_same_with_what_it_means() {
    if !can_run("/usr/bin/fish") {
        return;
    }
    let fake = daemon();
    fs::write(fake.path("a-file"), "").expect("written");
    let offered = |line: &str| {
        let text = format!(
            "source '{}'; source '{}'; complete --do-complete '{line}'",
            script("distmsgctl.fish").display(),
            script("distmsg.fish").display(),
        );
        let mut command = shell("fish", &fake);
        command.args(["--no-config", "-c", &text]);
        let ran = run(command, b"");
        assert_eq!((ran.code, &*ran.stderr), (0, ""), "{line}");
        let mut lines: Vec<String> = ran.stdout.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let peers = [format!("bob\t{BOB}"), format!("cellar\t{EVE}")];
    assert_eq!(pressed(|| offered("distmsgctl send ")), peers);
    assert_eq!(offered("distmsgctl send bob --wait=q"), ["--wait=queued\tIt is on our disk"]);
    assert_eq!(offered("distmsgctl send bob --file a-f"), ["a-file"]);
    assert_eq!(offered("distmsgctl send bob --file=a-f"), ["--file=a-file"]);
    assert_eq!(offered("distmsg lab --topology st").len(), 1);
    fs::remove_file(fake.socket()).expect("it was there");
    assert!(offered("distmsgctl send ").is_empty());
}

#[test]
fn scripts_are_those_of_the_programs() {
    let bless = std::env::var_os("DISTMSG_BLESS").is_some();
    for program in ["distmsg", "distmsgctl"] {
        for shell in distmsg::config::Shell::ALL {
            let path = script(&shell.file(program));
            let text = shell.script(program);
            if bless {
                fs::write(&path, &text).expect("written");
            }
            let committed = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                committed == text,
                "{} is stale; write it anew: DISTMSG_BLESS=1 cargo test --test ctl completions",
                path.display()
            );
        }
    }
}

#[test]
fn what_a_shell_would_run_is_not_offered() {
    let fake = daemon();
    for line in ["distmsgctl send bo", "distmsgctl listeners --remove ba", "distmsgctl send dm1"] {
        let offered = bash(&fake, line);
        assert!(!offered.is_empty(), "{line}");
        assert!(!offered.iter().any(|word| word.contains(['$', ';', ' '])), "{offered:?}");
    }
}
