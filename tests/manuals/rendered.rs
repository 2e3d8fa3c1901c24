//! Pages as man(1) shows them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::root;

/// Columns of a terminal that is as narrow as terminals are.
const COLUMNS: usize = 80;

/// Whether there is a program; said where it is not, unless it must be there.
fn can_run(program: &str) -> bool {
    let found = Path::new(program).exists();
    let required = std::env::var("DISTMSG_TEST_TOOLS").is_ok_and(|value| value == "required");
    assert!(found || !required, "there is no {program}, and the test that needs it must run");
    if !found {
        eprintln!("SKIPPED: there is no {program}");
    }
    found
}

fn all() -> Vec<PathBuf> {
    let entries = fs::read_dir(root("man")).expect("the pages are there");
    let mut pages: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    pages.sort();
    assert!(pages.len() > 20, "{pages:?}");
    pages
}

fn run(program: &str, args: &[&str], page: &Path) -> Output {
    let mut command = Command::new(program);
    command.args(args).arg(page).stdin(Stdio::null());
    command.env("LC_ALL", "C.UTF-8").env("MANWIDTH", COLUMNS.to_string());
    command.output().expect("it runs")
}

#[test]
fn man_has_nothing_to_complain_of() {
    if !can_run("/usr/bin/man") {
        return;
    }
    for page in all() {
        // As lintian(1) does it.
        let args = ["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"];
        let output = run("man", &args, &page);
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && complaints.is_empty(), "{page:?}: {complaints}");
    }
}

#[test]
fn pages_are_of_this_version_and_of_no_date() {
    let version = env!("CARGO_PKG_VERSION");
    for page in all() {
        let text = fs::read_to_string(&page).expect("text");
        let title = text.lines().find(|line| line.starts_with(".TH ")).expect("a title");
        let (name, section) = (page.file_stem(), page.extension());
        let (Some(name), Some(section)) = (name, section) else { panic!("{page:?}") };
        let name = name.to_string_lossy().to_uppercase().replace('-', "\\-");
        let section = section.to_string_lossy();
        let expected =
            format!(".TH {name} {section} \"\" \"distmsg {version}\" \"Manual of distmsg\"");
        assert_eq!(title, expected, "{page:?}");
    }
}

#[test]
fn pages_fit_a_terminal() {
    if !can_run("/usr/bin/man") {
        return;
    }
    for page in all() {
        let output = run("man", &["-E", "UTF-8", "-l"], &page);
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(text.contains("NAME") && text.contains("SEE ALSO"), "{page:?}: {text}");
        for line in text.lines() {
            assert!(line.chars().count() <= COLUMNS, "{page:?}: {line}");
        }
    }
}

#[test]
fn the_name_of_each_page_is_found() {
    if !can_run("/usr/bin/lexgrog") {
        return;
    }
    for page in all() {
        let output = run("lexgrog", &[], &page);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let stem = page.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(text.contains(&format!(": \"{stem} - ")), "{page:?}: {text}");
    }
}

#[test]
fn pages_that_are_referred_to_are_there() {
    for page in all() {
        let text = fs::read_to_string(&page).expect("text").replace("\\-", "-");
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "-.()\\".contains(c)));
        for word in words {
            let word = word.replace("\\fR", "").replace("\\fB", "").replace("\\fP", "");
            let Some((name, rest)) = word.split_once('(') else { continue };
            let Some((section, _)) = rest.split_once(')') else { continue };
            if name.starts_with("distmsg") && section.len() == 1 {
                let file = root("man").join(format!("{name}.{section}"));
                assert!(file.exists(), "{page:?} refers to {name}({section})");
            }
        }
    }
}
