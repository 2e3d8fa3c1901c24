//! A daemon that a service manager looks after: what it tells, and what it is handed over. The
//! manager is this test: a datagram socket, and a socket that listens before the daemon does.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::daemon::{Daemon, SOON, line};
use crate::faults::skipped;
use crate::running::{Running, copy_program, until};

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
            signs += u64::from(told == "WATCHDOG=1");
        }
    }
    // One a second.
    let took = began.elapsed();
    assert!((2..=took.as_secs() + 1).contains(&signs), "{signs} signs of life in {took:?}");
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
    net[0].logged("cannot tell the service manager");
    assert!(net[0].terminate().success());
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
    a.logged("not used of what was handed over: fd 3");
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

/// Replaces a line of a daemon's configuration, or adds one at its beginning.
fn write(daemon: &Daemon, key: &str, value: &str) {
    let text = fs::read_to_string(daemon.config()).expect("its configuration");
    let others = text.lines().filter(|line| !line.starts_with(&format!("{key} =")));
    let text: Vec<&str> = others.collect();
    daemon.configure(&format!("{key} = {value}\n{}\n", text.join("\n")));
}

/// Has it read its configuration again, and waits until it says that it did.
/// Returns how it does by its own account then.
fn reload(daemon: &Daemon, manager: &mut Manager) -> String {
    daemon.signal(Signal::HUP);
    let heard = manager.until("a reload", |told| told == "READY=1");
    let told: Vec<&String> = heard.iter().filter(|told| !told.starts_with("STATUS=")).collect();
    let [reloading, time, ready] = &told[..] else { panic!("{heard:?}") };
    assert_eq!((reloading.as_str(), ready.as_str()), ("RELOADING=1", "READY=1"));
    let time = time.strip_prefix("MONOTONIC_USEC=").expect("the time");
    assert!(time.parse::<u64>().is_ok_and(|time| time > 0), "{time}");
    let status = heard.iter().rev().find_map(|told| told.strip_prefix("STATUS="));
    status.expect("before the end").to_owned()
}

/// A daemon that runs, and its manager, which has heard that it is ready.
fn managed(name: &str) -> (Daemon, Manager) {
    let mut daemon = Daemon::prepare(name);
    let mut manager = Manager::of(&mut daemon);
    daemon.boot();
    manager.until("its status", |told| told.starts_with("STATUS="));
    (daemon, manager)
}

#[test]
fn what_can_change_is_applied_while_links_and_messages_stay() {
    let (a, mut manager) = managed("a");
    let b = Daemon::start("b");
    a.connect(&b);
    a.ctl(&["send", &minted(), "waits", "--wait", "queued"]).exits(0);
    let up = |daemon: &Daemon| daemon.peers().iter().find_map(|p| p["link"]["up_s"].as_u64());
    write(&a, "name", "\"renamed\"");
    write(&a, "advertise", "[\"a.example:3000\"]");
    let text = fs::read_to_string(a.config()).expect("its configuration");
    a.configure(&format!("{text}\n[limits]\nmessage_bytes_max = 10\n"));
    reload(&a, &mut manager);
    let status = a.status();
    assert_eq!(status["name"], "renamed");
    assert_eq!(status["advertise"][0], "a.example:3000");
    assert_eq!(status["outbox_messages"], 1, "what was accepted stays");
    assert_eq!(status["pid"], a.pid(), "it is the same process");
    assert!(up(&a).is_some(), "the link is still there");
    until("others hear of the name", SOON, || (b.knows(&a)?["name"] == "renamed").then_some(()));
    assert_eq!(b.knows(&a).expect("known")["addresses"][0], "a.example:3000");
    a.ctl(&["send", "b", "eleven byte"]).exits(7);
    a.ctl(&["send", "b", "ten bytes."]).exits(0);
    a.logged("the configuration was read again");
    let log = a.log();
    let links = log.lines().filter(|line| line.contains("link up")).count();
    assert_eq!(links, 1, "the link was never down: {log}");
}

#[test]
fn a_broken_file_changes_nothing_and_is_told_with_its_remedy_until_it_is_mended() {
    let (a, mut manager) = managed("a");
    let good = fs::read_to_string(a.config()).expect("its configuration");
    let broken = good.replace("auto = 0", "auto = 1000").replace("\"a\"", "\"new\"");
    a.configure(&broken);
    let told = reload(&a, &mut manager);
    let line = broken.lines().position(|line| line.starts_with("auto")).expect("there") + 1;
    let problem = format!("{}:{line}: links.auto: 1000 is not possible", a.config().display());
    assert!(told.starts_with("running on the old") && told.contains(&problem), "{told}");
    let status = a.status();
    assert_eq!(status["name"], "a", "nothing of it is in use");
    let warnings = status["warnings"].to_string();
    assert!(warnings.contains("links.auto: 1000 is not possible"), "{warnings}");
    let told = a.logged(&problem);
    assert!(told.contains("WARN"), "{told}");
    // What is no TOML at all, what is not there: the same.
    for wrong in ["name = = 1", "\u{1}"] {
        a.configure(wrong);
        let told = reload(&a, &mut manager);
        assert!(told.contains("config.toml:1: not TOML"), "{told}");
    }
    a.configure(&good.replace("\"a\"", "\"new\""));
    assert_eq!(reload(&a, &mut manager), "linked with 0 peers, outbox empty");
    assert_eq!(a.status()["name"], "new");
    assert!(!a.status()["warnings"].to_string().contains("old configuration"));
}

#[test]
fn a_configuration_that_became_a_pipe_is_refused_and_nobody_waits_for_it() {
    let (mut a, mut manager) = managed("a");
    let text = fs::read_to_string(a.config()).expect("its configuration");
    fs::remove_file(a.config()).expect("removed");
    let made = std::process::Command::new("mkfifo").arg(a.config()).status().expect("mkfifo runs");
    assert!(made.success());
    let status = reload(&a, &mut manager);
    assert!(status.contains("cannot be read again"), "{status}");
    fs::remove_file(a.config()).expect("removed");
    a.configure(&text);
    assert!(!reload(&a, &mut manager).contains("refused"));
    assert!(a.terminate().success());
}

#[test]
fn where_a_daemon_listens_changes_while_its_links_stay() {
    let (a, mut manager) = managed("a");
    let b = Daemon::start("b");
    b.connect(&a);
    let (old, taken) = (a.address.clone(), b.address.clone());
    write(&a, "listen", "[\"127.0.0.2:0\"]");
    reload(&a, &mut manager);
    let new = a.status()["listen"][0].as_str().expect("it listens").to_owned();
    assert_ne!(new, old);
    assert!(std::net::TcpStream::connect(&old).is_err(), "nobody listens there any more");
    std::net::TcpStream::connect(&new).expect("it listens");
    assert_eq!(a.linked(), std::slice::from_ref(&b.peer));
    // An address that cannot be had is as wrong as one that is mistyped.
    write(&a, "listen", &format!("[\"{new}\", \"{taken}\"]"));
    write(&a, "name", "\"never\"");
    let told = reload(&a, &mut manager);
    let problem = format!("config.toml:2: listen: cannot listen on {taken}");
    assert!(told.contains(&problem), "{told}");
    assert_eq!(a.status()["name"], "a");
    assert_eq!(a.status()["listen"].as_array().map(Vec::len), Some(1));
    std::net::TcpStream::connect(&new).expect("it still listens");
    assert_eq!(b.linked(), std::slice::from_ref(&a.peer));
}

#[test]
fn what_cannot_change_is_said_to_wait_for_the_next_start() {
    let (mut a, mut manager) = managed("a");
    write(&a, "network", "\"closed\"");
    write(&a, "name", "\"new\"");
    reload(&a, &mut manager);
    let status = a.status();
    assert_eq!((&status["network"], &status["name"]), (&"open".into(), &"new".into()));
    let told = "network was changed: that takes effect at the next start";
    assert!(status["warnings"].to_string().contains(told), "{status}");
    reload(&a, &mut manager);
    assert_eq!(a.log().matches(told).count(), 1, "it is said once: {}", a.log());
    assert!(a.terminate().success());
    a.boot();
    assert_eq!(a.status()["network"], "closed");
    assert!(!a.status()["warnings"].to_string().contains(told));
}

#[test]
fn a_daemon_that_is_asked_again_and_again_ends_with_what_is_written_last() {
    // Its manager does not read what it is told, and a datagram socket holds a few only.
    let (mut a, _manager) = managed("a");
    for round in 0..50 {
        write(&a, "name", &format!("\"n{round}\""));
        a.signal(Signal::HUP);
    }
    until("it has the last one", SOON, || (a.status()["name"] == "n49").then_some(()));
    assert!(a.terminate().success());
}

/// A user that is in no group of use.
const NOBODY: u32 = 65_534;
/// A group that every Debian has, and its number.
const GROUP: (&str, u32) = ("daemon", 1);

#[test]
fn who_is_not_in_the_system_services_group_is_told_how_to_join_it() {
    if fs::metadata("/proc/self").expect("there").uid() != 0 {
        return skipped("only root can become another user");
    }
    let mut a = Daemon::prepare("a");
    // As systemd has it for the system service: not within what is a user's own.
    let dir = a.state_dir().with_file_name("run");
    fs::create_dir_all(&dir).expect("made");
    a.vars.push(("RUNTIME_DIRECTORY", dir.to_str().expect("text").to_owned()));
    a.launch(&[]);
    let socket = dir.join("socket");
    until("its socket", SOON, || UnixStream::connect(&socket).ok());
    let mode = fs::metadata(&socket).expect("its file").permissions().mode() & 0o7777;
    assert_eq!(mode, 0o660, "the group may use it");
    std::os::unix::fs::chown(&socket, None, Some(GROUP.1)).expect("given to the group");
    for dir in socket.ancestors().skip(1).take(3) {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("ours");
    }
    let program = dir.join("distmsgctl");
    copy_program(env!("CARGO_BIN_EXE_distmsgctl"), &program);
    let ask = |group: u32| {
        let mut command = std::process::Command::new(&program);
        command.env_clear().env("HOME", "/").uid(NOBODY).gid(group).current_dir("/");
        command.arg("--socket").arg(&socket).arg("id");
        Running::start(command).finish()
    };
    let refused = ask(NOBODY).exits(3);
    let told = format!(
        "it is for the group '{0}': join it with 'sudo usermod -aG {0} nobody' and log in again",
        GROUP.0
    );
    assert!(refused.stderr.contains(&told), "{}", refused.stderr);
    assert!(ask(GROUP.1).exits(0).text().starts_with("dm1"), "a member is served");
    assert!(a.terminate().success());
}

#[test]
fn identity_and_network_key_may_be_given_as_credentials() {
    let mut a = Daemon::prepare("a");
    let open = fs::read_to_string(a.config()).expect("its configuration");
    a.configure(&open.replace("network = \"open\"", "network = \"closed\""));
    a.boot();
    let mut b = Daemon::prepare("b");
    let open = fs::read_to_string(b.config()).expect("its configuration");
    b.configure(&open.replace("network = \"open\"", "network = \"closed\""));
    fs::create_dir_all(b.state_dir()).expect("made");
    let key = |daemon: &Daemon| daemon.state_dir().join("network.key");
    fs::copy(key(&a), key(&b)).expect("copied");
    b.boot();
    // From now on one of them has neither in its state directory.
    assert!(a.terminate().success());
    let given = a.config().with_file_name("credentials");
    fs::create_dir(&given).expect("made");
    for name in ["identity.pem", "network.key"] {
        let file = given.join(name);
        fs::rename(a.state_dir().join(name), &file).expect("moved");
        // systemd's access lists show as permissions of the group.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o440)).expect("set");
    }
    a.vars.push(("CREDENTIALS_DIRECTORY", given.to_str().expect("text").to_owned()));
    a.boot();
    a.connect(&b);
    assert!(!a.state_dir().join("identity.pem").exists() && !key(&a).exists());
    a.signal(Signal::HUP);
    a.logged("was read again");
    assert!(!a.log().contains("next start"), "they are the same: {}", a.log());
}

#[test]
fn a_daemon_ends_with_its_terminal_and_reads_its_configuration_again_on_one() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let ours =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&ours).expect("granted");
    unlockpt(&ours).expect("unlocked");
    let name = ptsname(&ours, Vec::new()).expect("its name");
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let theirs = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).expect("its other end");
    let mut a = Daemon::prepare("a");
    a.launch_on(theirs.into());
    a.answer();
    write(&a, "name", "\"new\"");
    a.signal(Signal::HUP);
    until("it was read again", SOON, || (a.status()["name"] == "new").then_some(()));
    drop(ours);
    // Without a session of its own the kernel does not send it. And a process that another test is
    // just starting may still hold our end of the terminal.
    until("it ends with its terminal", SOON, || {
        let is_over = !a.runs();
        if !is_over {
            a.signal(Signal::HUP);
        }
        is_over.then_some(())
    });
    assert_eq!(a.ended().code(), Some(0));
    assert!(a.log().contains("the terminal is gone"), "{}", a.log());
}

#[test]
fn what_ends_a_start_is_an_error_for_the_journal_too() {
    let mut a = Daemon::prepare("a");
    a.configure("log = 7");
    a.claim_journal();
    a.launch(&[]);
    assert_eq!(a.ended().code(), Some(78));
    let log = a.log();
    let line = log.lines().next_back().expect("a line");
    assert!(line.starts_with(&format!("<3>{}:1: log:", a.config().display())), "{line}");
}

#[test]
fn a_socket_that_is_not_where_the_configuration_has_it_is_told_of() {
    let mut a = Daemon::prepare("a");
    let socket = made_before(&a);
    write(&a, "socket", "\"/elsewhere/socket\"");
    a.launch_activated(handed_over(&socket), None);
    let told = "clients look for us at /elsewhere/socket";
    a.logged(told);
}
