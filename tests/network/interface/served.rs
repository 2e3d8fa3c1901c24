//! Who shows the token is served like whoever opens the Unix socket.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{ask, authenticate, connect, interface_of, pinned, token_of, with_interface};
use crate::daemon::{DAEMON_MAX, Daemon, SOON};
use crate::running::{Output, until};
use crate::terminal::Terminal;

/// Every verb, by one way, of a daemon that is linked with `b`.
fn every_verb(a: &Daemon, b: &Daemon, way: &str) {
    let by = |args: &[&str]| -> Output { a.ctl(&[&["--interface", way], args].concat()) };
    assert_eq!(by(&["id"]).exits(0).text().trim_end(), a.peer);
    let status = by(&["status", "--json"]).exits(0).json().remove(0);
    assert_eq!((&status["endpoint"], &status["socket"]), (&way.into(), &serde_json::Value::Null));
    let shown = by(&["status"]).exits(0).text();
    assert!(shown.contains(&format!("endpoint   {way}\n")), "{shown}");
    for same in [&["peers", "--json"][..], &["listeners", "--json"], &["outbox", "--json"]] {
        assert_eq!(by(same).exits(0).lines().len(), a.ctl(same).exits(0).lines().len(), "{same:?}");
    }
    by(&["ping", "b", "--timeout", "20s"]).exits(0);
    by(&["discover"]).exits(0);
    by(&["alias", "b", "bee"]).exits(0);
    by(&["alias", "bee", "b"]).exits(0);
    let large = vec![b'x'; 3_000_000];
    let received = || b.status()["inbox_messages"].as_u64().expect("a number");
    let before = received();
    by(&["send", "b", "short"]).exits(0);
    let args = ["--interface", way, "send", "b", "--timeout", "30s"];
    a.ctl_given(&args, &large).exits(0);
    a.ctl_given(&[&args[..], &["--lines"]].concat(), b"one\ntwo\n").exits(0);
    assert_eq!(received(), before + 4);
    by(&["routes", "--json"]).exits(0);
    b.ctl_given(&["send", &a.peer, "--timeout", "30s"], &large).exits(0);
    let name = if way.contains('@') { "tls" } else { "clear" };
    let listen = ["listen", "--name", name, "--raw", "--count", "1", "--timeout", "20s"];
    let heard = by(&listen).exits(0);
    assert!(heard.stdout.len() >= large.len(), "{} B", heard.stdout.len());
    assert!(!by(&["inbox", "--json"]).exits(0).lines().is_empty());
    by(&["listeners", "--remove", name]).exits(0);
    by(&["disconnect", "b"]).exits(0);
    by(&["connect", &b.peer, &b.address, "--alias", "b"]).exits(0);
    by(&["forget", "b"]).exits(0);
    by(&["connect", &b.peer, &b.address, "--alias", "b"]).exits(0);
    by(&["log", "debug"]).exits(0);
    let script = a.ctl_given(&["--interface", way], b"id\nsend b 'of a script'\n").exits(0);
    assert_eq!(script.lines()[0], a.peer);
    // What a command says when it fails is the daemon's answer all the same.
    by(&["send", "nobody", "x"]).exits(8);
    a.ctl_given(&["--interface", way], b"id\nping nobody\nid\n").exits(8);
}

#[test]
fn every_verb_works_over_the_interface_port_in_clear_text_and_over_tls() {
    let (a, b) = (with_interface("a", "127.0.0.2:0"), Daemon::start("b"));
    a.connect(&b);
    every_verb(&a, &b, &interface_of(&a));
    every_verb(&a, &b, &pinned(&a));
}

#[test]
fn where_it_is_not_on_loopback_it_takes_tls_only() {
    let a = with_interface("a", "0.0.0.0:0");
    let (clear, way) = (interface_of(&a).replace("0.0.0.0", "127.0.0.1"), pinned(&a));
    a.ctl(&["--interface", &way, "id"]).exits(0);
    let refused = a.ctl(&["--interface", &clear, "id"]).exits(3).stderr;
    assert!(refused.contains(&format!("write PEER_ID@{clear}")), "{refused}");
    a.logged("only TLS is taken here");
    // Somebody else's address needs the ID before anything is sent, and the token's file.
    let remote = clear.replace("127.0.0.1", "192.0.2.7");
    let refused = a.ctl(&["--interface", &remote, "id"]).exits(2).stderr;
    assert!(refused.contains(&format!("write PEER_ID@{remote}")), "{refused}");
    let refused = a.ctl(&["--interface", &format!("{}@{remote}", a.peer), "id"]).exits(1).stderr;
    assert!(refused.contains("name the copy with --token-file"), "{refused}");
}

#[test]
fn the_variables_name_it_after_the_socket_and_before_the_configuration() {
    let a = with_interface("a", "localhost:0");
    let way = pinned(&a).replace("127.0.0.1", "localhost");
    let token = a.state_dir().join("interface-token").display().to_string();
    let status = |vars: &[(&str, &str)]| {
        let mut command = a.command(env!("CARGO_BIN_EXE_distmsgctl"));
        command.args(["status", "--json"]).envs(vars.iter().copied());
        command.env("XDG_STATE_HOME", "/nonexistent");
        crate::running::Running::start(command).finish()
    };
    let vars = [("DISTMSG_INTERFACE_ADDR", &*way), ("DISTMSG_TOKEN_FILE", &*token)];
    assert_eq!(status(&vars).exits(0).json()[0]["endpoint"], *way);
    let socket = a.socket().display().to_string();
    let both = [vars[0], ("DISTMSG_SOCKET", &*socket)];
    assert_eq!(status(&both).exits(0).json()[0]["socket"], *socket);
    let lost = status(&vars[..1]).exits(1).stderr;
    assert!(lost.contains("/nonexistent/distmsg/interface-token nor at /var/lib"), "{lost}");
    let wrong = status(&[("DISTMSG_INTERFACE_ADDR", "x")]).exits(2).stderr;
    assert!(wrong.contains("DISTMSG_INTERFACE_ADDR: the port is missing"), "{wrong}");
}

#[test]
fn without_a_configuration_there_is_no_interface_port_and_no_token() {
    let a = Daemon::start("a");
    assert!(a.status()["interface"].is_null(), "{}", a.status());
    assert!(!a.state_dir().join("interface-token").exists());
}

#[test]
fn a_wrong_token_is_refused_after_a_second_and_logged_with_its_address() {
    let a = with_interface("a", "127.0.0.2:0");
    let wrong = a.state_dir().with_file_name("wrong");
    fs::write(&wrong, "0".repeat(64)).expect("written");
    fs::set_permissions(&wrong, Permissions::from_mode(0o600)).expect("set");
    let file = wrong.to_str().expect("text");
    for way in [interface_of(&a), pinned(&a)] {
        let start = Instant::now();
        let refused = a.ctl(&["--interface", &way, "--token-file", file, "id"]).exits(7);
        assert!(start.elapsed() >= Duration::from_secs(1), "after {:?}", start.elapsed());
        assert!(refused.stderr.contains("not this daemon's token"), "{}", refused.stderr);
        let json = a.ctl(&["--interface", &way, "--token-file", file, "id", "--json"]).exits(7);
        assert!(json.stderr.contains("\"code\":\"unauthorized\""), "{}", json.stderr);
    }
    // Meanwhile others are served at once.
    let way = interface_of(&a);
    let shown = || a.log().matches("a wrong token was shown").count();
    until("somebody is served while another waits", SOON, || {
        let before = shown();
        let mut slow = a.ctl_start(&["--interface", &way, "--token-file", file, "id"]);
        until("it is refused", SOON, || (shown() > before).then_some(()));
        assert!(ask(&connect(&a), &authenticate(&token_of(&a))).contains("result"));
        let waits = !slow.is_over();
        slow.finish().exits(7);
        waits.then_some(())
    });
    let log = a.log();
    let line = log.lines().find(|line| line.contains("a wrong token was shown")).expect("a line");
    assert!(line.contains("WARN") && line.contains("address=127.0.0.1:"), "{line}");
    assert!(!log.contains(&"0".repeat(64)), "not even a wrong token is logged");
}

#[test]
fn a_token_that_others_may_read_or_that_is_none_is_refused_by_both_ends() {
    let mut a = with_interface("a", "127.0.0.2:0");
    let token = a.state_dir().join("interface-token");
    let mode = |mode| fs::set_permissions(&token, Permissions::from_mode(mode)).expect("set");
    let way = interface_of(&a);
    mode(0o644);
    let refused = a.ctl(&["--interface", &way, "id"]).exits(1).stderr;
    assert!(refused.contains(&format!("chmod 600 {}", token.display())), "{refused}");
    assert!(a.terminate().success());
    let refused = a.distmsg(&[]).exits(78).stderr;
    assert!(refused.contains(&format!("chmod 600 {}", token.display())), "{refused}");
    mode(0o600);
    fs::write(&token, "nonsense\n").expect("written");
    let refused = a.distmsg(&[]).exits(78).stderr;
    assert!(refused.contains("remove it, and a new token is made"), "{refused}");
    fs::remove_file(&token).expect("removed");
    a.boot();
    a.ctl(&["--interface", &interface_of(&a), "id"]).exits(0);
}

#[test]
fn the_token_is_private_whatever_the_umask_is_and_stays_the_same() {
    for umask in ["000", "077"] {
        let mut a = with_interface("a", "127.0.0.2:0");
        let token = a.state_dir().join("interface-token");
        assert!(a.terminate().success());
        fs::remove_file(&token).expect("removed");
        let mut shell = a.command("/bin/sh");
        shell.args(["-c", &format!("umask {umask}; exec \"$0\""), env!("CARGO_BIN_EXE_distmsg")]);
        let daemon = crate::running::Running::start(shell);
        until("it answers", DAEMON_MAX, || (a.ctl(&["status"]).code == Some(0)).then_some(()));
        let mode = fs::metadata(&token).expect("made").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "under umask {umask}");
        let made = token_of(&a);
        daemon.signal(Signal::TERM);
        daemon.finish().exits(0);
        a.boot();
        assert_eq!(token_of(&a), made);
    }
}

#[test]
fn the_clients_of_both_ways_are_counted_together() {
    let mut a = with_interface("a", "127.0.0.2:0");
    let config = fs::read_to_string(a.config()).expect("its configuration");
    assert!(a.terminate().success());
    a.configure(&format!("{config}\n[limits]\nclients_max = 4\n"));
    a.boot();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let client = connect(&a);
            assert!(ask(&client, &authenticate(&token_of(&a))).contains("result"));
            client
        })
        .collect();
    let way = interface_of_log(&a);
    for args in [&["id"][..], &["--interface", &way, "id"]] {
        let refused = a.ctl(args);
        assert!(refused.code != Some(0) && refused.stderr.contains("4 clients"), "{refused:?}");
    }
    drop(clients);
    until("there is room again", SOON, || (a.ctl(&["id"]).code == Some(0)).then_some(()));
}

/// Where its interface port is, when there is no room to ask.
fn interface_of_log(daemon: &Daemon) -> String {
    let log = daemon.log();
    let (_, after) = log.rsplit_once("over TCP interface=\"").expect("it is logged");
    after.split('"').next().expect("an address").to_owned()
}

#[test]
fn authenticating_where_it_is_not_asked_for_is_a_mistake_that_costs_nothing() {
    let a = with_interface("a", "127.0.0.2:0");
    let line = authenticate(&token_of(&a));
    let client = connect(&a);
    assert!(ask(&client, &line).contains("result"));
    assert!(ask(&client, &line).contains("invalid_request"));
    assert!(ask(&client, r#"{"jsonrpc":"2.0","id":1,"method":"status"}"#).contains(&a.peer));
    // Requests may follow the token before it is answered.
    let client = connect(&a);
    let both = format!("{line}\n{}", r#"{"jsonrpc":"2.0","id":1,"method":"status"}"#);
    assert!(ask(&client, &both).contains(r#""id":0"#));
}

#[test]
fn the_prompt_finds_its_daemon_again_over_the_interface_port() {
    let mut a = with_interface("a", "127.0.0.2:0");
    let fixed = interface_of(&a);
    let config = fs::read_to_string(a.config()).expect("its configuration");
    a.configure(&config.replace("127.0.0.2:0", &fixed));
    let mut command = a.command(env!("CARGO_BIN_EXE_distmsgctl"));
    command.args(["--interface", &pinned(&a)]);
    let mut terminal = Terminal::run(command);
    terminal.wait_for("a> ", 1);
    a.ctl(&["send", &Daemon::start("b").peer, "x", "--wait", "queued"]).exits(0);
    assert!(a.terminate().success());
    terminal.wait_for("the daemon went away", 1);
    a.boot();
    terminal.type_keys("id\r");
    terminal.wait_for("the daemon is back", 1);
    terminal.wait_for(&a.peer, 1);
    terminal.type_keys("exit\r");
    assert_eq!(terminal.exit_code(), Some(0));
}

#[test]
fn a_reload_moves_the_interface_port_and_ends_the_clients_that_came_by_it() {
    let a = with_interface("a", "127.0.0.2:0");
    let old = interface_of(&a);
    let config = fs::read_to_string(a.config()).expect("its configuration");
    let client = connect(&a);
    assert!(ask(&client, &authenticate(&token_of(&a))).contains("result"));
    let reload = |toml: &str, is_done: &dyn Fn() -> bool| {
        a.configure(toml);
        a.signal(Signal::HUP);
        until("the configuration is read", SOON, || is_done().then_some(()));
    };
    let now = || a.status()["interface"][0].as_str().map(str::to_owned);
    reload(&config.replace("127.0.0.2:0", "127.0.0.3:0"), &|| now().is_some_and(|at| at != old));
    let new = now().expect("it has one");
    assert!(new.starts_with("127.0.0.3:"), "{new}");
    a.ctl(&["--interface", &new, "id"]).exits(0);
    a.ctl(&["--interface", &old, "id"]).exits(3);
    let mut reply = String::new();
    let mut rest = &client;
    std::io::Read::read_to_string(&mut rest, &mut reply).expect("closed");
    assert_eq!(reply, "");
    // What cannot be had is refused, and everything stays as it is.
    let taken = config.replace("127.0.0.2:0", &a.address).replace("\"a\"", "\"never\"");
    let told = || a.status()["warnings"].to_string().contains("stands under listen, too");
    reload(&taken, &told);
    let other = std::net::TcpListener::bind("127.0.0.4:0").expect("a port");
    let taken = other.local_addr().expect("bound").to_string();
    let told = || a.status()["warnings"].to_string().contains("stop what listens there");
    reload(&config.replace("127.0.0.2:0", &taken).replace("\"a\"", "\"never\""), &told);
    assert_eq!(a.status()["name"], "a");
    let back = now().expect("as before");
    assert!(back.starts_with("127.0.0.3:"), "{back}");
    a.ctl(&["--interface", &back, "id"]).exits(0);
    // Where the daemon listens for peers itself until it is told otherwise, nobody else is blamed.
    let elsewhere = |to: &str| config.replace(&format!("\"{}\"", a.address), &format!("\"{to}\""));
    let swapped = elsewhere("127.0.0.5:0").replace("127.0.0.2:0", &a.address);
    let told = || a.status()["warnings"].to_string().contains("still listens for peers; restart");
    reload(&swapped, &told);
    assert_eq!(now().as_deref(), Some(&*back), "as before");
    // Where the interface port was, peers can be listened to at once.
    let instead = elsewhere(&back).replace("address = ", "# address = ");
    reload(&instead, &|| a.status()["listen"][0] == *back);
    assert_eq!(now(), None);
    a.ctl(&["--interface", &back, "id"]).exits(3);
}
