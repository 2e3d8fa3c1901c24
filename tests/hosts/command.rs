//! Commands that end, or are ended.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// No command takes longer, or it hangs.
const COMMAND_MAX: Duration = Duration::from_secs(150);
/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a command wrote and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The exit code; none if a signal ended it.
    pub(crate) code: Option<i32>,
    /// The command line, to say which one failed.
    line: String,
}

impl Output {
    /// Fails unless the exit code is the one expected.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        let Self { stdout, stderr, line, .. } = &self;
        assert_eq!(self.code, Some(code), "{line}\nstdout: {stdout}\nstderr: {stderr}");
        self
    }

    /// Each line of standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        self.stdout.lines().map(parse).collect()
    }
}

/// Runs a command with this standard input to its end.
#[track_caller]
pub(crate) fn run(mut command: Command, stdin: &str) -> Output {
    let line = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process");
    let mut input = child.stdin.take().expect("piped");
    let stdin = stdin.to_owned();
    // Both beside each other, so that neither pipe stops the other.
    let writer = std::thread::spawn(move || drop(input.write_all(stdin.as_bytes())));
    let (ended, end) = mpsc::channel();
    let reader = std::thread::spawn(move || drop(ended.send(child.wait_with_output())));
    let output = end.recv_timeout(COMMAND_MAX).unwrap_or_else(|_| {
        // Nobody has waited for it, so that its number is still its own.
        let _ = kill_process(pid, Signal::KILL);
        panic!("did not end within {COMMAND_MAX:?}: {line}");
    });
    let _ = (reader.join(), writer.join());
    let output = output.expect("our child");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let code = output.status.code();
    Output { stdout: text(output.stdout), stderr: text(output.stderr), code, line }
}

/// Waits until a condition holds, and tells how long that took. Fails with what was awaited if it
/// does not within `within`.
#[track_caller]
pub(crate) fn until(what: &str, within: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
    begun.elapsed()
}
