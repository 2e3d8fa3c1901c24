//! The TCP interface port: what it serves, to whom, and what everybody else gets.

mod attacked;
mod examples;
mod pinned;
mod served;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use crate::daemon::{Daemon, SOON};

/// A daemon with an interface port there. What a daemon of these tests listens on for peers is on
/// 127.0.0.1, so a port of any loopback address beside it stays as it is written.
fn with_interface(name: &str, address: &str) -> Daemon {
    let mut daemon = Daemon::prepare(name);
    let config = fs::read_to_string(daemon.config()).expect("its configuration");
    daemon.configure(&format!("{config}\n[interface]\naddress = \"{address}\"\n"));
    daemon.boot();
    daemon
}

/// Where its interface port is.
fn interface_of(daemon: &Daemon) -> String {
    daemon.status()["interface"][0].as_str().expect("it has an interface port").to_owned()
}

/// The same, for TLS: by loopback, with its peer ID.
fn pinned(daemon: &Daemon) -> String {
    let port = interface_of(daemon);
    let (_, port) = port.rsplit_once(':').expect("a port");
    let host =
        if interface_of(daemon).starts_with("127.0.0.2") { "127.0.0.2" } else { "127.0.0.1" };
    format!("{}@{host}:{port}", daemon.peer)
}

fn token_of(daemon: &Daemon) -> String {
    let text = fs::read_to_string(daemon.state_dir().join("interface-token")).expect("a token");
    text.trim_end().to_owned()
}

/// A connection in clear text.
fn connect(daemon: &Daemon) -> TcpStream {
    connect_to(&interface_of(daemon))
}

fn connect_to(port: &str) -> TcpStream {
    let stream = TcpStream::connect(port).expect("connected");
    stream.set_read_timeout(Some(SOON)).expect("set");
    stream
}

fn authenticate(token: &str) -> String {
    let params = format!(r#"{{"token":"{token}"}}"#);
    format!(r#"{{"jsonrpc":"2.0","id":0,"method":"authenticate","params":{params}}}"#)
}

/// The reply to one request.
fn ask(stream: &TcpStream, request: &str) -> String {
    let mut writer = stream;
    writer.write_all(format!("{request}\n").as_bytes()).expect("written");
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).expect("a reply");
    reply
}
