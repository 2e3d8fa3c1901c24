//! A daemon that answers what a test tells it to, and remembers what it was asked.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A peer ID that is well formed.
pub(crate) const BOB: &str = "dm1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs4lhh9s";

/// Another one.
pub(crate) const EVE: &str = "dm1qgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqcfsssc";

/// What the daemon does about a request, in order.
pub(crate) enum Answer {
    /// Replies.
    Result(Value),
    /// Fails: code, message, and whatever else the failure holds.
    Failure(&'static str, &'static str, Value),
    /// Sends an event: its method and parameters.
    Event(&'static str, Value),
    /// Closes the connection.
    Close,
}

pub(crate) use Answer::{Close, Event, Failure};

/// A plain reply.
pub(crate) fn reply(value: Value) -> Vec<Answer> {
    vec![Answer::Result(value)]
}

/// An inbox without a message: also what tells that a name means somebody.
pub(crate) fn nothing_came() -> Vec<Answer> {
    reply(json!({"messages": [], "next": null}))
}

/// A plain failure.
pub(crate) fn failure(code: &'static str, message: &'static str) -> Vec<Answer> {
    vec![Failure(code, message, json!({}))]
}

/// The daemon: its socket, and what it was asked.
pub(crate) struct Fake {
    directory: TempDir,
    asked: Arc<Mutex<Vec<Value>>>,
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: i32,
}

/// What a test expects.
pub(crate) fn ran(code: i32, stdout: &str, stderr: &str) -> Ran {
    Ran { stdout: stdout.into(), stderr: stderr.into(), code }
}

impl Fake {
    /// Starts a daemon that answers requests as told by method and parameters.
    pub(crate) fn start(
        answer: impl Fn(&str, &Value) -> Vec<Answer> + Send + Sync + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let listener = UnixListener::bind(directory.path().join("socket")).expect("a socket");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let fake = Self { directory, asked: Arc::clone(&asked) };
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
                let stream = stream.expect("a connection");
                thread::spawn(move || serve(&stream, &*answer, &asked));
            }
        });
        fake
    }

    /// A daemon that answers one method, always the same, and knows everybody's name.
    pub(crate) fn answering(
        method: &'static str,
        answers: impl Fn() -> Vec<Answer> + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |asked, _| {
            if asked == "inbox" && method == "send" {
                return nothing_came();
            }
            assert_eq!(asked, method, "the method asked for");
            answers()
        })
    }

    /// A daemon that answers messages as told by their parameters, and knows everybody's name.
    pub(crate) fn answering_sends(
        answer: impl Fn(&Value) -> Vec<Answer> + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |method, params| match method {
            "inbox" => nothing_came(),
            "send" => answer(params),
            other => panic!("asked for {other}"),
        })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// The directory of the socket, for files of the test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The parameters of all requests of a method so far.
    pub(crate) fn asked(&self, method: &str) -> Vec<Value> {
        let asked = self.asked.lock().expect("no panic");
        asked.iter().filter(|r| r["method"] == method).map(|r| r["params"].clone()).collect()
    }

    /// distmsgctl, told where this daemon is and nothing of the user who runs the test.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = bare_command(args);
        command
            .env("DISTMSG_SOCKET", self.socket())
            .env("HOME", self.directory.path())
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_CONFIG_HOME", self.path("config"));
        command
    }

    /// Runs distmsgctl with an empty standard input.
    pub(crate) fn ctl(&self, args: &[&str]) -> Ran {
        self.ctl_with(args, b"")
    }

    /// Runs distmsgctl with this standard input.
    pub(crate) fn ctl_with(&self, args: &[&str], stdin: &[u8]) -> Ran {
        run(self.command(args), stdin)
    }
}

/// distmsgctl in an empty environment, but for what makes its output the same everywhere.
pub(crate) fn bare_command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distmsgctl"));
    command.args(args).env_clear().env("TZ", "UTC");
    command
}

/// Runs a command to its end.
pub(crate) fn run(mut command: Command, stdin: &[u8]) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("distmsgctl starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    let stdin = stdin.to_vec();
    // It may leave without reading everything.
    let writer = thread::spawn(move || drop(pipe.write_all(&stdin)));
    let output = child.wait_with_output().expect("distmsgctl ends");
    writer.join().expect("no panic");
    Ran {
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code().unwrap_or(-1),
    }
}

/// Waits until something is so.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "never so: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn serve(
    stream: &UnixStream,
    answer: &dyn Fn(&str, &Value) -> Vec<Answer>,
    asked: &Mutex<Vec<Value>>,
) {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let request: Value = serde_json::from_str(&line).expect("a request is JSON");
        assert_eq!(request["jsonrpc"], "2.0");
        let method = request["method"].as_str().expect("a request has a method");
        asked.lock().expect("no panic").push(request.clone());
        let mut lines = String::new();
        let mut close = false;
        for answer in answer(method, &request["params"]) {
            let line = match answer {
                Answer::Result(result) => {
                    json!({"jsonrpc": "2.0", "id": request["id"], "result": result})
                }
                Answer::Failure(code, message, mut more) => {
                    more["code"] = code.into();
                    more["message"] = message.into();
                    let error = json!({"code": -32000, "message": message, "data": more});
                    json!({"jsonrpc": "2.0", "id": request["id"], "error": error})
                }
                Answer::Event(method, params) => {
                    json!({"jsonrpc": "2.0", "method": method, "params": params})
                }
                Answer::Close => {
                    close = true;
                    break;
                }
            };
            lines.push_str(&format!("{line}\n"));
        }
        let mut writer = stream;
        if writer.write_all(lines.as_bytes()).is_err() || close {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}
