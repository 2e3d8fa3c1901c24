//! What surrounds the node: files that others could have put there, clients that leave or dawdle,
//! daemons that do not answer.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::daemon::{DAEMON_MAX, Daemon, SOON};
use crate::hostile::{GROWTH_KB_MAX, resident_kb};
use crate::running::until;

/// Seconds of processor time that a daemon has used.
fn cpu_s(daemon: &Daemon) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).expect("it runs");
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    // Linux counts in hundredths of a second.
    (ticks(11) + ticks(12)) / 100.0
}

/// The ID of a peer that never answers.
fn nobody() -> String {
    let mut nobody = Daemon::start("nobody");
    nobody.kill();
    nobody.peer.clone()
}

#[test]
fn pings_of_clients_that_left_are_forgotten() {
    let a = Daemon::start("a");
    let peer = nobody();
    let ping = |id: usize| {
        let params = format!(r#"{{"peer":"{peer}","timeout_ms":1000000000000}}"#);
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping","params":{params}}}"#) + "\n"
    };
    let pings: String = (0..8_000).map(ping).collect();
    let before = resident_kb(&a);
    for _ in 0..20 {
        let mut client = UnixStream::connect(a.socket()).expect("connected");
        client.write_all(pings.as_bytes()).expect("written");
    }
    a.ctl(&["status"]).exits(0);
    let after = resident_kb(&a);
    assert!(after < before + GROWTH_KB_MAX, "grown from {before} kB to {after} kB");
}

#[test]
fn a_line_that_comes_byte_by_byte_costs_what_its_bytes_cost() {
    let a = Daemon::start("a");
    let mut client = UnixStream::connect(a.socket()).expect("connected");
    let mut line = br#"{"jsonrpc":"2.0","id":1,"method":""#.to_vec();
    line.resize(900_000, b'x');
    client.write_all(&line).expect("written");
    a.ctl(&["status"]).exits(0);
    let before = cpu_s(&a);
    for _ in 0..8_000 {
        client.write_all(b"x").expect("written");
        std::thread::sleep(Duration::from_micros(100));
    }
    a.ctl(&["status"]).exits(0);
    let used = cpu_s(&a) - before;
    assert!(used < 0.6, "8,000 bytes took {used} s of the processor");
}

#[test]
fn a_daemon_that_does_not_answer_does_not_hold_its_clients_for_ever() {
    let a = Daemon::start("a");
    let peer = nobody();
    a.signal(Signal::STOP);
    let start = Instant::now();
    let mut send = a.ctl_start(&["send", &peer, "x", "--timeout", "1s"]);
    let ended = until_ended(&mut send, SOON);
    a.signal(Signal::CONT);
    assert!(ended, "`send --timeout 1s` still waits after {:?}", start.elapsed());
    send.finish().exits(3);
}

/// Whether a command ends by itself.
fn until_ended(running: &mut crate::running::Running, within: Duration) -> bool {
    let end = Instant::now() + within;
    while Instant::now() < end {
        if running.is_over() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

#[test]
fn a_send_whose_daemon_ends_is_told_that_the_message_is_queued() {
    let mut a = Daemon::start("a");
    let peer = nobody();
    let send = a.ctl_start(&["send", &peer, "x", "--timeout", "60s"]);
    until("it is queued", SOON, || (a.queued() == 1).then_some(()));
    assert!(a.terminate().success());
    let output = send.finish();
    assert_ne!(output.code, Some(0));
    assert!(output.stderr.contains("queued"), "{}", output.stderr);
}

#[test]
fn a_state_directory_that_others_may_write_is_refused_with_the_remedy() {
    let mut a = Daemon::start("a");
    assert!(a.terminate().success());
    fs::set_permissions(a.state_dir(), Permissions::from_mode(0o777)).expect("set");
    a.launch(&[]);
    until("it refuses", DAEMON_MAX, || (!a.runs()).then_some(()));
    let remedy = format!("chmod 700 {}", a.state_dir().display());
    assert!(a.log().contains(&remedy), "{}", a.log());
}

#[test]
fn a_link_in_place_of_the_database_is_not_followed() {
    let mut a = Daemon::start("a");
    assert!(a.terminate().success());
    let (database, target) = (a.state_dir().join("distmsg.db"), a.state_dir().join("../precious"));
    fs::write(&target, "precious").expect("written");
    fs::set_permissions(&target, Permissions::from_mode(0o644)).expect("set");
    fs::remove_file(&database).expect("removed");
    symlink(&target, &database).expect("linked");
    a.distmsg(&[]);
    let mode = fs::metadata(&target).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o644, "the mode of what the link leads to was changed");
}

#[test]
fn an_identity_that_was_never_finished_is_removed() {
    let mut a = Daemon::start("a");
    assert!(a.terminate().success());
    // What a power failure leaves between making a file and naming it.
    let left = a.state_dir().join(".distmsg-abcdef");
    fs::copy(a.state_dir().join("identity.pem"), &left).expect("copied");
    a.boot();
    assert!(!left.exists(), "a private key stays in {}", left.display());
}
