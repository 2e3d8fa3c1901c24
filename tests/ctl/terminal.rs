//! What happens on a terminal: the prompt, and questions.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};

use crate::fake::{Answer, BOB, Close, Event, Fake, failure, reply, wait_until};

/// distmsgctl on a terminal of its own.
pub(crate) struct Terminal {
    child: Child,
    keys: File,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    pub(crate) fn run(mut command: Command) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&terminal).expect("granted");
        unlockpt(&terminal).expect("unlocked");
        let name = ptsname(&terminal, Vec::new()).expect("a name");
        let name = name.to_str().expect("text").to_owned();
        let end = || -> OwnedFd {
            OpenOptions::new().read(true).write(true).open(&name).expect("its other end").into()
        };
        command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().expect("distmsgctl starts");
        // The command holds its ends of the terminal too, which would keep it open.
        drop(command);
        let keys = File::from(terminal);
        let mut output = keys.try_clone().expect("a descriptor");
        let screen = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&screen);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The terminal is closed with an error when the last process leaves it.
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
                shared.lock().expect("no panic").push_str(&text);
            }
        });
        Self { child, keys, screen }
    }

    fn screen(&self) -> String {
        self.screen.lock().expect("no panic").clone()
    }

    pub(crate) fn type_keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("keys are taken");
    }

    fn shows(&self, text: &str, times: usize) -> bool {
        self.screen().matches(text).count() >= times
    }

    /// Waits until so many of these are on the screen.
    pub(crate) fn wait_for(&self, text: &str, times: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.shows(text, times) {
            let screen = self.screen();
            assert!(Instant::now() < deadline, "no {text:?} on the screen: {screen:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Presses tab until this is on the screen: where the daemon must be asked, nothing is offered
    /// if it takes too long.
    pub(crate) fn tab_until(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut press = Instant::now();
        while !self.shows(text, 1) {
            let (now, screen) = (Instant::now(), self.screen());
            assert!(now < deadline, "no {text:?} on the screen: {screen:?}");
            if now >= press {
                self.type_keys("\t");
                press = now + Duration::from_secs(2);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// As by ctrl-C.
    fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    }

    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end; screen: {:?}", self.screen());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn message(body: &str) -> Answer {
    let message = json!({
        "cursor": 7, "id": "00", "from": BOB, "alias": "bob", "subject": null,
        "sent": "2026-01-02T03:04:05Z", "received": "2026-01-02T03:04:06Z",
        "bytes": body.len(), "body": body,
    });
    Event("message", json!({"subscription": 1, "message": message}))
}

fn daemon() -> Fake {
    Fake::start(answer)
}

fn answer(method: &str, params: &Value) -> Vec<Answer> {
    match method {
        "status" => reply(json!({
            "version": "0.1.0", "pid": 1, "peer": BOB, "name": "alice", "network": "open",
            "uptime_s": 1, "state_dir": "/", "listen": [], "advertise": [], "peers": 1, "links": 1,
            "outbox_messages": 0, "outbox_bytes": 0, "given_up": 0, "last_given_up": null,
            "inbox_messages": 0, "inbox_bytes": 0,
            "listeners": [], "warnings": [],
        })),
        "subscribe" => {
            assert_eq!(params["topics"], json!(["messages", "links"]));
            let mut answers = reply(json!({"subscription": 1}));
            answers.push(message("welcome\nhome"));
            answers.push(Event(
                "link",
                json!({"peer": BOB, "alias": "bob", "up": false, "reason": "silent for 45 s"}),
            ));
            answers
        }
        "peers" => reply(json!({"peers": [crate::lists::peer(BOB, Some("bob"))], "next": null})),
        "send" if params["peer"] == "nobody" => failure("no_such_peer", "no peer is called so"),
        // A send to a peer that is silent waits.
        "send" if params["peer"] == "silent" => Vec::new(),
        "send" => reply(json!({"id": "00ff", "state": "delivered"})),
        "probe" => reply(json!({"peer": BOB, "name": "box"})),
        "connect" => reply(json!({
            "peer": BOB, "alias": "box", "name": "box", "address": "192.0.2.7:3000",
        })),
        other => panic!("asked for {other}"),
    }
}

#[test]
fn the_prompt_shows_who_we_are_and_what_arrives() {
    let fake = daemon();
    let mut terminal = Terminal::run(fake.command(&[]));
    terminal.wait_for("'help' lists the commands, ctrl-D leaves", 1);
    terminal.wait_for("alice> ", 1);
    terminal.wait_for("welcome\\nhome", 1);
    terminal.wait_for("is no longer linked: silent for 45 s", 1);
    // Nothing of it was acknowledged: the daemon would have panicked.
    terminal.type_keys("\u{4}");
    assert_eq!(terminal.exit_code(), Some(0));
}

#[test]
fn the_prompt_completes_and_runs_commands() {
    let fake = daemon();
    let mut terminal = Terminal::run(fake.command(&[]));
    terminal.wait_for("alice> ", 1);
    // "send bob 'hi there'", by completion.
    terminal.type_keys("sen\tb");
    terminal.tab_until("send bob ");
    terminal.type_keys("'hi there'\r");
    terminal.wait_for("delivered (00ff)", 1);
    assert_eq!(fake.asked("send")[0]["peer"], "bob");
    assert_eq!(fake.asked("send")[0]["body"], "hi there");
    terminal.type_keys("exit\r");
    assert_eq!(terminal.exit_code(), Some(0));
}

#[test]
fn an_error_does_not_end_the_prompt() {
    let fake = daemon();
    let mut terminal = Terminal::run(fake.command(&[]));
    terminal.wait_for("alice> ", 1);
    terminal.type_keys("send nobody x\r");
    terminal.wait_for("distmsgctl: no peer is called so", 1);
    terminal.type_keys("snd\r");
    terminal.wait_for("unrecognized subcommand 'snd'", 1);
    terminal.type_keys("quit\r");
    assert_eq!(terminal.exit_code(), Some(0));
}

#[test]
fn ctrl_c_ends_a_command_and_not_the_prompt() {
    let fake = daemon();
    let mut terminal = Terminal::run(fake.command(&[]));
    terminal.wait_for("alice> ", 1);
    terminal.type_keys("send silent x\r");
    wait_until("the daemon is asked", || fake.asked("send").len() == 1);
    terminal.interrupt();
    terminal.wait_for("interrupted; the message may be queued", 1);
    terminal.type_keys("exit\r");
    assert_eq!(terminal.exit_code(), Some(0));
}

#[test]
fn a_body_can_be_typed_and_the_prompt_comes_back() {
    let fake = daemon();
    let mut terminal = Terminal::run(fake.command(&[]));
    terminal.wait_for("alice> ", 1);
    terminal.type_keys("send bob\r");
    terminal.wait_for("type the message", 1);
    terminal.type_keys("by hand\n\u{4}");
    terminal.wait_for("delivered (00ff)", 1);
    assert_eq!(fake.asked("send")[0]["body"], "by hand\n");
    terminal.type_keys("exit\r");
    assert_eq!(terminal.exit_code(), Some(0));
}

#[test]
fn sigterm_ends_the_prompt() {
    let fake = daemon();
    let mut terminal = Terminal::run(fake.command(&[]));
    terminal.wait_for("alice> ", 1);
    let pid = rustix::process::Pid::from_child(&terminal.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    assert_eq!(terminal.exit_code(), Some(143));
}

#[test]
fn a_daemon_that_goes_away_is_looked_for_again() {
    let alive = AtomicBool::new(false);
    let fake = Fake::start(move |method, params| match method {
        // Only the first subscription ends with its connection.
        "subscribe" if !alive.swap(true, Ordering::Relaxed) => {
            let mut answers = reply(json!({"subscription": 1}));
            answers.push(Close);
            answers
        }
        "subscribe" => reply(json!({"subscription": 1})),
        _ => answer(method, params),
    });
    let mut terminal = Terminal::run(fake.command(&[]));
    terminal.wait_for("the daemon went away", 1);
    terminal.type_keys("id\r");
    terminal.wait_for("the daemon is back", 1);
    terminal.wait_for(BOB, 1);
    terminal.type_keys("exit\r");
    assert_eq!(terminal.exit_code(), Some(0));
}

#[test]
fn history_is_kept_for_its_owner_alone() {
    let fake = daemon();
    let mut terminal = Terminal::run(fake.command(&[]));
    terminal.wait_for("alice> ", 1);
    terminal.type_keys("help ping\rexit\r");
    assert_eq!(terminal.exit_code(), Some(0));
    let history = fake.path("state").join("distmsg/history");
    let text = fs::read_to_string(&history).expect("a history");
    assert!(text.contains("help ping\n"), "{text}");
    let mode = fs::metadata(&history).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn without_a_daemon_there_is_no_prompt() {
    let fake = daemon();
    let mut command = fake.command(&[]);
    command.env("DISTMSG_SOCKET", "/nonexistent/socket");
    let mut terminal = Terminal::run(command);
    assert_eq!(terminal.exit_code(), Some(3));
    terminal.wait_for("cannot reach the daemon", 1);
}

/// What takes a line off the screen again.
const CLEAR: &str = "\r\u{1b}[K";

#[test]
fn what_takes_long_is_told_until_it_is_done() {
    let (done, waits) = std::sync::mpsc::channel::<()>();
    let waits = Mutex::new(waits);
    let fake = Fake::start(move |method, _| match method {
        "ping" => {
            let _ = waits.lock().expect("no panic").recv_timeout(Duration::from_secs(20));
            reply(json!({"peer": BOB, "rtt_ms": 1.5, "attempts": 1}))
        }
        other => panic!("asked for {other}"),
    });
    let mut terminal = Terminal::run(fake.command(&["ping", "bob", "--timeout", "20s"]));
    terminal.wait_for("looking for bob … 1s of 20s", 1);
    terminal.wait_for(&format!("{CLEAR}looking for bob … 2s of 20s"), 1);
    done.send(()).expect("it waits");
    assert_eq!(terminal.exit_code(), Some(0));
    terminal.wait_for(&format!("20s{CLEAR}{BOB} answered in 1.50 ms"), 1);
}

#[test]
fn ctrl_c_counts_as_soon_as_somebody_is_told_of_it() {
    // It does not say whether it knows bob.
    let fake = Fake::start(|_, _| Vec::new());
    for (args, told, said) in [
        (&["send", "bob", "--lines"][..], "each line is sent", "interrupted; 0 lines done"),
        (&["send", "bob"], "type the message", ""),
    ] {
        let mut terminal = Terminal::run(fake.command(args));
        terminal.wait_for(told, 1);
        terminal.interrupt();
        assert_eq!(terminal.exit_code(), Some(130), "{args:?}");
        terminal.wait_for(said, 1);
    }
}

#[test]
fn a_send_that_is_interrupted_leaves_no_progress_behind() {
    let fake = daemon();
    let mut terminal = Terminal::run(fake.command(&["send", "silent", "x"]));
    terminal.wait_for("waiting for the proof that silent has it … 1s of 10s", 1);
    terminal.interrupt();
    assert_eq!(terminal.exit_code(), Some(130));
    terminal.wait_for(&format!("{CLEAR}distmsgctl: interrupted; the message may be queued"), 1);
}

#[test]
fn a_daemon_that_takes_long_to_take_a_message_shows_how_far_it_is() {
    let (done, waits) = std::sync::mpsc::channel::<()>();
    let waits = Mutex::new(waits);
    let fake = Fake::start(move |method, _| match method {
        "upload_begin" | "upload_chunk" => {
            let _ = waits.lock().expect("no panic").recv_timeout(Duration::from_secs(20));
            reply(json!({}))
        }
        "send" => reply(json!({"id": "00ff", "state": "delivered"})),
        other => panic!("asked for {other}"),
    });
    let file = fake.path("large");
    File::create(&file).expect("a file").set_len(4 << 20).expect("a length");
    let args = ["send", "bob", "--file", file.to_str().expect("text")];
    let mut terminal = Terminal::run(fake.command(&args));
    terminal.wait_for("handing it to the daemon, ", 1);
    drop(done);
    assert_eq!(terminal.exit_code(), Some(0));
    terminal.wait_for("delivered (00ff)", 1);
}

#[test]
fn connect_asks_whether_it_is_the_right_one() {
    for (answer, code) in [("y\n", 0), ("n\n", 1)] {
        let fake = daemon();
        let mut terminal = Terminal::run(fake.command(&["connect", "192.0.2.7"]));
        terminal.wait_for("calls itself \"box\"", 1);
        terminal.wait_for(BOB, 1);
        terminal.wait_for("[y/N]", 1);
        terminal.type_keys(answer);
        assert_eq!(terminal.exit_code(), Some(code));
        assert_eq!(fake.asked("connect").len(), usize::from(code == 0));
    }
}
