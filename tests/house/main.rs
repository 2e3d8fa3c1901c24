//! The rules of the house, checked against the source: which room may know which, what the pure
//! rooms must not touch, and how the code is kept readable. See ARCHITECTURE.md for the reasons.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a test that panics fails")]

mod packaging;
mod plants;
mod scan;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use scan::Token;

/// Every room and the rooms it may import, beside [`COMMON`] and itself. Nothing else: siblings
/// never know each other, and nobody looks up.
const IMPORTS: &[(&str, &[&str])] = &[
    ("bin", &["daemon", "ctl", "lab"]),
    ("lab", &["daemon", "ctl"]),
    ("daemon", &["node", "config", "crypto", "store", "link", "control"]),
    ("node", &["router", "courier", "store", "link", "control", "wire", "crypto"]),
    ("link", &["wire", "crypto"]),
    ("router", &["wire", "crypto"]),
    ("courier", &["wire", "crypto"]),
    ("control", &["crypto"]),
    ("ctl", &["control", "config"]),
    ("store", &[]),
    ("config", &[]),
    ("wire", &[]),
    ("crypto", &[]),
    ("model", &[]),
];

/// The room that everybody may import.
const COMMON: &str = "model";

/// Rooms and parts of rooms without clock, sockets, threads, files or randomness of their own: the
/// same inputs give the same outputs, in the daemon and in the simulator.
const PURE: &[&str] = &["model", "wire", "crypto", "router", "courier", "node/core"];

/// What pure rooms must not name, and why. Each is looked for in every path, after `use` trees are
/// spelled out.
const BANNED: &[(&[&str], &str)] = &[
    (&["Instant", "SystemTime", "UNIX_EPOCH", "Timestamp::now", "Zoned::now"], WHY_CLOCK),
    (&["std::thread", "tokio", "crossbeam", "rayon"], WHY_THREADS),
    (&["std::fs", "std::env", "std::process", "std::io::stdin", "std::io::stdout"], WHY_OUTSIDE),
    (&["rusqlite", "rustls", "tokio_rustls", "rustix", "interprocess"], WHY_OUTSIDE),
    (&["TcpStream", "TcpListener", "UdpSocket", "UnixStream", "UnixListener"], WHY_OUTSIDE),
    (&["ToSocketAddrs", "socket2", "mio"], WHY_OUTSIDE),
    (&["rand::rng", "rand::random", "thread_rng", "ThreadRng", "getrandom"], WHY_RANDOM),
    (&["OsRng", "SysRng", "SystemRandom", "RandomState"], WHY_RANDOM),
    (&["HashMap", "HashSet", "hash_map", "hash_set"], WHY_ORDER),
    (&["std::*", "std::collections::*", "std::time::*", "std::net::*"], WHY_GLOB),
];

const WHY_CLOCK: &str = "time is an argument (`Now`), so that a simulation decides what time it is";
const WHY_THREADS: &str = "the pure rooms are called, they never run by themselves";
const WHY_OUTSIDE: &str = "the pure rooms say what is to be done; the shells around them do it";
const WHY_RANDOM: &str = "random bytes come from the `Random` passed in, so that a seed replays";
const WHY_ORDER: &str = "their order differs from run to run; a BTreeMap or BTreeSet replays";
const WHY_GLOB: &str = "a glob hides what is used from this check";

/// What of [`BANNED`] a file may use all the same: file, name, reason.
const BANNED_EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// Lines of code, comments and tests not counted, from which on a file is a room that wants a door.
const FILE_LINES_MAX: usize = 500;

/// Lines of code in a binary: it only calls the library.
const SHIM_LINES_MAX: usize = 20;

const COLUMNS_MAX: usize = 100;

/// A source file.
struct Source {
    /// Its path from the package's root, with slashes.
    path: String,
    text: String,
    tokens: Vec<Token>,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), tokens: scan::tokens(text) }
    }

    /// `src/router/routes.rs` is `["router", "routes"]`; empty outside of `src` and for its root.
    fn module(&self) -> Vec<String> {
        let inner = self.path.strip_prefix("src/").and_then(|path| path.strip_suffix(".rs"));
        let mut module: Vec<_> = inner.unwrap_or_default().split('/').map(str::to_owned).collect();
        module.pop_if(|last| matches!(&**last, "mod" | "lib" | ""));
        module
    }

    /// The room it is in; none for `src/lib.rs`.
    fn room(&self) -> Option<String> {
        self.module().into_iter().next()
    }
}

#[test]
fn rooms_import_only_what_they_may() {
    none_of("the import rule", code(), imports_of);
}

#[test]
fn pure_rooms_touch_nothing_outside() {
    none_of("the purity rule", code(), impurities_of);
    let unused = BANNED_EXCEPTIONS.iter().filter(|(file, name, _)| {
        let named = |source: &Source| {
            scan::paths(&source.tokens).iter().any(|path| names(&path.segments, name))
        };
        !code().iter().any(|source| source.path == *file && named(source))
    });
    assert_eq!(unused.count(), 0, "an exception in BANNED_EXCEPTIONS is not used any more");
}

#[test]
fn lines_are_short_and_nothing_is_left_undone() {
    none_of("the rule of the sentence", sources(&["src", "tests", "benches", "examples"]), untidy);
}

#[test]
fn files_are_short() {
    none_of("the length rule", code(), too_long);
}

#[test]
fn every_room_is_on_the_map() {
    let rooms: BTreeSet<_> = code().iter().filter_map(Source::room).collect();
    assert!(rooms.len() > 3, "the rooms are not where they were: {rooms:?}");
    for map in ["ARCHITECTURE.md", "src/lib.rs"] {
        let text = fs::read_to_string(root().join(map)).expect("the map is there");
        for room in &rooms {
            assert!(IMPORTS.iter().any(|(known, _)| known == room), "{room}: not in IMPORTS");
            let shown = match map {
                "src/lib.rs" => room == "bin" || text.contains(&format!("[`{room}`]")),
                _ => text.contains(&format!("{room}/")),
            };
            assert!(shown, "the room {room} is not on the map in {map}");
        }
    }
}

/// What is imported against [`IMPORTS`].
fn imports_of(source: &Source) -> Vec<String> {
    let Some(room) = source.room() else { return roots_of(source) };
    let Some((_, allowed)) = IMPORTS.iter().find(|(known, _)| *known == room) else {
        return vec![format!("{}: a room that is not in IMPORTS", source.path)];
    };
    let mut wrong = Vec::new();
    for path in scan::paths(&source.tokens) {
        let Some(place) = place_of(source, &room, &path) else { continue };
        let target = place.first().map_or("*", String::as_str);
        if target == "*" {
            if path.imported {
                wrong.push(format!("{}:{}: imports the whole crate", source.path, path.line));
            }
        } else if target != room && target != COMMON && !allowed.contains(&target) {
            wrong.push(format!(
                "{}:{}: {room} imports {target}; it may import only {COMMON} {}",
                source.path,
                path.line,
                allowed.join(" ")
            ));
        }
    }
    wrong.dedup();
    wrong
}

/// Where in the library a path leads. A binary is a crate of its own, and knows it by name.
fn place_of(source: &Source, room: &str, path: &scan::Path) -> Option<Vec<String>> {
    match path.segments.split_first() {
        Some((first, rest)) if first == "distmsg" && room == "bin" => Some(rest.to_vec()),
        _ if room == "bin" => None,
        _ => scan::resolve(path, &source.module()),
    }
}

/// The library's root declares the rooms and imports nothing, so that nothing comes in by it.
fn roots_of(source: &Source) -> Vec<String> {
    let imports = scan::paths(&source.tokens).into_iter().filter(|path| path.imported);
    imports.map(|path| format!("{}:{}: the root imports nothing", source.path, path.line)).collect()
}

/// What a pure room names of [`BANNED`].
fn impurities_of(source: &Source) -> Vec<String> {
    let place = source.module().join("/");
    let inside = |part: &&&str| place == **part || place.starts_with(&format!("{part}/"));
    let Some(part) = PURE.iter().find(inside) else { return Vec::new() };
    let mut wrong = Vec::new();
    for path in scan::paths(&source.tokens) {
        for (banned, reason) in BANNED {
            for name in banned.iter().filter(|name| names(&path.segments, name)) {
                let excepted = BANNED_EXCEPTIONS
                    .iter()
                    .any(|(file, excepted, _)| *file == source.path && excepted == name);
                if !excepted {
                    wrong.push(format!(
                        "{}:{}: {part} is pure and may not use {name}: {reason}",
                        source.path, path.line
                    ));
                }
            }
        }
    }
    wrong
}

/// Whether the segments of `name` stand one after the other in a path.
fn names(path: &[String], name: &str) -> bool {
    let name: Vec<_> = name.split("::").collect();
    path.windows(name.len()).any(|window| window.iter().eq(name.iter()))
}

/// Long lines, tabs, and what was left for later.
fn untidy(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut add = |line: usize, what: &str| wrong.push(format!("{}:{line}: {what}", source.path));
    for (line, text) in (1..).zip(source.text.lines()) {
        if text.chars().count() > COLUMNS_MAX {
            add(line, "more than 100 columns; rustfmt leaves strings and comments to you");
        }
        if text.contains('\t') {
            add(line, "a tab; write \\t in strings");
        }
    }
    for (name, line) in scan::macros(&source.tokens) {
        if matches!(name, "todo" | "unimplemented" | "dbg") {
            add(line, &format!("{name}! is left over; finish it or take it out"));
        }
    }
    for (name, line) in scan::attributes(&source.tokens) {
        if name == "ignore" {
            add(line, "a test that is ignored protects nothing; fix it or take it out");
        }
        if name == "path" {
            add(line, "#[path] hides which room a file is in");
        }
    }
    wrong
}

fn too_long(source: &Source) -> Vec<String> {
    let lines = scan::lines_of_code(&source.tokens);
    let shim = source.room().is_some_and(|room| room == "bin");
    let max = if shim { SHIM_LINES_MAX } else { FILE_LINES_MAX };
    if lines <= max {
        return Vec::new();
    }
    vec![format!("{}: {lines} lines of code, more than {max}; split it", source.path)]
}

fn none_of(rule: &str, sources: Vec<Source>, check: impl Fn(&Source) -> Vec<String>) {
    assert!(!sources.is_empty(), "no source was found");
    let wrong: Vec<_> = sources.iter().flat_map(check).collect();
    assert!(wrong.is_empty(), "{rule} is broken in {} places:\n{}", wrong.len(), wrong.join("\n"));
}

/// Everything under `src` that is not only for tests.
fn code() -> Vec<Source> {
    let mut test_modules = BTreeSet::new();
    let mut sources = sources(&["src"]);
    for source in &mut sources {
        let (kept, modules) = scan::without_tests(&source.tokens);
        let folder = [vec!["src".to_owned()], source.module()].concat().join("/");
        test_modules.extend(modules.iter().map(|name| format!("{folder}/{name}")));
        source.tokens = kept;
    }
    let only_for_tests = |source: &Source| {
        let stem = source.path.trim_end_matches(".rs");
        test_modules.iter().any(|m| stem == m || stem.starts_with(&format!("{m}/")))
    };
    sources.retain(|source| !only_for_tests(source));
    sources
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let mut files = Vec::new();
    for folder in folders {
        collect(&root().join(folder), &mut files);
    }
    files.sort();
    let name = |file: &Path| {
        let inner = file.strip_prefix(root()).expect("below the root");
        inner.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
    };
    let read = |file: &PathBuf| fs::read_to_string(file).expect("source is UTF-8");
    files.iter().map(|file| Source::new(&name(file), &read(file))).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The checks can fail: each is shown something wrong, and something that only looks wrong.
mod checks {
    use super::*;

    fn wrong_with(check: fn(&Source) -> Vec<String>, path: &str, text: &str) -> usize {
        check(&Source::new(path, text)).len()
    }

    #[test]
    fn an_import_of_a_sibling_is_found_however_it_is_written() {
        for text in [
            "use crate::store::op::Op;",
            "use crate::{model, store};",
            "use crate::{\n    model::{PeerId, Name},\n    store::{self, op::{Op, Row}},\n};",
            "pub(crate) use crate::store as s;",
            "use super::super::store;",
            "mod inner { use super::super::super::store; }",
            "fn f(op: crate::store::Op) {}",
            "macro_rules! m { () => { $crate::store::f() } }",
            "use crate::*;",
            "use crate as all;",
            "use crate::router_typo;",
        ] {
            assert_eq!(wrong_with(imports_of, "src/router/routes.rs", text), 1, "{text}");
        }
        assert_eq!(wrong_with(imports_of, "src/router/mod.rs", "use super::store;"), 1);
        assert_eq!(wrong_with(imports_of, "src/model/mod.rs", "use crate::wire::Frame;"), 1);
        assert_eq!(wrong_with(imports_of, "src/attic/mod.rs", ""), 1, "an unknown room");
        assert_eq!(wrong_with(imports_of, "src/bin/x.rs", "use distmsg::{ctl, node};"), 1);
        assert_eq!(wrong_with(imports_of, "src/bin/x.rs", "fn main() { distmsg::node::f() }"), 1);
        assert_eq!(wrong_with(imports_of, "src/lib.rs", "pub mod wire; pub use wire::Frame;"), 1);
    }

    #[test]
    fn allowed_imports_are_not_found() {
        for text in [
            "use crate::{model::PeerId, wire::{self, Frame}, crypto};",
            "use super::neighbours; use self::inner::X; use crate::router::Input;",
            "// use crate::store;\nconst S: &str = \"use crate::store;\";",
            "pub(crate) fn f() {} pub(in crate::router) fn g() {}",
            "use std::fmt; use bytes::Bytes;",
        ] {
            let wrong = imports_of(&Source::new("src/router/routes.rs", text));
            assert!(wrong.is_empty(), "{text}: {wrong:?}");
        }
        assert_eq!(wrong_with(imports_of, "src/bin/x.rs", "use distmsg::daemon;"), 0);
        assert_eq!(wrong_with(imports_of, "src/lib.rs", "pub mod wire;"), 0);
    }

    #[test]
    fn impurity_is_found_in_pure_rooms_only() {
        for text in [
            "use std::time::{Duration, Instant};",
            "fn f() { std::time::SystemTime::now(); }",
            "use std::{fmt, thread};",
            "fn f() { std::thread::sleep(x) }",
            "use std::net::{IpAddr, TcpStream};",
            "use tokio::sync::mpsc;",
            "use std::fs;",
            "fn f() { rand::rng(); }",
            "use std::collections::{BTreeMap, HashMap};",
            "use std::collections; fn f(m: collections::HashSet<u8>) {}",
            "use std::*;",
        ] {
            for path in ["src/model/x.rs", "src/router/mod.rs", "src/node/core/x.rs"] {
                assert_eq!(wrong_with(impurities_of, path, text), 1, "{path}: {text}");
            }
            assert_eq!(wrong_with(impurities_of, "src/node/core.rs", text), 1, "{text}");
            assert_eq!(wrong_with(impurities_of, "src/link/mod.rs", text), 0, "{text}");
            assert_eq!(wrong_with(impurities_of, "src/node/core_loop.rs", text), 0, "{text}");
        }
        let fine = "use std::net::{IpAddr, SocketAddr}; use std::time::Duration;
            use std::collections::BTreeMap; fn f() { self.thread; /* HashMap */ \"Instant\"; }";
        assert_eq!(wrong_with(impurities_of, "src/wire/x.rs", fine), 0);
    }

    #[test]
    fn untidiness_is_found() {
        let long = format!("// {}", "x".repeat(98));
        for text in [
            &*long,
            "\tx",
            "fn f() { todo!() }",
            "dbg!(x);",
            "unimplemented!();",
            "#[ignore]",
            "#[ignore = \"slow\"]",
            "#[cfg_attr(x, ignore)]",
            "#[path = \"x.rs\"] mod x;",
        ] {
            assert_eq!(wrong_with(untidy, "tests/x.rs", text), 1, "{text}");
        }
        let fine = format!("// {}\n\"todo!()\" // dbg!\n/// `#[ignore]`", "ü".repeat(97));
        assert_eq!(wrong_with(untidy, "tests/x.rs", &fine), 0);
    }

    #[test]
    fn long_files_are_found() {
        let text = "x;\n// y\n\n".repeat(FILE_LINES_MAX);
        assert_eq!(wrong_with(too_long, "src/wire/x.rs", &text), 0, "comments do not count");
        assert_eq!(wrong_with(too_long, "src/wire/x.rs", &format!("{text}z;")), 1);
        assert_eq!(wrong_with(too_long, "src/bin/x.rs", &text), 1, "a shim is shorter");
    }

    #[test]
    fn tests_beside_the_code_are_not_code() {
        let paths: Vec<_> = code().into_iter().map(|source| source.path).collect();
        assert!(paths.iter().any(|path| path == "src/wire/frame.rs"));
        assert!(!paths.iter().any(|path| path.starts_with("src/wire/tests")), "{paths:?}");
    }
}

/// A promise that names a test which is gone is worth nothing.
#[test]
fn the_tests_that_security_names_are_there() {
    let text = fs::read_to_string(root().join("SECURITY.md")).expect("SECURITY.md is there");
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| who"));
    let everything = sources(&["src", "tests"]);
    let mut named = 0;
    for row in rows.filter(|row| !row.starts_with("| ---")) {
        let shown_by = row.trim_end_matches('|').rsplit('|').next().expect("a last column");
        for name in shown_by.split('`').skip(1).step_by(2) {
            named += 1;
            let definition = format!("fn {name}(");
            let is_there = everything.iter().any(|source| source.text.contains(&definition));
            assert!(is_there, "SECURITY.md names {name}, which is no test");
        }
    }
    assert!(named > 30, "the table is not where it was: {named} tests named");
}
