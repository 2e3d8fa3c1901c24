//! The example clients, run as they stand: through the Unix socket, in clear text over TCP, and
//! over TLS with the daemon's key pinned by its peer ID.
//!
//! They need programs that not every machine has. Where one is missing, that is said on standard
//! error; with `DISTMSG_TEST_EXAMPLES=required` it is a failure instead.

use std::process::Command;

use serde_json::Value;

use super::{interface_of, pinned, with_interface};
use crate::daemon::{Daemon, SOON, text};
use crate::faults::skipped;
use crate::running::{Output, Running, until};

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/client.py");
const SHELL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/client.sh");
/// Set to `required`, what cannot run fails.
const WANTED: &str = "DISTMSG_TEST_EXAMPLES";

/// Whether a command succeeds here, in the surroundings of the test.
fn succeeds(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}

/// Says that an example cannot run here.
fn cannot(example: &str, why: &str) {
    let required = std::env::var(WANTED).is_ok_and(|wanted| wanted == "required");
    assert!(!required, "{WANTED}=required, and {example} cannot run here: {why}");
    skipped(&format!("{example}: {why}"));
}

/// The Python itself, not what may stand in its place and needs more of the surroundings.
fn python() -> Option<String> {
    let found = Command::new("python3")
        .args(["-c", "import argparse, json, ssl, sys; print(sys.executable)"])
        .output();
    match found {
        Ok(found) if found.status.success() => {
            Some(String::from_utf8(found.stdout).expect("a path").trim_end().to_owned())
        }
        _ => {
            cannot("client.py", "no python3 with ssl");
            None
        }
    }
}

/// An example with a daemon's surroundings, and the variables given.
fn run(daemon: &Daemon, program: &str, args: &[&str], vars: &[(&str, &str)]) -> Running {
    let mut command = daemon.command(program);
    command.args(args).envs(vars.iter().copied());
    // Where the programs are that it needs.
    command.env("PATH", std::env::var_os("PATH").expect("a path"));
    Running::start(command)
}

/// Two daemons, the first one with an interface port on all addresses, linked.
fn pair(address: &str) -> (Daemon, Daemon) {
    let (a, b) = (with_interface("a", address), Daemon::start("b"));
    a.connect(&b);
    (a, b)
}

#[test]
fn the_example_in_python_sends_and_listens_by_all_three_ways() {
    let Some(python) = python() else { return };
    let (a, b) = pair("127.0.0.2:0");
    let token = a.state_dir().join("interface-token").display().to_string();
    let socket = a.socket().display().to_string();
    let (clear, tls) = (interface_of(&a), pinned(&a));
    let by_unix = ["--socket", &socket];
    let by_tcp = ["--interface", &clear, "--token-file", &token];
    let by_tls = ["--interface", &tls, "--token-file", &token];
    for way in [&by_unix[..], &by_tcp, &by_tls] {
        let client = |args: &[&str]| -> Output {
            run(&a, &python, &[&[PYTHON], way, args].concat(), &[]).finish()
        };
        let status: Value =
            serde_json::from_str(&client(&["status"]).exits(0).text()).expect("JSON");
        assert_eq!(status["peer"], *a.peer);
        let sent = client(&["send", "b", "from Python"]).exits(0).text();
        assert!(sent.starts_with("delivered "), "{sent}");
        let heard = b.ctl(&["listen", "--count", "1", "--timeout", "20s", "--raw"]).exits(0);
        assert_eq!(heard.text(), "from Python");
        // Of all sizes and kinds: text, bytes that are none, and what does not fit one line.
        let large = "x".repeat(300_000);
        for body in [&b"to Python"[..], b"\xff\xfe", large.as_bytes()] {
            b.ctl_given(&["send", &a.peer, "--timeout", "20s"], body).exits(0);
            let heard = client(&["listen", "--count", "1"]).exits(0).stdout;
            assert_eq!(heard, [b.peer.as_bytes(), b" ", body, b"\n"].concat());
        }
        let refused = client(&["send", "nobody", "x"]).exits(1).stderr;
        assert!(refused.contains("(no_such_peer)"), "{refused}");
    }
    // Messages that come while it listens.
    let args = [&[PYTHON], &by_tls[..], &["listen", "--count", "2"]].concat();
    let listening = run(&a, &python, &args, &[]);
    until("it listens", SOON, || {
        let listeners = a.status()["listeners"].as_array().expect("a list").clone();
        listeners.iter().any(|one| one["name"] == "client.py" && one["clients"] == 1).then_some(())
    });
    b.ctl(&["send", &a.peer, "one"]).exits(0);
    b.ctl(&["send", &a.peer, "two"]).exits(0);
    let heard = listening.finish().exits(0).lines();
    assert_eq!(heard.len(), 2, "{heard:?}");
}

#[test]
fn the_example_in_python_pins_the_key_and_its_tls_is_a_client_on_any_address() {
    let Some(python) = python() else { return };
    let (a, b) = (with_interface("a", "0.0.0.0:0"), with_interface("b", "0.0.0.0:0"));
    let client = |to: &str, of: &Daemon| -> Output {
        let token = of.state_dir().join("interface-token").display().to_string();
        let args = [PYTHON, "--interface", to, "--token-file", &token, "status"];
        run(&a, &python, &args, &[]).finish()
    };
    client(&pinned(&a), &a).exits(0);
    // Another key: the token, which would have been right, is not sent.
    let wrong = pinned(&b).replace(&b.peer, &a.peer);
    let refused = client(&wrong, &b).exits(6).stderr;
    assert!(refused.contains("another key answers there"), "{refused}");
    assert!(!b.log().contains("authenticated"), "{}", b.log());
    // Another token.
    let refused = client(&pinned(&a), &b).exits(1).stderr;
    assert!(refused.contains("(unauthorized)"), "{refused}");
    let typo = pinned(&a).replacen("dm1", "dm1q", 1);
    assert!(client(&typo, &a).exits(2).stderr.contains("is no peer ID"));
    let swapped: String = {
        let mut letters: Vec<char> = pinned(&a).chars().collect();
        letters[20] = if letters[20] == 'q' { 'p' } else { 'q' };
        letters.into_iter().collect()
    };
    assert!(client(&swapped, &a).exits(2).stderr.contains("its checksum does not match"));
    let nowhere = client("192.0.2.7:1", &a).exits(2).stderr;
    assert!(nowhere.contains("write PEER_ID@192.0.2.7:1"), "{nowhere}");
}

#[test]
fn the_example_in_shell_sends_and_listens_by_the_socket_and_by_tcp() {
    let nc = Command::new("nc").arg("-h").output();
    let nc = nc.is_ok_and(|output| {
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).contains("-U")
    });
    if !succeeds("jq", &["--version"]) || !(nc || succeeds("socat", &["-V"])) {
        return cannot("client.sh", "no jq, or neither OpenBSD's nc nor socat");
    }
    let (a, b) = pair("127.0.0.2:0");
    let (socket, clear) = (a.socket().display().to_string(), interface_of(&a));
    for vars in [[("DISTMSG_SOCKET", &*socket)], [("DISTMSG_INTERFACE_ADDR", &*clear)]] {
        let client = |args: &[&str]| -> Output { run(&a, SHELL, args, &vars).finish() };
        let status: Value =
            serde_json::from_str(&client(&["status"]).exits(0).text()).expect("JSON");
        assert_eq!(status["peer"], *a.peer);
        let sent = client(&["send", "b", "from 'a' $shell"]).exits(0).text();
        assert!(sent.starts_with("delivered "), "{sent}");
        let heard = b.ctl(&["listen", "--count", "1", "--timeout", "20s", "--raw"]).exits(0);
        assert_eq!(heard.text(), "from 'a' $shell");
        for body in ["one", "two", "three"] {
            b.ctl(&["send", &a.peer, body]).exits(0);
        }
        let bodies = |count: &str| -> Vec<String> {
            let heard = client(&["listen", count]).exits(0).json();
            heard.iter().map(|message| text(message, "body")).collect()
        };
        assert_eq!(bodies("2"), ["one", "two"]);
        assert_eq!(bodies("1"), ["three"], "the others were acknowledged");
        let large = "large ".repeat(40_000);
        b.ctl_given(&["send", &a.peer], large.as_bytes()).exits(0);
        let refused = client(&["listen", "1"]).exits(1).stderr;
        assert!(refused.contains("is too large for this example, and stays unread"), "{refused}");
        let listen = ["listen", "--name", "client.sh", "--count", "1", "--timeout", "20s", "--raw"];
        assert!(a.ctl(&listen).exits(0).text() == large, "it was not acknowledged");
        let refused = client(&["send", "nobody", "x"]).exits(1).stderr;
        assert!(refused.contains("(no_such_peer)"), "{refused}");
        client(&["send"]).exits(2);
    }
    let wrong = b.state_dir().with_file_name("wrong");
    std::fs::write(&wrong, "0".repeat(64)).expect("written");
    let wrong = wrong.to_str().expect("text");
    let vars = [("DISTMSG_INTERFACE_ADDR", &*clear), ("DISTMSG_TOKEN_FILE", wrong)];
    let refused = run(&a, SHELL, &["status"], &vars).finish().exits(1).stderr;
    assert!(refused.contains("(unauthorized)"), "{refused}");
    let nobody = [("DISTMSG_SOCKET", "/nonexistent/socket")];
    run(&a, SHELL, &["status"], &nobody).finish().exits(3);
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return cannot("client.sh over IPv6", "this machine has no IPv6");
    }
    let c = with_interface("c", "[::1]:0");
    let by_ipv6 = interface_of(&c);
    let vars = [("DISTMSG_INTERFACE_ADDR", &*by_ipv6)];
    let status = run(&c, SHELL, &["status"], &vars).finish().exits(0).text();
    assert!(status.contains(&c.peer), "{status}");
}
