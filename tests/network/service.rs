//! A daemon that a service manager looks after: what it tells, and what it is handed over. The
//! manager is this test: a datagram socket, and a socket that listens before the daemon does.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::daemon::{Daemon, SOON, line};

/// What a daemon tells its service manager.
struct Manager {
    socket: UnixDatagram,
    /// What was received and not yet looked at.
    waiting: Vec<String>,
}

impl Manager {
    /// One that waits for a daemon that is not started yet.
    fn of(daemon: &mut Daemon) -> Self {
        let path = daemon.config().with_file_name("notify");
        let socket = UnixDatagram::bind(&path).expect("bound");
        daemon.vars.push(("NOTIFY_SOCKET", path.to_str().expect("text").to_owned()));
        Self { socket, waiting: Vec::new() }
    }

    /// The next assignment within this time.
    fn next(&mut self, within: Duration) -> Option<String> {
        if self.waiting.is_empty() {
            self.socket.set_read_timeout(Some(within)).expect("set");
            let mut buffer = vec![0; 64 * 1024];
            let read = self.socket.recv(&mut buffer).ok()?;
            let text = String::from_utf8(buffer[..read].to_vec()).expect("text");
            assert!(text.ends_with('\n'), "{text:?}");
            self.waiting = text.lines().rev().map(str::to_owned).collect();
        }
        self.waiting.pop()
    }

    /// Waits for one that is so; what comes before it is returned as well.
    #[track_caller]
    fn until(&mut self, what: &str, is_it: impl Fn(&str) -> bool) -> Vec<String> {
        let deadline = Instant::now() + SOON;
        let mut heard = Vec::new();
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            let Some(told) = self.next(left.max(Duration::from_millis(1))) else { break };
            heard.push(told);
            if is_it(heard.last().expect("one")) {
                return heard;
            }
        }
        panic!("it never told {what}: {heard:?}");
    }
}

#[test]
fn a_service_manager_hears_when_it_is_ready_how_it_does_and_when_it_stops() {
    let mut a = Daemon::prepare("a");
    let mut manager = Manager::of(&mut a);
    a.launch(&[]);
    let heard = manager.until("READY", |told| told == "READY=1");
    assert_eq!(heard, ["READY=1"], "nothing comes before it");
    // Who waited for that finds everything there, at once.
    let status = a.ctl(&["status", "--json"]).exits(0).json().remove(0);
    let address = status["listen"][0].as_str().expect("it listens");
    std::net::TcpStream::connect(address).expect("it listens");
    manager.until("its status", |told| told == "STATUS=linked with 0 peers, outbox empty");
    let b = Daemon::start("b");
    a.connect(&b);
    manager.until("a link", |told| told == "STATUS=linked with 1 peer, outbox empty");
    a.ctl(&["send", &minted(), "12345", "--wait", "queued"]).exits(0);
    let queued = "STATUS=linked with 1 peer, 1 message in the outbox (5 bytes)";
    manager.until("a message", |told| told == queued);
    assert!(a.terminate().success());
    let heard = manager.until("STOPPING", |told| told == "STOPPING=1");
    assert!(!heard.iter().any(|told| told.starts_with("WATCHDOG")), "nobody asked: {heard:?}");
    assert_eq!(manager.next(Duration::from_millis(1)), None, "that was the last word");
}

/// Somebody who does not exist.
fn minted() -> String {
    distmsg::crypto::Identity::from_seed(&[77; 32]).peer().to_string()
}

#[test]
fn a_daemon_that_stands_still_gives_no_sign_of_life() {
    let mut a = Daemon::prepare("a");
    let mut manager = Manager::of(&mut a);
    a.vars.push(("WATCHDOG_USEC", "400000".to_owned()));
    a.launch(&[]);
    let is_alive = |told: &str| told == "WATCHDOG=1";
    for _ in 0..4 {
        manager.until("life", is_alive);
    }
    a.signal(Signal::STOP);
    // What it had said before it was stopped.
    while manager.next(Duration::from_millis(100)).is_some() {}
    assert_eq!(manager.next(Duration::from_secs(1)), None, "it is stopped");
    a.signal(Signal::CONT);
    manager.until("life", is_alive);
    assert!(a.terminate().success());
}

#[test]
fn a_sign_of_life_is_given_as_often_as_is_needed_and_no_more() {
    let mut a = Daemon::prepare("a");
    let mut manager = Manager::of(&mut a);
    a.vars.push(("WATCHDOG_USEC", "2000000".to_owned()));
    a.launch(&[]);
    manager.until("life", |told| told == "WATCHDOG=1");
    let began = Instant::now();
    // A client that keeps the loop busy makes it no more talkative.
    let mut signs = 0;
    while began.elapsed() < Duration::from_secs(4) {
        a.ctl(&["id"]).exits(0);
        while let Some(told) = manager.next(Duration::from_millis(1)) {
            signs += usize::from(told == "WATCHDOG=1");
        }
    }
    assert!((2..=5).contains(&signs), "{signs} signs of life in {:?}", began.elapsed());
    assert!(a.terminate().success());
}

#[test]
fn a_watchdog_of_another_process_is_none_of_ours() {
    let mut a = Daemon::prepare("a");
    let mut manager = Manager::of(&mut a);
    a.vars.push(("WATCHDOG_USEC", "100000".to_owned()));
    a.vars.push(("WATCHDOG_PID", "1".to_owned()));
    a.launch(&[]);
    manager.until("its status", |told| told.starts_with("STATUS="));
    assert_eq!(manager.next(Duration::from_millis(500)), None);
    assert!(a.terminate().success());
}

#[test]
fn a_service_manager_that_is_not_there_hinders_nothing() {
    let mut net = line("ab");
    assert!(net[0].terminate().success());
    net[0].vars.push(("NOTIFY_SOCKET", "/nonexistent/notify".to_owned()));
    net[0].boot();
    net[1].await_links(&[&net[0]]);
    let complaints = net[0].log().matches("cannot tell the service manager").count();
    assert_eq!(complaints, 1, "it is said once: {}", net[0].log());
}

/// A control socket as a socket unit has it: made before the daemon, and there without it.
fn made_before(daemon: &Daemon) -> UnixListener {
    let path = daemon.socket();
    fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    let listener = UnixListener::bind(&path).expect("bound");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
    listener
}

/// One more descriptor of it, to be handed over.
fn handed_over(listener: &UnixListener) -> Stdio {
    OwnedFd::from(listener.try_clone().expect("a descriptor")).into()
}

fn mode(daemon: &Daemon) -> u32 {
    fs::metadata(daemon.socket()).expect("its file").permissions().mode() & 0o7777
}

#[test]
fn no_client_is_refused_while_an_activated_daemon_restarts() {
    let mut a = Daemon::prepare("a");
    let socket = made_before(&a);
    a.launch_activated(handed_over(&socket), None);
    let peer = a.answer()["peer"].clone();
    assert_eq!(mode(&a), 0o640, "what somebody else made is left as it is");
    assert!(a.terminate().success());
    assert_eq!(mode(&a), 0o640, "and is there after our end");
    // Nobody runs: whoever comes now waits.
    let mut early = UnixStream::connect(a.socket()).expect("not refused");
    early
        .write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\",\"params\":{}}\n")
        .expect("written");
    let waiting = a.ctl_start(&["id"]);
    a.launch_activated(handed_over(&socket), None);
    early.set_read_timeout(Some(SOON)).expect("set");
    let mut reply = String::new();
    BufReader::new(early).read_line(&mut reply).expect("a reply");
    let reply: Value = serde_json::from_str(&reply).expect("JSON");
    assert_eq!(reply["result"]["peer"], peer);
    assert_eq!(waiting.finish().exits(0).text().trim_end(), peer.as_str().expect("text"));
    // Killed, it leaves the socket to the next one as well.
    a.kill();
    a.launch_activated(handed_over(&socket), None);
    assert_eq!(a.answer()["peer"], peer);
}

#[test]
fn of_what_is_handed_over_the_control_socket_is_taken_by_what_it_is() {
    let mut a = Daemon::prepare("a");
    let socket = made_before(&a);
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    a.launch_activated(OwnedFd::from(other).into(), Some(handed_over(&socket)));
    a.answer();
    assert_eq!(mode(&a), 0o640);
    assert!(a.terminate().success());
    assert!(a.socket().exists());
}

#[test]
fn what_is_handed_over_and_is_no_control_socket_is_an_error_that_says_so() {
    let mut a = Daemon::prepare("a");
    let not_listening = UnixDatagram::unbound().expect("a socket");
    let (connected, _other) = UnixStream::pair().expect("a pair");
    let file = fs::File::open(a.config()).expect("a file");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let wrong: [(Stdio, &str); 4] = [
        (OwnedFd::from(not_listening).into(), "fd 3 is not a valid unix stream socket"),
        (OwnedFd::from(connected).into(), "descriptor 3 does not listen"),
        (file.into(), "fd 3 is not a socket"),
        (OwnedFd::from(tcp).into(), "fd 3 is not a valid unix stream socket"),
    ];
    for (descriptor, why) in wrong {
        a.launch_activated(descriptor, None);
        assert_eq!(a.ended().code(), Some(1), "{why}: {}", a.log());
        let log = a.log();
        let last = log.lines().next_back().expect("a line");
        assert!(last.contains(why) && last.contains("ListenStream="), "{why}: {last}");
        assert!(!a.socket().exists(), "it does not make one of its own instead");
    }
}

#[test]
fn what_is_meant_for_another_process_is_not_taken() {
    let mut a = Daemon::prepare("a");
    a.vars.push(("LISTEN_PID", "1".to_owned()));
    a.vars.push(("LISTEN_FDS", "1".to_owned()));
    a.boot();
    assert_eq!(mode(&a), 0o600, "it has one of its own");
    assert!(a.terminate().success());
    assert!(!a.socket().exists());
}
