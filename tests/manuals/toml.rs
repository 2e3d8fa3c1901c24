//! distmsg.toml(5) against what reads a configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use distmsg::config::Config;

use crate::root;

/// A key that no version will have.
const NO_KEY: &str = "zzzzzzzzzzzzzzzz";

fn page() -> String {
    fs::read_to_string(root("man/distmsg.toml.5")).expect("the page is there")
}

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("c.toml")).map_err(|problems| problems.to_string())
}

/// The keys of a table as the reader lists them to who writes another one.
fn keys_of(table: &str) -> BTreeSet<String> {
    let head = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
    let problem = parse(&format!("{head}{NO_KEY} = 1\n")).expect_err("no such key");
    let (_, list) = problem.split_once("possible here: ").expect("the possible keys are told");
    let list = list.trim_end().trim_end_matches(')');
    list.split(", ").map(str::to_owned).collect()
}

/// Keys whose value is a table.
fn tables() -> BTreeSet<String> {
    let is_table = |key: &String| {
        parse(&format!("{key} = 1")).is_err_and(|problem| problem.contains("expected a table"))
    };
    keys_of("").into_iter().filter(is_table).collect()
}

/// What the page says of a key.
struct Entry {
    default: String,
    bounds: Option<(u64, u64)>,
    /// A change waits for the next start.
    waits: bool,
}

/// The entries of each table, by the table's name; those of none under the empty one.
fn entries() -> BTreeMap<String, BTreeMap<String, Entry>> {
    let page = page();
    let (_, rest) = page.split_once(".SH KEYS\n").expect("a section of keys");
    let keys = rest.split("\n.SH ").next().expect("its end");
    let mut entries = BTreeMap::new();
    for (at, part) in keys.split("\n.SS ").enumerate() {
        let (head, part) = part.split_once('\n').expect("lines");
        let table = if at == 0 { "" } else { head.trim_matches(['[', ']']) };
        let mut of_table = BTreeMap::new();
        for entry in part.split(".TP\n.B ").skip(1) {
            let (key, text) = entry.split_once('\n').expect("lines");
            let line = |begins: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(begins));
                line.map(|line| line.trim_end_matches('.').to_owned())
            };
            let default = line("Default: ").unwrap_or_else(|| panic!("{key}: no default"));
            let bounds = line("From ").map(|bounds| {
                let (least, most) = bounds.split_once(" to ").expect("From N to M.");
                (least.parse().expect("a number"), most.parse().expect("a number"))
            });
            let waits = text.contains("A change takes effect at the next start.");
            let known = of_table.insert(key.to_owned(), Entry { default, bounds, waits });
            assert!(known.is_none(), "{key} stands there twice");
        }
        entries.insert(table.to_owned(), of_table);
    }
    entries
}

#[test]
fn every_key_has_an_entry_and_every_entry_a_key() {
    let entries = entries();
    let tables = tables();
    assert!(tables.contains("limits"), "{tables:?}");
    let told: BTreeSet<String> =
        entries.keys().filter(|table| !table.is_empty()).cloned().collect();
    assert_eq!(told, tables, "tables");
    for (table, of_table) in &entries {
        let told: BTreeSet<String> = of_table.keys().cloned().collect();
        let known: BTreeSet<String> =
            keys_of(table).into_iter().filter(|key| !tables.contains(key)).collect();
        assert_eq!(told, known, "keys of [{table}]");
    }
}

#[test]
fn every_default_is_the_default() {
    for (table, of_table) in entries() {
        for (key, Entry { default, bounds, .. }) in of_table {
            let is_value = default.starts_with(['"', '[']) || bounds.is_some();
            if !is_value {
                // A place or name that is worked out: it is said in words.
                assert!(default.contains(' '), "{key}: {default}");
                continue;
            }
            let head = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
            let text = format!("{head}{key} = {default}\n");
            assert_eq!(parse(&text).expect(&text), Config::default(), "{text}");
        }
    }
}

#[test]
fn every_bound_is_the_bound() {
    let mut checked = 0;
    for (table, of_table) in entries() {
        for (key, entry) in of_table {
            let Some((least, most)) = entry.bounds else { continue };
            let says = |value: u64| {
                // What does not fit another value is possible by itself.
                let problem = parse(&format!("[{table}]\n{key} = {value}\n")).err();
                problem.is_none_or(|problem| !problem.contains("is not possible"))
            };
            assert!(says(least) && says(most), "{key}: from {least} to {most}");
            assert!(!says(most + 1), "{key}: {} is possible too", most + 1);
            assert!(least == 0 || !says(least - 1), "{key}: {} is possible too", least - 1);
            checked += 1;
        }
    }
    assert!(checked >= 18, "only {checked} bounds were found");
}

#[test]
fn what_waits_for_the_next_start_is_what_a_reload_does_not_change() {
    let told: BTreeSet<String> = entries()
        .remove("")
        .expect("keys of no table")
        .into_iter()
        .filter_map(|(key, entry)| entry.waits.then_some(key))
        .collect();
    let in_tables = entries().into_iter().filter(|(table, _)| !table.is_empty());
    assert!(in_tables.flat_map(|(_, table)| table.into_values()).all(|entry| !entry.waits));
    // As the daemon has it: pairs of a key and whether the file says something else now.
    let source = fs::read_to_string(root("src/daemon/reload.rs")).expect("the source");
    let pairs = source.lines().filter_map(|line| {
        let (key, rest) = line.trim().strip_prefix("(\"")?.split_once("\", ")?;
        (rest == format!("before.{key} != config.{key}),")).then(|| key.to_owned())
    });
    let known: BTreeSet<String> = pairs.collect();
    assert!(known.contains("state_dir"), "{known:?}");
    assert_eq!(told, known);
}

#[test]
fn examples_are_configurations() {
    let page = page();
    let (_, examples) = page.split_once(".SH EXAMPLES\n").expect("a section of examples");
    let examples = examples.split("\n.SH ").next().expect("its end");
    let mut count = 0;
    for example in examples.split(".nf\n.RS 4\n").skip(1) {
        let text = example.split("\n.RE").next().expect("its end");
        let config = parse(text).unwrap_or_else(|problem| panic!("{problem}\n{text}"));
        assert_ne!(config, Config::default(), "{text}");
        count += 1;
    }
    assert!(count >= 2, "{count} examples");
}
