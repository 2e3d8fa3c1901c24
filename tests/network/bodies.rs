//! Bodies of every kind and size: what comes out is what went in, by whatever way.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::daemon::{Daemon, line};

/// Bytes of the largest body by default.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes that no compression and no encoding makes any smaller, and that hold every byte.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// The body of a message as JSON shows it.
fn body_of(message: &Value) -> Vec<u8> {
    match (message["body"].as_str(), message["body_base64"].as_str()) {
        (Some(text), None) => text.as_bytes().to_vec(),
        (None, Some(packed)) => STANDARD.decode(packed).expect("base64"),
        _ => panic!("one of body and body_base64: {message}"),
    }
}

/// The next message of a listener.
fn next(daemon: &Daemon, listener: &str, format: &str) -> Vec<u8> {
    let args = ["listen", "--name", listener, format, "--count", "1", "--timeout", "50s"];
    daemon.ctl(&args).exits(0).stdout
}

#[test]
fn binary_in_is_binary_out_over_two_hops() {
    let net = line("abc");
    let [a, _, c] = &net[..] else { panic!("three") };
    let every: Vec<u8> = (0..=255).collect();
    // What an envelope carries whole, and one byte more.
    let (whole, chunks) = (noise(56 * 1024), noise(56 * 1024 + 1));
    let bodies: [&[u8]; 10] = [
        b"",
        b"\0",
        b"x",
        b"a\0b\0",
        b"\xff\xfe\xfd",
        b"\xed\xa0\x80",
        "caf\u{e9} \u{2028}\r\n".as_bytes(),
        &every,
        &whole,
        &chunks,
    ];
    let file = c.state_dir().join("body");
    for (turn, body) in bodies.iter().enumerate() {
        fs::write(&file, body).expect("written");
        let path = file.to_str().expect("a name");
        match turn % 2 {
            0 => a.ctl_given(&["send", &c.peer, "--timeout", "30s"], body).exits(0),
            _ => a.ctl(&["send", &c.peer, "--timeout", "30s", "--file", path]).exits(0),
        };
        assert!(next(c, "raw", "--raw") == *body, "{} bytes came out otherwise", body.len());
        let json: Value =
            serde_json::from_slice(&next(c, "json", "--json")).expect("one line of JSON");
        assert!(body_of(&json) == *body, "{} bytes came out otherwise as JSON", body.len());
        let text = std::str::from_utf8(body).is_ok();
        assert_eq!(json["body"].is_string(), text, "a text is shown as one");
    }
    assert!(a.linked() != vec![c.peer.clone()], "a and c are not neighbours");
}

#[test]
fn an_empty_argument_and_one_of_odd_bytes_are_bodies() {
    use std::os::unix::ffi::OsStrExt as _;

    let net = line("ab");
    let [a, b] = &net[..] else { panic!("two") };
    a.ctl(&["send", "b", ""]).exits(0);
    assert_eq!(next(b, "n", "--raw"), b"");
    let odd: Vec<u8> = (1..=255).collect();
    let odd = std::ffi::OsStr::from_bytes(&odd);
    a.ctl_os(&["send".as_ref(), "b".as_ref(), "--".as_ref(), odd]).exits(0);
    assert_eq!(next(b, "n", "--raw"), odd.as_bytes());
}

#[test]
fn the_largest_body_arrives_and_one_byte_more_is_refused() {
    let net = line("abc");
    let [a, _, c] = &net[..] else { panic!("three") };
    let largest = noise(BODY_BYTES_MAX);
    let file = a.state_dir().join("body");
    let path = file.to_str().expect("a name").to_owned();
    fs::write(&file, &largest).expect("written");
    a.ctl(&["send", &c.peer, "--file", &path, "--timeout", "55s"]).exits(0);
    assert!(next(c, "n", "--raw") == largest, "16 MiB came out otherwise");
    let larger = [&largest[..], b"!"].concat();
    fs::write(&file, &larger).expect("written");
    let one_line: Vec<u8> = larger.iter().map(|byte| byte | 0x80).collect();
    for refused in [
        a.ctl(&["send", &c.peer, "--file", &path]).exits(7),
        a.ctl_given(&["send", &c.peer], &larger).exits(7),
        a.ctl_given(&["send", &c.peer, "--lines"], &one_line).exits(7),
    ] {
        assert!(refused.stderr.contains("16777216"), "the bound is named: {}", refused.stderr);
        assert!(refused.stdout.is_empty());
    }
    assert_eq!(a.queued(), 0, "nothing of it waits");
    a.ctl(&["send", &c.peer, "and on"]).exits(0);
    assert_eq!(next(c, "n", "--raw"), b"and on");
}
