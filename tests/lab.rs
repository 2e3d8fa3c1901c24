//! `distmsg lab` as somebody tries it out for the first time.

#![expect(clippy::expect_used, reason = "a harness that panics is a test that fails")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Lab {
    child: Child,
    /// Where its temporary directory is made.
    temp: TempDir,
}

fn lab(args: &[&str]) -> Lab {
    lab_writing_to(args, Stdio::piped())
}

fn lab_writing_to(args: &[&str], stdout: Stdio) -> Lab {
    let temp = tempfile::tempdir().expect("a directory");
    let child = Command::new(env!("CARGO_BIN_EXE_distmsg"))
        .arg("lab")
        .args(args)
        .env("TMPDIR", temp.path())
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    Lab { child, temp }
}

impl Lab {
    /// Waits for its end: exit code, standard output and standard error.
    fn finish(mut self) -> (Option<i32>, String, String, TempDir) {
        let (mut out, mut err) = (String::new(), String::new());
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut out).expect("text");
        }
        self.child.stderr.take().expect("piped").read_to_string(&mut err).expect("text");
        let status = self.child.wait().expect("ended");
        (status.code(), out, err, self.temp)
    }

    /// Waits until it says that it is connecting its daemons: then they run.
    fn wait_for_daemons(&mut self) -> Vec<u32> {
        let err = self.child.stderr.take().expect("piped");
        let connecting = |line: &String| line.starts_with("connecting");
        let mut lines = BufReader::new(err).lines().map_while(Result::ok);
        assert!(lines.any(|line| connecting(&line)), "it never connected its daemons");
        let daemons = children_of(self.child.id());
        assert!(!daemons.is_empty(), "it has no daemons");
        daemons
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().expect("kill runs");
        assert!(sent.success(), "the signal was not sent");
    }
}

/// Processes whose parent is this one.
fn children_of(parent: u32) -> Vec<u32> {
    let numbers = std::fs::read_dir("/proc")
        .expect("proc")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse::<u32>().ok());
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name, in brackets, may contain anything; the parent is the second field after it.
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        after.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    numbers.filter(is_child).collect()
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // One that nobody has waited for yet has ended all the same.
    stat.rsplit_once(')').is_some_and(|(_, after)| !after.trim_start().starts_with('Z'))
}

fn leftovers(temp: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(temp).expect("there").map(|entry| entry.expect("readable").path()).collect()
}

fn delivers(args: &[&str], picture: &str, expected: &[&str]) {
    let (code, out, err, temp) = lab(args).finish();
    assert_eq!(code, Some(0), "standard error: {err}");
    assert!(out.starts_with(picture), "the picture is missing: {out}");
    for line in expected {
        assert!(out.contains(line), "{line:?} is missing: {out}");
    }
    assert_eq!(leftovers(temp.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_line_of_three_carries_a_message_through_a_relay_that_sees_sizes_only() {
    let expected = [
        "bob    passed on ",
        " bytes from alice to carol; cannot open them",
        "opened it: \"hello carol, this is alice\", verified to be from alice",
        "delivered: carol has it on disk and proved it to alice",
    ];
    delivers(&["3"], "alice --- bob --- carol\n", &expected);
}

#[test]
fn three_is_the_default() {
    delivers(&[], "alice --- bob --- carol\n", &["delivered: carol"]);
}

#[test]
fn a_ring_carries_a_message() {
    delivers(&["4", "--topology", "ring"], "alice --- bob", &["delivered: dave"]);
}

#[test]
fn a_star_carries_a_message_through_its_middle() {
    let passed = ["from alice to dave; cannot open them", "delivered: dave"];
    delivers(&["4", "--topology", "star"], "bob --- alice, carol, dave\n", &passed);
}

#[test]
fn a_random_network_carries_a_message() {
    let args = ["5", "--topology", "random", "--seed", "7"];
    delivers(&args, "random network, --seed 7:\n", &["delivered: erin"]);
}

#[test]
fn a_ring_of_two_shows_its_one_link() {
    delivers(&["2", "--topology", "ring"], "alice --- bob\n\n", &["delivered: bob"]);
}

#[test]
fn what_cannot_be_shown_is_a_failure_and_a_reader_that_leaves_is_none() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("there");
    let (code, _, err, temp) = lab_writing_to(&["2"], full.into()).finish();
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("distmsg lab: cannot write to standard output: No space"), "{err}");
    assert_eq!(leftovers(temp.path()), Vec::<PathBuf>::new());
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let (code, _, err, _) = lab_writing_to(&["2"], writer.into()).finish();
    assert_eq!(code, Some(0), "{err}");
}

#[test]
fn a_temporary_directory_with_too_long_a_path_is_named_with_the_remedy() {
    let temp = tempfile::tempdir().expect("a directory");
    let long = temp.path().join("long".repeat(25));
    std::fs::create_dir(&long).expect("made");
    let mut command = Command::new(env!("CARGO_BIN_EXE_distmsg"));
    let output = command.args(["lab", "2"]).env("TMPDIR", &long).output().expect("it runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("TMPDIR=/tmp distmsg lab"), "{err}");
    assert_eq!(leftovers(&long), Vec::<PathBuf>::new());
}

#[test]
fn interrupted_it_leaves_nothing_behind() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let mut lab = lab(&["3"]);
        let daemons = lab.wait_for_daemons();
        lab.signal(signal);
        let status = lab.child.wait().expect("ended");
        // It may have been done already.
        assert!([Some(code), Some(0)].contains(&status.code()), "{signal}: {status}");
        for daemon in daemons {
            wait_until("the daemon ends", || !is_running(daemon));
        }
        assert_eq!(leftovers(lab.temp.path()), Vec::<PathBuf>::new(), "{signal}");
    }
}

#[test]
fn killed_it_leaves_no_daemon_behind() {
    let mut lab = lab(&["3"]);
    let daemons = lab.wait_for_daemons();
    lab.child.kill().expect("killed");
    lab.child.wait().expect("ended");
    for daemon in daemons {
        wait_until("the daemon ends", || !is_running(daemon));
    }
}

/// A lab on a terminal of its own, whose keys are typed through a pipe.
struct OnTerminal {
    /// script(1) of util-linux, which every Debian has. It ends with its standard input.
    child: Child,
    screen: Arc<Mutex<String>>,
    /// Bytes of the screen that were waited for.
    seen: usize,
    _temp: TempDir,
}

impl OnTerminal {
    fn start(args: &str) -> Self {
        let temp = tempfile::tempdir().expect("a directory");
        // A shell that stayed would get ctrl-C as well, and end with it: dash does.
        let command = format!("exec {} lab {args}", env!("CARGO_BIN_EXE_distmsg"));
        let mut child = Command::new("script")
            .args(["-q", "-e", "-c", &command, "/dev/null"])
            .env("TMPDIR", temp.path())
            .env("XDG_STATE_HOME", temp.path())
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script(1) of util-linux runs");
        let mut out = child.stdout.take().expect("piped");
        let screen = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = out.read(&mut bytes) {
                let text = String::from_utf8_lossy(bytes.get(..read).unwrap_or_default());
                shared.lock().expect("no panic").push_str(&text);
            }
        });
        Self { child, screen, seen: 0, _temp: temp }
    }

    fn type_keys(&mut self, keys: &str) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        stdin.write_all(keys.as_bytes()).expect("keys are taken");
    }

    /// Waits until this is on the screen, behind what was waited for before.
    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen.lock().expect("no panic").clone();
            if let Some(at) = screen.get(self.seen..).and_then(|rest| rest.find(text)) {
                self.seen += at + text.len();
                return;
            }
            assert!(Instant::now() < deadline, "no {text:?} on the screen: {screen}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[test]
fn ctrl_c_at_the_prompt_ends_a_command_and_no_daemon() {
    let mut lab = OnTerminal::start("2");
    lab.wait_for("alice> ");
    lab.type_keys("send bob\r");
    lab.wait_for("type the message");
    lab.type_keys("\u{3}");
    lab.wait_for("alice> ");
    lab.type_keys("ping bob\r");
    lab.wait_for("answered in");
    lab.wait_for("alice> ");
    lab.type_keys("exit\r");
    let code = lab.child.wait().expect("ended").code();
    assert_eq!(code, Some(0));
}
