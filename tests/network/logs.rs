//! What is logged, how much, and where to.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::daemon::{Daemon, SOON};
use crate::faults::skipped;
use crate::running::until;

/// What the journal has of one event.
type Entry = BTreeMap<String, String>;

/// A journal: it reads the protocol that systemd documents as the journal's native one.
struct Journal {
    dir: TempDir,
    socket: UnixDatagram,
}

impl Journal {
    /// None where nobody may have a mount namespace; that is said.
    fn start() -> Option<Self> {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount", "true"]);
        if !unshare.status().is_ok_and(|status| status.success()) {
            skipped("no user and mount namespaces can be made");
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(dir.path().join("socket")).expect("bound");
        Some(Self { dir, socket })
    }

    /// The next event; none if there is none for a while.
    fn next(&self, within: Duration) -> Option<Entry> {
        self.socket.set_read_timeout(Some(within)).expect("set");
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let read = self.socket.recv(&mut buffer).ok()?;
            // An empty one only asks whether anybody is there.
            if read > 0 {
                return Some(parse(&buffer[..read]));
            }
        }
    }

    /// Waits for an event that is so.
    #[track_caller]
    fn until(&self, what: &str, is_it: impl Fn(&Entry) -> bool) -> Entry {
        let deadline = Instant::now() + SOON;
        let mut seen = Vec::new();
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            let Some(entry) = self.next(left.max(Duration::from_millis(1))) else { break };
            if is_it(&entry) {
                return entry;
            }
            seen.push(entry);
        }
        panic!("the journal never had {what}: {seen:#?}");
    }
}

/// Fields as `NAME=value`, or as a name, a length and a value that may have line ends in it.
fn parse(mut bytes: &[u8]) -> Entry {
    let mut entry = Entry::new();
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        if let Some(at) = line.iter().position(|byte| *byte == b'=') {
            entry.insert(text(&line[..at]), text(&line[at + 1..]));
            bytes = rest;
        } else {
            let length = u64::from_le_bytes(rest[..8].try_into().expect("eight bytes"));
            let value = &rest[8..8 + usize::try_from(length).expect("not so long")];
            entry.insert(text(line), text(value));
            bytes = &rest[8 + value.len() + 1..];
        }
    }
    entry
}

#[test]
fn the_journal_has_each_event_with_its_fields() {
    let Some(journal) = Journal::start() else { return };
    let mut a = Daemon::prepare("a");
    a.log_filter = "debug".to_owned();
    a.launch_beside_journal(journal.dir.path());
    let status = a.answer();
    let b = Daemon::start("b");
    let warned = journal.until("a warning", |entry| entry["PRIORITY"] == "4");
    let text = &warned["MESSAGE"];
    assert!(text.starts_with("only this machine can reach this node"), "{text}");
    let ready = journal.until("that it is ready", |entry| entry["MESSAGE"].starts_with("ready"));
    assert_eq!(ready["DISTMSG_PEER"], status["peer"].as_str().expect("its ID"));
    a.connect(&b);
    let up = journal.until("a link", |entry| entry["MESSAGE"].starts_with("link up"));
    assert_eq!(up["DISTMSG_PEER"], b.peer);
    assert_eq!(up["DISTMSG_ADDRESS"], b.address);
    assert_eq!(up["DISTMSG_DIRECTION"], "Outbound");
    assert_eq!(up["SYSLOG_IDENTIFIER"], "distmsg");
    assert_eq!(up["PRIORITY"], "6", "it is for information");
    assert_eq!(up["TARGET"], "distmsg::link::run");
    // Who only reads the text reads of whom it is, too.
    let whole = format!("peer={} address={}", b.peer, b.address);
    assert!(up["MESSAGE"].contains(&whole), "{up:?}");
    assert!(!up["MESSAGE"].contains("unlogged"), "what is not there is not named: {up:?}");
    a.ctl(&["log", "trace"]).exits(0);
    let client = journal.until("a client", |entry| entry["MESSAGE"].contains("client gone"));
    assert_eq!(client["PRIORITY"], "7", "that is for who looks for faults");
    a.ctl(&["log", "error"]).exits(0);
    assert!(a.terminate().success());
    let log = a.log();
    assert_eq!(log, "", "nothing of it comes twice");
}

#[test]
fn a_journal_that_does_not_read_holds_up_nobody() {
    let Some(journal) = Journal::start() else { return };
    let mut a = Daemon::prepare("a");
    a.log_filter = "debug".to_owned();
    a.launch_beside_journal(journal.dir.path());
    a.answer();
    // Each of these is an event, and a datagram socket holds a few only.
    for _ in 0..300 {
        a.ctl(&["id"]).exits(0);
    }
    assert!(a.terminate().success(), "it stops when it is asked to");
}

#[test]
fn how_much_is_logged_is_shown_and_changed_while_it_runs() {
    let mut a = Daemon::prepare("a");
    // The configuration alone decides.
    a.log_filter = String::new();
    a.boot();
    let shown = |daemon: &Daemon| daemon.ctl(&["log"]).exits(0).text();
    assert_eq!(shown(&a), "info\n");
    assert!(!a.log().contains("DEBUG"));
    assert_eq!(a.ctl(&["log", "debug"]).exits(0).text(), "");
    assert_eq!(shown(&a), "debug\n");
    a.logged("DEBUG");
    let json = a.ctl(&["log", "trace", "--json"]).exits(0).json();
    assert_eq!(json, [serde_json::json!({"level": "trace"})]);
    let wrong = a.ctl(&["log", "loud"]).exits(2);
    assert!(wrong.stderr.contains("error, warn, info, debug, trace"), "{}", wrong.stderr);
    assert_eq!(shown(&a), "trace\n");
    // The configuration counts again when it is read again.
    let text = std::fs::read_to_string(a.config()).expect("its configuration");
    a.configure(&format!("log = \"warn\"\n{text}"));
    a.signal(Signal::HUP);
    until("the configuration counts", SOON, || (shown(&a) == "warn\n").then_some(()));
    // What was said before it counted is written before this.
    a.configure("log = 7");
    a.signal(Signal::HUP);
    a.logged("the configuration is refused");
    let before = a.log().matches("DEBUG").count();
    a.ctl(&["id"]).exits(0);
    assert!(a.terminate().success());
    assert_eq!(a.log().matches("DEBUG").count(), before, "it says less again");
}

#[test]
fn what_the_environment_says_counts_more_than_the_configuration() {
    let mut a = Daemon::prepare("a");
    a.log_filter = "distmsg::link=debug".to_owned();
    a.boot();
    assert_eq!(a.ctl(&["log"]).exits(0).text(), "distmsg::link=debug\n");
    a.ctl(&["log", "error"]).exits(0);
    assert_eq!(a.ctl(&["log"]).exits(0).text(), "error\n");
    a.signal(Signal::HUP);
    until("it is as at the start", SOON, || {
        (a.ctl(&["log"]).exits(0).text() == "distmsg::link=debug\n").then_some(())
    });
}
