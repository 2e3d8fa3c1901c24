//! What the package brings agrees with the program and the README, and nothing is forgotten.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use distmsg::config::{Config, Environment};

const CONFIG: &str = "/etc/distmsg/config.toml";
const STATE: &str = "/var/lib/distmsg";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What a unit says of a key, in its order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

fn manifest() -> toml::Table {
    text("Cargo.toml").parse().expect("Cargo.toml is TOML")
}

/// Sources and destinations of what is in the Debian package.
fn assets() -> Vec<(String, String)> {
    let manifest = manifest();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().expect("a list");
    let field = |asset: &toml::Value, at: usize| asset[at].as_str().expect("text").to_owned();
    assets.iter().map(|asset| (field(asset, 0), field(asset, 1))).collect()
}

fn parsed(text: &str) -> Config {
    let config = Config::parse(text, Path::new("packaging/config.toml"));
    config.unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

#[test]
fn the_shipped_configuration_changes_nothing_and_is_for_this_machine_alone() {
    let config = parsed(&text("packaging/config.toml"));
    assert!(config.listen.iter().all(|address| address.is_loopback()), "{:?}", config.listen);
    assert_eq!(config, Config::default(), "a package that does what the program does without it");
}

#[test]
fn what_the_shipped_configuration_shows_in_comments_is_right() {
    let shipped = text("packaging/config.toml");
    let assigns = |line: &str| {
        let mut words = line.split(' ');
        let key = words.next().unwrap_or_default();
        (words.next() == Some("=") || key.starts_with('[')).then(|| key.to_owned())
    };
    let shown: Vec<_> = shipped.lines().filter_map(|line| line.strip_prefix("# ")).collect();
    let shown: Vec<_> = shown.into_iter().filter(|line| assigns(line).is_some()).collect();
    assert!(shown.len() > 3, "nothing is shown: {shown:?}");
    let keys: BTreeSet<_> = shown.iter().filter_map(|line| assigns(line)).collect();
    let mut lines: Vec<_> = shipped
        .lines()
        .filter(|line| assigns(line).is_some_and(|key| !keys.contains(&key)))
        .filter(|line| !line.starts_with('#'))
        .collect();
    lines.extend(shown);
    let config = parsed(&lines.join("\n"));
    assert!(!config.listen.iter().any(|address| address.is_loopback()), "how to be reachable");
}

#[test]
fn the_units_and_the_programs_agree_on_every_path() {
    let service = text("packaging/distmsg.service");
    let socket = text("packaging/distmsg.socket");
    assert_eq!(values(&service, "ExecStart"), [format!("/usr/bin/distmsg {CONFIG}")]);
    assert_eq!(values(&service, "StateDirectory"), ["distmsg"]);
    assert_eq!(values(&service, "StateDirectoryMode"), ["0700"]);
    assert_eq!(values(&service, "User"), ["distmsg"]);

    // Where a client looks that has been told nothing.
    let environment =
        Environment { temp_dir: PathBuf::from("/nonexistent"), ..Environment::default() };
    let system = environment.client_socket(None, None).expect("the system's").path;
    assert_eq!(values(&socket, "ListenStream"), [system.to_str().expect("text")]);
    let vars = [("XDG_RUNTIME_DIR".to_owned(), "/t".into())].into();
    let of_user = Environment { vars, ..environment }.client_socket(None, None);
    let of_user = of_user.expect("none, so that it is told where it would be").missed;
    let unit = text("packaging/user/distmsg.socket");
    let listens = values(&unit, "ListenStream")[0].replace("%t", "/t");
    assert_eq!(of_user.as_deref(), Some(Path::new(&listens)));

    let readme = text("README.md");
    for path in [CONFIG, STATE, "/run/distmsg/socket", "/var/lib/distmsg/network.key"] {
        assert!(readme.contains(path), "{path} is not in the README");
    }
    let sysusers = text("packaging/distmsg.sysusers");
    assert!(sysusers.contains(STATE), "{sysusers}");
    let tmpfiles = text("packaging/distmsg.tmpfiles");
    assert!(tmpfiles.contains("d /var/lib/distmsg 0700 distmsg distmsg"), "{tmpfiles}");
}

/// Learned by trial: each of these breaks the service in a way that is hard to see.
#[test]
fn the_units_do_without_what_breaks_them() {
    let service = text("packaging/distmsg.service");
    let of_user = text("packaging/user/distmsg.service");
    for (unit, text) in [("system", &service), ("user", &of_user)] {
        assert_eq!(values(text, "Type"), ["notify"], "{unit}: Debian 12 knows no notify-reload");
        for key in ["PrivateUsers", "RuntimeDirectory"] {
            assert!(values(text, key).is_empty(), "{unit}: {key}= must not be there");
        }
        assert_eq!(values(text, "WatchdogSec").len(), 1, "{unit}: who hangs is noticed");
        assert_eq!(values(text, "ExecReload")[0], "/bin/sh -c 'kill -HUP ${MAINPID}'", "{unit}");
    }
}

/// The whole of it is measured where systemd is: tests/deb.
#[test]
fn the_service_can_change_nothing_but_its_state() {
    let service = text("packaging/distmsg.service");
    for (key, expected) in [
        ("User", "distmsg"),
        ("CapabilityBoundingSet", ""),
        ("AmbientCapabilities", ""),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"),
        ("RestrictNamespaces", "yes"),
    ] {
        assert_eq!(values(&service, key), [expected], "{key}");
    }
    let filter = ["@system-service", "~@privileged @resources"];
    assert_eq!(values(&service, "SystemCallFilter"), filter);
    for key in ["ReadWritePaths", "BindPaths", "SupplementaryGroups"] {
        assert!(values(&service, key).is_empty(), "{key}= gives it more than its state");
    }
}

#[test]
fn everything_in_packaging_is_in_the_package() {
    let assets = assets();
    let scripts = ["postinst", "prerm", "postrm", "changelog", "make-changelog"];
    let other = ["packaging/install.sh", "packaging/make-tarball.sh"];
    let mut files = Vec::new();
    for folder in ["packaging", "packaging/user", "packaging/debian"] {
        let entries = fs::read_dir(root().join(folder)).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        files.extend(names.map(|name| format!("{folder}/{}", name.to_string_lossy())));
    }
    files.retain(|file| root().join(file).is_file());
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        let script = file.strip_prefix("packaging/debian/");
        let known = script.is_some_and(|script| scripts.contains(&script))
            || other.contains(&&*file)
            || assets.iter().any(|(source, _)| *source == file);
        assert!(known, "{file} is not in the package: see assets in Cargo.toml");
    }
    for (source, _) in assets {
        let built = source.starts_with("target/release/");
        let there = source.contains('*') || root().join(&source).is_file();
        assert!(built || there, "{source} is in Cargo.toml, but not there");
    }
}

#[test]
fn debians_changelog_is_that_of_the_project() {
    let plain = |text: &str| {
        let marks = |word: &&str| !matches!(*word, "*" | "-");
        let words = text.split_whitespace().filter(marks);
        words.map(|word| word.replace('`', "")).collect::<Vec<_>>().join(" ")
    };
    let debian = text("packaging/debian/changelog");
    let manifest = manifest();
    let version = manifest["package"]["version"].as_str().expect("text");
    let first = format!("distmsg ({version}-1) unstable; urgency=medium");
    assert_eq!(debian.lines().next(), Some(&*first), "run packaging/debian/make-changelog");
    let debian = plain(&debian);
    let ours = text("CHANGELOG.md");
    let items = ours.split("\n- ").skip(1);
    let items: Vec<_> = items.map(|item| item.split("\n\n").next().unwrap_or_default()).collect();
    assert!(!items.is_empty(), "CHANGELOG.md has no items");
    for item in items {
        let there = debian.contains(&plain(item));
        assert!(there, "run packaging/debian/make-changelog: not there is '{item}'");
    }
}

/// A script that a merge or a slip broke is noticed before the day it is needed.
#[test]
fn every_script_can_be_read_by_its_shell() {
    let mut scripts = Vec::new();
    for folder in [".ci", "packaging", "tests", "examples"] {
        scripts_in(&root().join(folder), &mut scripts);
    }
    assert!(scripts.len() > 10, "{scripts:?}");
    for (script, shell) in scripts {
        let output = Command::new(shell).arg("-n").arg(&script).output();
        let output = output.unwrap_or_else(|error| panic!("{shell}: {error}"));
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {why}", script.display());
    }
}

/// Scripts below a folder, each with the shell that its first line names.
fn scripts_in(folder: &Path, found: &mut Vec<(PathBuf, &'static str)>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            scripts_in(&path, found);
            continue;
        }
        // What is not text is no script.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let first = text.lines().next().filter(|line| line.starts_with("#!")).unwrap_or_default();
        match first.rsplit(['/', ' ']).next() {
            Some("bash") => found.push((path, "bash")),
            Some("sh") => found.push((path, "sh")),
            _ => {}
        }
    }
}
