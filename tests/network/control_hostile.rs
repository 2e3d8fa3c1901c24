//! The control socket under attack: lines that are almost JSON, lines that come by the byte, other
//! users, and things planted where the socket goes. They are refused, and nobody else notices.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::daemon::{DAEMON_MAX, Daemon, SOON};
use crate::faults::{skipped, surround};
use crate::hostile::{GROWTH_KB_MAX, resident_kb};
use crate::running::{Running, copy_program, until, wait};

/// Bytes of a line at most.
const LINE_MAX: usize = 1024 * 1024;
/// Clients that do not fill all places.
const CLIENTS: usize = 200;
/// Longer than this, and others notice.
const NOTICED: Duration = Duration::from_secs(5);
/// Somebody else, who owns nothing.
const NOBODY: u32 = 65_534;

fn client(daemon: &Daemon) -> UnixStream {
    let stream = UnixStream::connect(daemon.socket()).expect("connected");
    stream.set_read_timeout(Some(SOON)).expect("set");
    stream
}

/// The first line that comes back; empty if the connection is closed before.
fn answer(daemon: &Daemon, line: &[u8]) -> String {
    let mut stream = client(daemon);
    // It may be closed while we still write.
    let _ = stream.write_all(line).and_then(|()| stream.write_all(b"\n"));
    let mut reply = String::new();
    let _ = BufReader::new(stream).read_line(&mut reply);
    reply
}

#[track_caller]
fn is_served(daemon: &Daemon) {
    let start = Instant::now();
    let status = answer(daemon, br#"{"jsonrpc":"2.0","id":1,"method":"status"}"#);
    assert!(status.contains(&daemon.peer), "{status}");
    assert!(start.elapsed() < NOTICED, "served after {:?}", start.elapsed());
}

/// A request with these parameters, or with what is no JSON in their place.
fn request(method: &str, params: &str) -> Vec<u8> {
    format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{params}}}"#).into_bytes()
}

/// What is no JSON, by one mistake each, after the kinds of JSONTestSuite's "n" cases (Seriot:
/// Parsing JSON is a minefield, 2016): numbers, structure, texts.
#[rustfmt::skip]
const MALFORMED: [&str; 88] = [
    "-", "+1", "++1", "-01", "-2.", ".2e-3", "-.5", "0.1.2", "0.3e+", "0.3e", "0.e1", "0E+", "0e",
    "1.0e+", "1.0e-", "1.0e", "1 000", "1eE2", "2.e+3", "2.e3", "9.e+", "1e", "Inf", "-Infinity",
    "NaN", "-NaN", "0x42", "1_000", "1+2", "012", "-foo", "1a", "1.2a", "\u{ff11}", "[1 true]",
    "[1,,2]", "[,1]", "[1,]", "[,]", "[", "]", "[1", "[1}", "[\"\",", "[1]]", "[1]x", "[a", "[*]",
    "[\"a", "[[]", "[\n1\n,", "[\u{b}]", "[\u{c}]", "[\u{a0}1]", "[\u{2060}]", "{", "}", "{1:1}",
    "{a:1}", "{\"a\"}", "{\"a\":}", "{\"a\" 1}", "{\"a\":1,}", "{\"a\":1,,}", "{:1}", "{,}",
    "{\"a\":1 \"b\"}", "{'a':0}", "{\"a\":1}#", "{\"a\":1}/*x*/", "{\"a\",1}", "{\"a\"::1}",
    "{\"a\":1", "{null:1}", "[nul]", "[tru]", "[fals]", "[True]", "<null>", "\"\\x00\"",
    "\"\\a\"", "\"\\u\"", "\"\\u00A\"", "\"\\uD800\\\"", "\"\\uD800\\u1\"", "\"\\uqqqq\"",
    "\"\t\"", "\"\u{0}\"",
];

/// Lines of which each is wrong in one way.
fn wrong_lines() -> Vec<Vec<u8>> {
    let deep = |open: &str, close: &str| open.repeat(10_000) + "1" + &close.repeat(10_000);
    let mut lines: Vec<Vec<u8>> = vec![
        deep("[", "]").into(),
        deep(r#"{"a":"#, "}").into(),
        "[".repeat(100_000).into(),
        request("status", &deep("[", "]")),
        request("status", &deep(r#"{"a":"#, "}")),
        request("send", &format!(r#"{{"peer":{}}}"#, deep("[", "]"))),
        format!(r#"{{"jsonrpc":"2.0","id":{},"method":"status"}}"#, deep("[", "]")).into(),
    ];
    // Within a text: not UTF-8, overlong, a surrogate, cut off.
    for bytes in [&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"] {
        let mut line = br#"{"jsonrpc":"2.0","id":1,"method":"status"#.to_vec();
        line.extend_from_slice(bytes);
        line.extend_from_slice(br#""}"#);
        lines.push(line);
    }
    let texts = [
        r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"status"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"status","method":"peers"}"#,
        r#"{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"status"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"status","params":{},"params":{}}"#,
        r#"{"jsonrpc":"2.0","id":1.5,"method":"status"}"#,
        r#"{"jsonrpc":"2.0","id":1e400,"method":"status"}"#,
        r#"{"jsonrpc":"2.0","id":9223372036854775808,"method":"status"}"#,
        r#"{"jsonrpc":"2.0","id":-9223372036854775809,"method":"status"}"#,
        r#"{"jsonrpc":"2.0","id":01,"method":"status"}"#,
        r#"{"jsonrpc":"2.0","id":+1,"method":"status"}"#,
        r#"{"jsonrpc":"2.0","id":0x1,"method":"status"}"#,
        r#"{"jsonrpc":"2.0","id":NaN,"method":"status"}"#,
        r#"{"jsonrpc":"2.0","id":.1,"method":"status"}"#,
        r#"{"jsonrpc":"2.0","id":1.,"method":"status"}"#,
        r#"{"jsonrpc":"2.0","id":true,"method":"status"}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"status"}"#,
        r#"{"jsonrpc":"2.0","method":"status"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"status",}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"status"} {}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"status"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"status"} // why"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"\ud800"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"\x41"}"#,
        "{'jsonrpc':'2.0','id':1,'method':'status'}",
        "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"sta\0tus\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"sta\ttus\"}",
        r#"[{"jsonrpc":"2.0","id":1,"method":"status"}]"#,
        r#"{"jsonrpc":2.0,"id":1,"method":"status"}"#,
        r#"{"jsonrpc":"1.0","id":1,"method":"status"}"#,
        "{}",
        "[]",
        "null",
        "\"\"",
        "1",
        "\0",
    ];
    lines.extend(texts.iter().map(|text| text.as_bytes().to_vec()));
    for malformed in MALFORMED {
        lines.push(malformed.as_bytes().to_vec());
        lines.push(request("status", malformed));
        lines.push(request("inbox", &format!(r#"{{"limit":{malformed}}}"#)));
    }
    for (method, params) in [
        ("inbox", r#"{"limit":4294967296}"#),
        ("inbox", r#"{"limit":-1}"#),
        ("inbox", r#"{"limit":1.5}"#),
        ("inbox", r#"{"limit":1,"limit":2}"#),
        ("inbox", r#"{"after":18446744073709551616}"#),
        ("inbox", r#"{"after":-1}"#),
        ("inbox", r#"{"after":"1"}"#),
        ("inbox", "[]"),
        ("inbox", "7"),
        ("read", r#"{"cursor":1,"offset":-1,"bytes":1}"#),
        ("read", r#"{"cursor":1e400,"offset":0,"bytes":1}"#),
        ("send", r#"{"peer":"x","body":"y","body":"z"}"#),
        ("send", r#"{"peer":"x","body":"y","timeout_ms":-1}"#),
        ("send", r#"{"peer":"x","body":"y","wait":"never"}"#),
        ("send", r#"{"peer":"x","body":"y","unknown":1}"#),
        ("upload_begin", r#"{"upload":1,"bytes":18446744073709551615}"#),
        ("upload_chunk", r#"{"upload":1,"data_base64":"===="}"#),
        ("ack", r#"{"subscription":18446744073709551615,"cursors":[1]}"#),
        ("listen", r#"{"name":"l","window":0}"#),
        ("listen", r#"{"name":"l","window":4294967295}"#),
        ("connect", r#"{"peer":"x","address":"y:99999","timeout_ms":1}"#),
        ("nothing", "{}"),
    ] {
        lines.push(request(method, params));
    }
    lines
}

#[test]
fn what_is_almost_a_request_is_refused_and_leaves_nothing() {
    let a = Daemon::start("a");
    let patient = client(&a);
    let round = || {
        for line in wrong_lines() {
            let reply = answer(&a, &line);
            let start = String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
            assert!(reply.contains("\"error\""), "{start}: {reply:?}");
            assert!(!reply.contains("\"result\""), "{start}: {reply:?}");
        }
    };
    round();
    let before = resident_kb(&a);
    (0..3).for_each(|_| round());
    let after = resident_kb(&a);
    assert!(after < before + GROWTH_KB_MAX, "grown from {before} kB to {after} kB");
    is_served(&a);
    // Who was there before is still there.
    (&patient).write_all(&request("status", "{}")).expect("written");
    (&patient).write_all(b"\n").expect("written");
    let mut reply = String::new();
    BufReader::new(&patient).read_line(&mut reply).expect("a reply");
    assert!(reply.contains(&a.peer), "{reply}");
}

#[test]
fn what_json_allows_is_understood() {
    let a = Daemon::start("a");
    // As texts, escaped in every way; they come back as the request's ID.
    for (written, meant) in [
        (r#""\u0060\u012a\u12AB""#, "\u{60}\u{12a}\u{12ab}"),
        (r#""\ud801\udc37""#, "\u{10437}"),
        (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
        (r#""\u0000""#, "\0"),
        ("\"\u{2028}\u{10ffff}\u{7f}\"", "\u{2028}\u{10ffff}\u{7f}"),
    ] {
        let line =
            format!("\t{{ \"jsonrpc\" :\"2.0\",\"id\": {written}\r,\"method\":\"status\"}} ");
        let reply: serde_json::Value =
            serde_json::from_str(&answer(&a, line.as_bytes())).expect("a reply");
        assert_eq!(reply["id"], meant, "{line}");
        assert_eq!(reply["result"]["peer"], *a.peer, "{line}");
    }
}

#[test]
fn a_line_may_have_a_mebibyte_and_no_more() {
    let a = Daemon::start("a");
    let mut line = request("status", "{}");
    line.resize(LINE_MAX, b' ');
    assert!(answer(&a, &line).contains(&a.peer));
    line.push(b' ');
    let reply = answer(&a, &line);
    assert!(!reply.contains("\"result\""), "{reply}");
    // One text that takes all of it.
    let shell = request("send", r#"{"peer":"","body":"b"}"#).len();
    let long = "x".repeat(LINE_MAX - shell);
    let reply = answer(&a, &request("send", &format!(r#"{{"peer":"{long}","body":"b"}}"#)));
    assert!(reply.contains("\"error\"") && reply.len() < 4_096, "{} bytes", reply.len());
    is_served(&a);
}

#[test]
fn lines_that_come_by_the_byte_hold_nobody_up() {
    let a = Daemon::start("a");
    // Slowly: somebody else is served after each byte.
    let mut slow = client(&a);
    for byte in request("status", "{}").chunks(1).chain([&b"\n"[..]]) {
        slow.write_all(byte).expect("written");
        is_served(&a);
    }
    let mut reply = String::new();
    BufReader::new(&slow).read_line(&mut reply).expect("a reply");
    assert!(reply.contains(&a.peer), "{reply}");
    // Many at once, in the middle of a line each.
    let begun = request("status", "{}");
    let mut many: Vec<UnixStream> = (0..CLIENTS).map(|_| client(&a)).collect();
    for byte in begun.chunks(1) {
        many.iter_mut().for_each(|stream| stream.write_all(byte).expect("written"));
    }
    is_served(&a);
    drop(many);
    // As fast as it goes, a whole mebibyte of them.
    let start = Instant::now();
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let mut stream = client(&a);
            let mut line = request("status", "{}");
            line.resize(LINE_MAX, b' ');
            line.push(b'\n');
            line.chunks(1).for_each(|byte| stream.write_all(byte).expect("written"));
            let mut reply = String::new();
            BufReader::new(&stream).read_line(&mut reply).expect("a reply");
            reply
        });
        while !busy.is_finished() {
            is_served(&a);
        }
        assert!(busy.join().expect("it ends").contains(&a.peer));
    });
    eprintln!("a mebibyte by the byte took {:?}", start.elapsed());
}

#[test]
fn another_user_is_kept_out_by_the_sockets_own_mode() {
    let a = Daemon::start("a");
    if fs::metadata("/proc/self").expect("there").uid() != 0 {
        return skipped("only root can become another user");
    }
    // Even where directories let everybody through.
    for dir in a.socket().ancestors().skip(1).take(3) {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("ours");
    }
    let program = a.socket().with_file_name("distmsgctl");
    copy_program(env!("CARGO_BIN_EXE_distmsgctl"), &program);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("ours");
    let ask = |user: u32| {
        let mut command = Command::new(&program);
        command.env_clear().env("HOME", "/").uid(user).gid(user).current_dir("/");
        command.arg("--socket").arg(a.socket()).arg("id");
        Running::start(command).finish()
    };
    assert!(ask(0).exits(0).text().contains(&a.peer));
    let refused = ask(NOBODY).exits(3);
    assert_eq!(refused.text(), "");
    assert!(refused.stderr.to_lowercase().contains("permission"), "{}", refused.stderr);
    is_served(&a);
}

#[test]
fn files_are_private_whatever_the_umask_is() {
    let mut a = Daemon::start("a");
    assert!(a.terminate().success());
    for umask in ["000", "077"] {
        fs::remove_dir_all(a.state_dir()).expect("removed");
        fs::remove_dir_all(a.socket().parent().expect("a directory")).expect("removed");
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(format!("umask {umask}; exec \"$0\""));
        command.arg(env!("CARGO_BIN_EXE_distmsg"));
        surround(&a, &mut command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        until("it answers", DAEMON_MAX, || (a.ctl(&["status"]).code == Some(0)).then_some(()));
        let mut open = Vec::new();
        let mut look = |path: &Path| {
            let mode = fs::symlink_metadata(path).expect("there").permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                open.push(format!("{} has mode {mode:o}", path.display()));
            }
            mode
        };
        assert_eq!(look(&a.socket()), 0o600, "under umask {umask}");
        look(a.socket().parent().expect("a directory"));
        look(&a.state_dir());
        for entry in fs::read_dir(a.state_dir()).expect("readable") {
            look(&entry.expect("an entry").path());
        }
        child.kill().expect("our child");
        wait(&mut child, "a daemon that was killed", DAEMON_MAX);
        assert!(open.is_empty(), "under umask {umask}: {open:?}");
    }
}

#[test]
fn what_is_planted_where_the_socket_goes_is_refused_and_left_alone() {
    let (mut a, other) = (Daemon::start("a"), Daemon::start("b"));
    assert!(a.terminate().success());
    let socket = a.socket();
    let target = a.state_dir().join("target");
    fs::write(&target, "precious").expect("written");
    let nowhere = a.state_dir().join("nowhere");
    let refused = |what: &str| {
        let output = a.distmsg(&[]);
        assert!(output.code.is_some_and(|code| code != 0), "{what}: {output:?}");
        assert!(output.stderr.contains("not a socket"), "{what}: {}", output.stderr);
        let file = fs::symlink_metadata(&socket).expect("left alone").file_type();
        (file.is_symlink(), file.is_dir())
    };
    symlink(&target, &socket).expect("planted");
    assert_eq!(refused("a link to a file"), (true, false));
    fs::remove_file(&socket).expect("removed");
    symlink(&nowhere, &socket).expect("planted");
    assert_eq!(refused("a link to nothing"), (true, false));
    assert!(fs::symlink_metadata(&nowhere).is_err(), "nothing is made at its end");
    fs::remove_file(&socket).expect("removed");
    symlink(other.socket(), &socket).expect("planted");
    assert_eq!(refused("a link to another's socket"), (true, false));
    fs::remove_file(&socket).expect("removed");
    fs::create_dir(&socket).expect("planted");
    assert_eq!(refused("a directory"), (false, true));
    fs::remove_dir(&socket).expect("removed");
    // Opening it would wait for a writer that never comes.
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &socket, rustix::fs::FileType::Fifo, mode, 0)
        .expect("planted");
    assert_eq!(refused("a pipe"), (false, false));
    fs::remove_file(&socket).expect("removed");
    fs::write(&socket, "precious").expect("planted");
    assert_eq!(refused("a file"), (false, false));
    for path in [&socket, &target] {
        assert_eq!(fs::read_to_string(path).expect("readable"), "precious");
    }
    fs::remove_file(&socket).expect("removed");
    is_served(&other);
    a.boot();
    is_served(&a);
}

#[test]
fn who_leaves_in_the_middle_of_a_line_is_forgotten() {
    let a = Daemon::start("a");
    for cut in [1, 10, 50] {
        let mut stream = client(&a);
        stream.write_all(&request("status", "{}")[..cut]).expect("written");
        stream.shutdown(std::net::Shutdown::Write).expect("half closed");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("closed");
        assert!(!reply.contains("\"result\""), "{reply}");
    }
    is_served(&a);
}
