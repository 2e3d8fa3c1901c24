//! What comes from elsewhere and is no good: on the peer port and on the control socket.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::daemon::{Daemon, start_all};
use crate::running::until;

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Kilobytes by which a daemon may grow under thousands of bad connections: what the allocator
/// keeps.
pub(crate) const GROWTH_KB_MAX: u64 = 16 * 1024;

pub(crate) fn resident_kb(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    line.split_ascii_whitespace().nth(1).expect("a number").parse().expect("a number")
}

/// Gives a connection bytes, and waits until the other end closes it.
fn is_closed_after(stream: &mut TcpStream, bytes: &[u8]) {
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    // It may be closed while we still write.
    let _ = stream.write_all(bytes);
    let mut sink = [0; 4096];
    loop {
        match stream.read(&mut sink) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("still open after {} bytes: {error}", bytes.len()),
        }
    }
}

#[test]
fn garbage_on_the_peer_port_is_closed_and_logged_and_nobody_else_notices() {
    let nodes = start_all("ab");
    let [a, b] = nodes.as_slice() else { panic!("two nodes") };
    a.connect(b);
    let garbage: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0; 100_000],
        vec![0xff; 100_000],
        // A TLS record that claims to be longer than any.
        [&[0x16, 3, 1, 0xff, 0xff][..], &[0; 70_000]].concat(),
    ];
    let round = |times: usize| {
        for _ in 0..times {
            for bytes in &garbage {
                let mut stream = TcpStream::connect(&b.address).expect("connected");
                is_closed_after(&mut stream, bytes);
            }
        }
    };
    round(20);
    let before = resident_kb(b);
    round(200);
    let after = resident_kb(b);
    assert!(after < before + GROWTH_KB_MAX, "grown from {before} kB to {after} kB");
    a.ctl(&["send", "b", "still here?"]).exits(0);
    assert_eq!(b.bodies(), ["still here?"]);
    until("the log says why", PATIENCE, || b.log().contains("refused").then_some(()));
}

#[test]
fn a_half_finished_handshake_ends_by_itself_and_holds_nobody_up() {
    let nodes = start_all("ab");
    let [a, b] = nodes.as_slice() else { panic!("two nodes") };
    let mut silent: Vec<TcpStream> =
        (0..8).map(|_| TcpStream::connect(&b.address).expect("connected")).collect();
    for stream in &mut silent {
        // The first bytes of a ClientHello.
        stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0]).expect("written");
    }
    a.connect(b);
    a.ctl(&["send", "b", "meanwhile"]).exits(0);
    for stream in &mut silent {
        is_closed_after(stream, b"");
    }
}

#[test]
fn garbage_on_the_control_socket_is_answered_closed_and_logged() {
    let nodes = start_all("a");
    let [a] = nodes.as_slice() else { panic!("one node") };
    let long = vec![b'x'; 2 * 1024 * 1024];
    let lines: Vec<&[u8]> = vec![b"hello\n", b"\xff\xfe\n", b"{\"a\":\n", &long, b"[[[[[[[[\n"];
    let round = |times: usize| {
        for _ in 0..times {
            for line in &lines {
                let mut stream = UnixStream::connect(a.socket()).expect("connected");
                stream.set_read_timeout(Some(PATIENCE)).expect("set");
                let _ = stream.write_all(line);
                let mut reply = String::new();
                // What was not read when it was closed resets the connection.
                let _ = stream.read_to_string(&mut reply);
                if line.len() < 100 {
                    assert!(reply.contains("\"error\""), "{reply:?} to {line:?}");
                }
            }
        }
    };
    round(10);
    let before = resident_kb(a);
    round(60);
    let after = resident_kb(a);
    assert!(after < before + GROWTH_KB_MAX, "grown from {before} kB to {after} kB");
    a.ctl(&["status"]).exits(0);
    a.logged("a control client was closed");
}

#[test]
fn a_half_line_holds_nobody_up_and_leaves_nothing() {
    let nodes = start_all("a");
    let [a] = nodes.as_slice() else { panic!("one node") };
    let mut half = UnixStream::connect(a.socket()).expect("connected");
    half.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,").expect("written");
    a.ctl(&["status"]).exits(0);
    half.write_all(b"\"method\":\"status\"}\n").expect("written");
    half.shutdown(Shutdown::Write).expect("half closed");
    let mut reply = String::new();
    half.read_to_string(&mut reply).expect("a reply");
    assert!(reply.contains("\"id\":1") && reply.contains(&a.peer), "{reply}");
}

#[test]
fn an_idle_node_uses_almost_no_processor_time() {
    let nodes = start_all("abc");
    let [a, b, c] = nodes.as_slice() else { panic!("three nodes") };
    a.connect(b);
    b.connect(c);
    a.await_links(&[b]);
    b.await_links(&[a, c]);
    let used = |daemon: &Daemon| -> (u64, u64) {
        let proc = format!("/proc/{}", daemon.pid());
        let stat = fs::read_to_string(format!("{proc}/stat")).expect("it runs");
        let fields: Vec<&str> =
            stat.rsplit_once(')').expect("a name").1.split_ascii_whitespace().collect();
        let ticks = [11, 12].iter().map(|at| fields[*at].parse::<u64>().expect("a number")).sum();
        let status = fs::read_to_string(format!("{proc}/status")).expect("it runs");
        let switches = status
            .lines()
            .filter(|line| line.contains("ctxt_switches"))
            .filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
            .sum();
        (ticks, switches)
    };
    // What follows a new link is done when nothing happens for a second.
    let quiet = || {
        let before: Vec<_> = nodes.iter().map(|node| used(node).1).collect();
        std::thread::sleep(Duration::from_secs(1));
        let after = nodes.iter().map(|node| used(node).1);
        before.into_iter().zip(after).all(|(before, after)| after - before < 20).then_some(())
    };
    until("it becomes quiet", PATIENCE, quiet);
    let before: Vec<_> = nodes.iter().map(used).collect();
    std::thread::sleep(Duration::from_secs(3));
    for (node, before) in nodes.iter().zip(before) {
        let after = used(node);
        // A tick is 10 ms; a ping every 15 s and a timer now and then is all there should be.
        assert!(after.0 - before.0 <= 3, "{} used {} ticks", node.name, after.0 - before.0);
        assert!(after.1 - before.1 < 60, "{} woke up {} times", node.name, after.1 - before.1);
    }
}
