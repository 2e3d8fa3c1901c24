//! The examples of distmsg-control(7), said to a real daemon: what it answers has the same shape.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use crate::daemon::{Daemon, SOON};
use crate::running::until;

/// A line of an example.
#[derive(Debug)]
enum Line {
    /// A client says it.
    Said(String),
    /// The daemon answers like this.
    Told(Value),
}

/// Where an example's lines are said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Socket,
    InterfacePort,
}

/// The lines of all examples of a place, in order. Those that go on are put together.
fn examples(place: Place) -> Vec<Line> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/distmsg-control.7");
    let page = fs::read_to_string(path).expect("the page is there");
    let (_, section) = page.split_once("\n.SH EXAMPLES\n").expect("a section of examples");
    let section = section.split("\n.SH ").next().expect("a part");
    let mut lines: Vec<String> = Vec::new();
    for part in section.split(".SS ") {
        let is_by_port = part.starts_with("By the interface port\n");
        if is_by_port != (place == Place::InterfacePort) {
            continue;
        }
        for line in part.lines() {
            if line.starts_with("-> ") || line.starts_with("<- ") {
                lines.push(line.to_owned());
            } else if let Some(more) = line.strip_prefix("  ")
                && let Some(last) = lines.last_mut()
                && !more.starts_with("nc ")
            {
                last.push_str(more);
            }
        }
    }
    let line = |line: String| match line.split_at(3) {
        ("-> ", said) => Line::Said(said.to_owned()),
        (_, told) => {
            Line::Told(serde_json::from_str(told).unwrap_or_else(|e| panic!("{told}: {e}")))
        }
    };
    lines.into_iter().map(line).collect()
}

/// Says what a client says, each line once `ready` for it, and compares what it is told.
/// Returns what may still come.
fn converse<S>(
    mut writer: S,
    reader: S,
    examples: Vec<Line>,
    ready: impl Fn(&str),
) -> Lines<BufReader<S>>
where
    S: Read + Write,
{
    let mut lines = BufReader::new(reader).lines();
    for line in examples {
        match line {
            Line::Said(said) => {
                ready(&said);
                writer.write_all(format!("{said}\n").as_bytes()).expect("the daemon reads");
            }
            Line::Told(shown) => {
                let real = lines.next().unwrap_or_else(|| panic!("nothing came for {shown}"));
                let real = real.unwrap_or_else(|error| panic!("{error} for {shown}"));
                let real: Value = serde_json::from_str(&real).expect("JSON");
                compare("", &shown, &real);
            }
        }
    }
    lines
}

/// Whether two values are of the same shape: the same members, of the same types, and the same
/// words where a program would look at them.
fn compare(place: &str, shown: &Value, real: &Value) {
    match (shown, real) {
        (Value::Object(shown), Value::Object(real)) => {
            let names = |of: &serde_json::Map<String, Value>| {
                of.keys().cloned().collect::<std::collections::BTreeSet<_>>()
            };
            assert_eq!(names(shown), names(real), "members of {place}: {real:?}");
            for (name, shown) in shown {
                compare(&format!("{place}.{name}"), shown, &real[name]);
            }
        }
        (Value::Array(shown), Value::Array(real)) => {
            assert_eq!(shown.is_empty(), real.is_empty(), "{place}: {real:?}");
            if let (Some(shown), Some(real)) = (shown.first(), real.first()) {
                compare(&format!("{place}[]"), shown, real);
            }
        }
        (Value::String(shown), Value::String(real)) => compare_text(place, shown, real),
        (Value::Number(shown), Value::Number(real)) => {
            let last = place.rsplit('.').next().expect("a part");
            // What is measured is another number each time.
            let is_measured = ["up_s", "rtt_ms", "attempts", "uptime_s", "pid"].contains(&last);
            assert!(is_measured || shown == real, "{place}: {shown} and {real}");
        }
        (Value::Bool(shown), Value::Bool(real)) => assert_eq!(shown, real, "{place}"),
        (Value::Null, Value::Null) => {}
        _ => panic!("{place}: the page has {shown}, the daemon {real}"),
    }
}

fn compare_text(place: &str, shown: &str, real: &str) {
    let is_id = |text: &str| text.starts_with("dm1") && text.len() == 61;
    let is_time = |text: &str| text.contains('T') && text.ends_with('Z') && text.len() >= 20;
    let is_message = |text: &str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let is_address = |text: &str| {
        text.rsplit_once(':')
            .is_some_and(|(host, port)| !host.contains(' ') && port.parse::<u16>().is_ok())
    };
    for (what, is) in [
        ("peer ID", &is_id as &dyn Fn(&str) -> bool),
        ("time", &is_time),
        ("message ID", &is_message),
        ("address", &is_address),
    ] {
        if is(shown) {
            return assert!(is(real), "{place}: {real} is no {what}");
        }
    }
    match shown.strip_suffix("...") {
        Some(begins) => assert!(real.starts_with(begins), "{place}: {real}"),
        None => assert_eq!(shown, real, "{place}"),
    }
}

#[test]
fn the_examples_of_the_manual_are_what_the_daemon_says() {
    let (mut cellar, attic) = (Daemon::prepare("cellar"), Daemon::start("attic"));
    cellar.configure(
        "name = \"cellar\"\nlisten = [\"127.0.0.1:0\"]\nnetwork = \"open\"\n\n\
         [links]\nauto = 0\n\n[interface]\naddress = \"127.0.0.1:0\"\n",
    );
    cellar.boot();
    cellar.connect(&attic);
    attic.ctl(&["send", &cellar.peer, "hello"]).exits(0);
    until("the link has been pinged", SOON, || {
        let peer = cellar.knows(&attic).expect("linked");
        peer["link"]["rtt_ms"].is_number().then_some(())
    });
    let by_socket = examples(Place::Socket);
    let count = |is: fn(&Line) -> bool| by_socket.iter().filter(|line| is(line)).count();
    assert!(count(|line| matches!(line, Line::Said(_))) >= 12, "{by_socket:?}");
    assert!(count(|line| matches!(line, Line::Told(_))) >= 12, "{by_socket:?}");
    let socket = UnixStream::connect(cellar.socket()).expect("a connection");
    socket.set_read_timeout(Some(SOON)).expect("set");
    // The example before it does not wait for its delivery, and this one tells what waits.
    let ready = |said: &str| {
        if said.contains("\"method\":\"peers\"") {
            until("what was sent is delivered", SOON, || {
                let peer = cellar.knows(&attic).expect("linked");
                (peer["queued"] == 0).then_some(())
            });
        }
    };
    let mut rest = converse(socket.try_clone().expect("a descriptor"), socket, by_socket, ready);
    assert!(rest.next().is_none(), "the last example ends the connection");

    let token = fs::read_to_string(cellar.state_dir().join("interface-token")).expect("a token");
    let mut by_port = examples(Place::InterfacePort);
    let Some(Line::Said(first)) = by_port.first_mut() else { panic!("{by_port:?}") };
    let shown = "0123456789abcdef".repeat(4);
    assert!(first.contains(&shown), "{first}");
    *first = first.replace(&shown, token.trim());
    let status = cellar.status();
    let port = status["interface"][0].as_str().expect("an interface port").to_owned();
    let stream = TcpStream::connect(port).expect("a connection");
    stream.set_read_timeout(Some(SOON)).expect("set");
    converse(stream.try_clone().expect("a descriptor"), stream, by_port, |_| {});
}
