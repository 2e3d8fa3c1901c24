//! The daemon's executable as a person or a script meets it: setup, check, import, the files it
//! makes, and what it says when something is wrong.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a test that panics fails")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A user's surroundings, empty at first.
struct Place {
    dir: tempfile::TempDir,
}

/// What a command left behind.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().expect("a directory") };
        fs::create_dir(place.path("runtime")).expect("made");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file with this text.
    fn file(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).expect("written");
        self.path(name).display().to_string()
    }

    fn default_config(&self) -> PathBuf {
        self.path("config/distmsg/config.toml")
    }

    fn state(&self) -> PathBuf {
        self.path("state/distmsg")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_RUNTIME_DIR", self.path("runtime"))
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    fn distmsg(&self) -> Command {
        self.command(env!("CARGO_BIN_EXE_distmsg"))
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.distmsg().args(arguments).output().expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// A daemon that is ready.
    fn daemon(&self, arguments: &[&str]) -> Daemon {
        let daemon = Daemon::spawn(self.distmsg().args(arguments));
        daemon.said("ready");
        daemon
    }
}

/// A daemon in the foreground, killed when this is dropped.
struct Daemon {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Daemon {
    fn spawn(command: &mut Command) -> Self {
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        let err = BufReader::new(child.stderr.take().expect("piped"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || err.lines().map_while(Result::ok).try_for_each(|l| sender.send(l)));
        Self { child, lines }
    }

    /// Waits for a line with these words.
    fn said(&self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut all = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(deadline - Instant::now()) {
            if line.contains(words) {
                return line;
            }
            all.push(line);
        }
        panic!("it did not say '{words}' but {all:#?}")
    }

    fn stop(mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("ours") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not stop")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn mode(path: &Path) -> u32 {
    let found = fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    found.permissions().mode() & 0o777
}

#[test]
fn help_and_version_are_results_and_a_wrong_command_line_is_exit_2() {
    let place = Place::new();
    let help = place.run(&["--help"]);
    assert_eq!((help.code, &*help.err), (Some(0), ""));
    assert!(help.out.contains("Examples:") && help.out.contains("distmsg init"), "{}", help.out);
    let version = place.run(&["--version"]);
    assert_eq!(version.out, format!("distmsg {}\n", env!("CARGO_PKG_VERSION")));
    for wrong in [
        &["--bogus"][..],
        &["a", "b"],
        &["init", "--network", "shut"],
        &["init", "--listen", "a:b"],
        &["init", "--auto-links", "65"],
        &["import"],
        &["lab", "1"],
        // Without a terminal there is nobody to ask.
        &["init"],
        &["init", "--name", "ship", "--listen", "0.0.0.0"],
    ] {
        let ran = place.run(wrong);
        assert_eq!((ran.code, &*ran.out), (Some(2), ""), "{wrong:?}: {}", ran.err);
        assert!(ran.err.starts_with("distmsg: "), "{wrong:?}: {}", ran.err);
        assert!(!ran.err.contains("For more information"), "{wrong:?}: {}", ran.err);
    }
    assert!(!place.default_config().exists(), "nothing was written");
    assert_eq!(
        place.run(&["init", "--auto-links", "65"]).err,
        "distmsg: invalid value '65' for '--auto-links <N>': write a number from 0 to 64; \
         'distmsg init --help' tells more\n"
    );
}

#[test]
fn init_writes_what_check_accepts_and_never_over_a_file() {
    let place = Place::new();
    let ran = place.run(&["init", "--yes"]);
    assert_eq!((ran.code, &*ran.out), (Some(0), ""), "{}", ran.err);
    let path = place.default_config();
    let text = fs::read_to_string(&path).expect("written");
    assert!(text.contains("\nlisten = [\"127.0.0.1:3000\"]\n"), "{text}");
    assert!(text.contains("\nnetwork = \"open\"\n"), "{text}");
    assert_eq!(mode(path.parent().expect("one")), 0o700);

    let check = place.run(&["check"]);
    assert_eq!((check.code, &*check.err), (Some(0), ""));
    assert!(check.out.starts_with(&format!("{}: ok\n", path.display())), "{}", check.out);

    let again = place.run(&["init", "--yes", "--name", "other"]);
    assert_eq!(again.code, Some(1));
    assert!(again.err.contains("is there already"), "{}", again.err);
    assert_eq!(fs::read_to_string(&path).expect("still there"), text);
}

#[test]
fn init_needs_no_terminal_when_flags_answer_every_question() {
    let place = Place::new();
    // As the README has it.
    let line = "init --name cellar --listen 0.0.0.0:3000 --advertise cellar:3000 --network closed";
    let ran = place.run(&line.split(' ').collect::<Vec<_>>());
    assert_eq!((ran.code, &*ran.out), (Some(0), ""), "{}", ran.err);
    assert!(place.default_config().exists());
}

#[test]
fn every_answer_of_init_is_in_the_file_and_in_the_summary_of_check() {
    let place = Place::new();
    let ran = place.run(&[
        "init",
        "sub/c.toml",
        "--yes",
        "--name",
        "ship",
        "--listen",
        "0.0.0.0",
        "--listen",
        "[::1]:4000",
        "--advertise",
        "ship.example.org:4000",
        "--network",
        "closed",
        "--auto-links",
        "0",
    ]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let text = fs::read_to_string(place.path("sub/c.toml")).expect("written");
    assert!(text.contains("\nname = \"ship\"\n") && text.contains("\nauto = 0\n"), "{text}");
    let check = place.run(&["check", "sub/c.toml"]);
    let expected = format!(
        "sub/c.toml: ok\n  \
           listens on  0.0.0.0:3000, [::1]:4000\n  \
           advertises  ship.example.org:4000\n  \
           network     closed\n  \
           state       {}\n  \
           socket      {}\n",
        place.state().display(),
        place.path("runtime/distmsg/socket").display()
    );
    assert_eq!((check.code, check.out), (Some(0), expected), "{}", check.err);
    assert!(!place.state().exists(), "neither makes anything else");
}

#[test]
fn each_mistake_is_a_line_with_file_line_key_and_remedy_and_exit_78() {
    let place = Place::new();
    let text = "nmae = \"a\"\nlisten = [\"0.0.0.0:1\"]\n\n[links]\nauto = \"8\"\n";
    let file = place.file("c.toml", text);
    for command in [&["check", &*file][..], &[&*file]] {
        let ran = place.run(command);
        assert_eq!((ran.code, &*ran.out), (Some(78), ""), "{command:?}");
        let lines: Vec<&str> = ran.err.lines().collect();
        assert_eq!(lines.len(), 3, "{lines:#?}");
        for (line, (begins, has)) in lines.iter().zip([
            (format!("{file}:1: nmae: "), "did you mean name?"),
            (format!("{file}:2: listen: "), "network = \"closed\""),
            (format!("{file}:5: links.auto: "), "a whole number from 0 to 64"),
        ]) {
            assert!(line.starts_with(&begins) && line.contains(has), "{line}");
        }
    }
    let both = "interface_port = 4000\n[interface]\naddress = \"[::1]:4000\"\n";
    let file = place.file("i.toml", both);
    let ran = place.run(&["check", &file]);
    assert_eq!(ran.code, Some(78));
    assert!(ran.err.starts_with(&format!("{file}:1: interface_port: ")), "{}", ran.err);
    assert!(ran.err.contains("take one of them out"), "{}", ran.err);
}

#[test]
fn a_file_somebody_named_must_be_there() {
    let place = Place::new();
    for command in [&["none.toml"][..], &["check", "none.toml"], &["import", "none.conf"]] {
        let ran = place.run(command);
        assert_eq!(ran.code, Some(78), "{command:?}: {}", ran.err);
        assert!(ran.err.starts_with("none."), "{}", ran.err);
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    }
    let output = place.distmsg().env("DISTMSG_CONFIG", "none.toml").output().expect("it runs");
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(place.run(&["check"]).code, Some(78), "check has nothing to check");
}

#[test]
fn the_default_file_may_be_missing() {
    let place = Place::new();
    let daemon = Daemon::spawn(&mut place.distmsg());
    let line = daemon.said("running on defaults");
    assert!(line.contains(&place.default_config().display().to_string()), "{line}");
    // Whether its default port is free here is of no consequence.
    drop(daemon);
    assert!(!place.default_config().exists());
}

#[test]
fn a_graph_message_file_becomes_ours() {
    let place = Place::new();
    let old = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/graph_message.conf");
    let ran = place.run(&["import", old]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(
        ran.out,
        "distmsgctl connect '[2001:db8::7]:4001' --alias 0011AABB\n\
         distmsgctl connect 127.0.0.1:4002 --alias 9A8B7C6D\n\
         distmsgctl connect 192.0.2.7:4001 --alias E5F60718\n"
    );
    for said in ["locale=de has no counterpart", "interface_port=4101 is now on 127.0.0.1"] {
        assert!(ran.err.contains(said), "{said}: {}", ran.err);
    }
    let text = fs::read_to_string(place.default_config()).expect("written");
    assert!(text.contains("\nname = \"A1B2C3D4\"\n"), "{text}");
    assert!(text.contains("\nlisten = [\"127.0.0.1:4001\"]\n"), "{text}");
    assert!(text.contains("\naddress = \"127.0.0.1:4101\"\n"), "{text}");
    let checked = place.run(&["check"]);
    assert_eq!(checked.code, Some(0));
    assert!(checked.out.contains("  interface   127.0.0.1:4101, clear text or TLS\n"));

    let again = place.run(&["import", old]);
    assert_eq!((again.code, &*again.out), (Some(1), ""), "{}", again.err);
    assert_eq!(fs::read_to_string(place.default_config()).expect("still there"), text);
}

#[test]
fn an_import_that_others_could_reach_needs_a_network() {
    let place = Place::new();
    let old = place.file("old.conf", "peer_id=AB\r\nhost=0.0.0.0\r\n\r\nport = 4001\r\n");
    let ran = place.run(&["import", &old, "c.toml"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("--network closed"), "{}", ran.err);
    assert!(!place.path("c.toml").exists());
    assert_eq!(place.run(&["import", &old, "c.toml", "--network", "open"]).code, Some(0));
    let check = place.run(&["check", "c.toml"]);
    assert!(check.out.contains("  listens on  0.0.0.0:4001\n"), "{}{}", check.out, check.err);

    let old = place.file("bad.conf", "port=x\npeer_table=\nAB=nonsense\n\u{1b}[31m=1.2.3.4:5\n");
    let ran = place.run(&["import", &old, "d.toml"]);
    assert_eq!((ran.code, &*ran.out), (Some(78), ""));
    for (line, number) in ran.err.lines().zip([1, 3, 4]) {
        assert!(line.starts_with(&format!("{old}:{number}: ")), "{}", ran.err);
    }
    assert!(!ran.err.contains('\u{1b}'), "{:?}", ran.err);
    assert!(!place.path("d.toml").exists());
}

#[test]
fn the_first_start_makes_secrets_for_their_owner_only_and_a_second_daemon_is_told_who_runs() {
    let place = Place::new();
    let config = "listen = [\"127.0.0.1:0\"]\nnetwork = \"closed\"\n[links]\nauto = 0\n";
    let file = place.file("c.toml", config);
    let daemon = place.daemon(&[&file]);
    let state = place.state();
    assert_eq!(mode(&state), 0o700);
    for secret in ["identity.pem", "network.key"] {
        assert_eq!(mode(&state.join(secret)), 0o600, "{secret}");
    }
    assert_eq!(mode(&place.path("runtime/distmsg/socket")), 0o600);

    let other = place.file("other.toml", &format!("socket = \"/nowhere/s\"\n{config}"));
    let second = place.run(&[&other]);
    assert_eq!(second.code, Some(1));
    let said = format!("process ID {};", daemon.child.id());
    assert!(second.err.contains(&said), "{said} {}", second.err);

    let key = fs::read_to_string(state.join("network.key")).expect("text");
    let identity = fs::read_to_string(state.join("identity.pem")).expect("text");
    assert_eq!(daemon.stop(Signal::TERM), Some(0), "a clean end");
    assert!(!place.path("runtime/distmsg/socket").exists(), "the socket is gone");
    let daemon = place.daemon(&[&file]);
    assert_eq!(fs::read_to_string(state.join("network.key")).expect("text"), key);
    assert_eq!(fs::read_to_string(state.join("identity.pem")).expect("text"), identity);
    assert_eq!(daemon.stop(Signal::INT), Some(0), "a clean end");

    for secret in ["identity.pem", "network.key"] {
        let secret = state.join(secret);
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).expect("set");
        let ran = place.run(&[&file]);
        assert_eq!(ran.code, Some(78), "{}", ran.err);
        let remedy = format!("chmod 600 {}", secret.display());
        assert!(ran.err.contains(&remedy), "{}", ran.err);
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("set");
    }
}

#[test]
fn a_key_file_that_is_not_there_is_named_with_file_line_and_remedy_at_the_start_too() {
    let place = Place::new();
    let key = place.path("none/k");
    let text = format!("network = \"closed\"\n\nnetwork_key_file = \"{}\"\n", key.display());
    let file = place.file("c.toml", &text);
    for command in [&["check", &*file][..], &[&*file]] {
        let ran = place.run(command);
        assert_eq!(ran.code, Some(78), "{command:?}: {}", ran.err);
        let begins = format!("{file}:3: network_key_file: {} does not exist; copy", key.display());
        // At the start, the log comes before it.
        let last = ran.err.lines().last().unwrap_or_default();
        assert!(last.starts_with(&begins), "{command:?}: {}", ran.err);
    }
}

#[test]
fn directories_that_cannot_be_used_are_named_with_the_remedy() {
    let place = Place::new();
    fs::write(place.path("file"), "").expect("written");
    let (at, text) = (place.path("file/x/y"), "listen = []\n");
    for (key, code, remedy) in [
        ("state_dir", 1, "not a directory; let this user write to it, or set another state_dir"),
        ("socket", 1, "not a directory; let this user write to its directory, or set another"),
    ] {
        let file = place.file("c.toml", &format!("{text}{key} = \"{}\"\n", at.display()));
        let ran = place.run(&[&file]);
        let last = ran.err.lines().last().unwrap_or_default();
        assert_eq!(ran.code, Some(code), "{key}: {}", ran.err);
        assert!(last.contains(remedy) && !ran.err.contains("os error"), "{key}: {}", ran.err);
    }
}

#[test]
fn what_is_printed_to_nobody_is_refused() {
    let place = Place::new();
    let file = place.file("c.toml", "listen = []\n");
    let line = format!("exec \"$0\" --print {file} >&-");
    let mut shell = place.command("sh");
    let output =
        shell.args(["-c", &line, env!("CARGO_BIN_EXE_distmsg")]).output().expect("it runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("standard output is closed"), "{err}");
}

#[test]
fn a_wrong_log_level_in_the_environment_is_named() {
    let place = Place::new();
    let file = place.file("c.toml", "listen = []\n");
    let output = place.distmsg().arg(&file).env("DISTMSG_LOG", "loud").output().expect("it runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{err}");
    assert!(err.contains("DISTMSG_LOG") && err.contains("error, warn, info"), "{err}");
}

/// Runs `distmsg init` on a terminal of its own; the end of the answers is ctrl-D.
fn init_on_a_terminal(place: &Place, answers: &str) -> Ran {
    let command = format!("{} init", env!("CARGO_BIN_EXE_distmsg"));
    // From util-linux, which every Debian has.
    let mut child = place
        .command("script")
        .args(["-q", "-e", "-c", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("script(1) of util-linux runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(answers.as_bytes()).expect("written");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn on_a_terminal_the_questions_show_defaults_and_wrong_answers_are_asked_again() {
    let place = Place::new();
    let ran = init_on_a_terminal(&place, "a b\nalice\n\nperhaps\nclosed\nnone\n\n\n");
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    for shown in
        ["a name has only letters", "[127.0.0.1:3000]: ", "[open]: ", "write \"open\"", "[new]: "]
    {
        assert!(ran.out.contains(shown), "{shown}: {}", ran.out);
    }
    let text = fs::read_to_string(place.default_config()).expect("written");
    assert!(text.contains("\nname = \"alice\"\n"), "{text}");
    assert!(text.contains("\nnetwork = \"closed\"\n"), "{text}");
    assert_eq!(place.run(&["check"]).code, Some(0));
}

#[test]
fn who_leaves_during_the_questions_leaves_nothing_behind() {
    for answers in ["", "alice\n", "alice\n\u{3}"] {
        let place = Place::new();
        let ran = init_on_a_terminal(&place, answers);
        assert!(ran.code.is_some_and(|code| code != 0), "{answers:?}: {}", ran.out);
        assert!(!place.path("config").exists(), "{answers:?}: {}", ran.out);
    }
}
