//! `connect`: who is trusted, and what is kept.

use serde_json::{Value, json};

use crate::fake::{Answer, BOB, Fake, failure, ran, reply};

fn connected(alias: Option<&str>) -> Vec<Answer> {
    reply(json!({"peer": BOB, "alias": alias, "name": "box", "address": "192.0.2.7:3000"}))
}

fn daemon(connect: impl Fn() -> Vec<Answer> + Send + Sync + 'static) -> Fake {
    Fake::start(move |method, _: &Value| match method {
        "probe" => reply(json!({"peer": BOB, "name": "box"})),
        "connect" => connect(),
        other => panic!("asked for {other}"),
    })
}

#[test]
fn a_peer_with_its_id_is_verified_by_the_daemon() {
    let fake = daemon(|| connected(Some("bob")));
    let args = ["connect", BOB, "192.0.2.7", "--alias", "bob", "--timeout", "3s"];
    let line = format!("connected to bob {BOB} at 192.0.2.7:3000\n");
    assert_eq!(fake.ctl(&args), ran(0, &line, ""));
    assert_eq!(
        fake.asked("connect"),
        [json!({"peer": BOB, "address": "192.0.2.7:3000", "alias": "bob", "timeout_ms": 3_000})]
    );
    assert_eq!(fake.asked("probe"), [Value::Null; 0]);
}

#[test]
fn without_an_id_and_a_terminal_it_is_refused() {
    let fake = daemon(|| connected(None));
    let ran = fake.ctl(&["connect", "192.0.2.7"]);
    assert_eq!((ran.code, &*ran.stdout), (2, ""));
    assert!(ran.stderr.contains("--trust-on-first-use"), "{}", ran.stderr);
    assert_eq!(fake.asked("connect"), [Value::Null; 0]);
}

#[test]
fn trust_on_first_use_takes_who_answers() {
    let fake = daemon(|| connected(None));
    let line = format!("connected to {BOB} (calls itself \"box\") at 192.0.2.7:3000\n");
    assert_eq!(fake.ctl(&["connect", "192.0.2.7:3000", "--trust-on-first-use"]), ran(0, &line, ""));
    assert_eq!(fake.asked("connect")[0]["peer"], BOB);
}

#[test]
fn another_key_is_exit_6() {
    let fake = daemon(|| failure("identity_mismatch", "another peer answers there"));
    assert_eq!(
        fake.ctl(&["connect", BOB, "192.0.2.7"]),
        ran(6, "", "distmsgctl: another peer answers there\n")
    );
}

#[test]
fn unreachable_with_an_id_is_kept_and_exit_4() {
    for code in ["unreachable", "timeout"] {
        let fake = daemon(move || failure(code, "nobody answers yet; dialling goes on"));
        assert_eq!(
            fake.ctl(&["connect", BOB, "192.0.2.7"]),
            ran(4, "", "distmsgctl: nobody answers yet; dialling goes on\n")
        );
    }
}

#[test]
fn unreachable_without_an_id_is_exit_1() {
    for code in ["unreachable", "timeout"] {
        let fake = Fake::answering("probe", move || failure(code, "nobody answers"));
        assert_eq!(
            fake.ctl(&["connect", "192.0.2.7", "--trust-on-first-use"]),
            ran(1, "", "distmsgctl: nobody answers\n")
        );
    }
}

#[test]
fn an_id_without_an_address_is_not_taken_for_a_host() {
    let fake = daemon(|| connected(None));
    for trust in [&[][..], &["--trust-on-first-use"]] {
        let ran = fake.ctl(&[&["connect", BOB], trust].concat());
        let expected =
            format!("distmsgctl: an address is missing; write 'connect {BOB} HOST[:PORT]'\n");
        assert_eq!(ran, crate::fake::ran(2, "", &expected));
    }
    let typo = BOB.replace("lhh9s", "lhh9q");
    let ran = fake.ctl(&["connect", &typo]);
    assert!(ran.code == 2 && ran.stderr.contains("the checksum does not match"), "{}", ran.stderr);
    // One that was cut, or has something behind it.
    let (short, long) = (&BOB[..20], format!("{BOB}x"));
    for (id, chars) in [(short, 20), (&*long, 62), (&*format!("{long}:3000"), 62)] {
        for trust in [&[][..], &["--trust-on-first-use"]] {
            let ran = fake.ctl(&[&["connect", id], trust].concat());
            let why = format!("a peer ID has 61 characters, this has {chars}\n");
            assert!(ran.code == 2 && ran.stderr.ends_with(&why), "{id}: {}", ran.stderr);
        }
    }
    assert_eq!(fake.asked("probe"), [Value::Null; 0]);
}

#[test]
fn a_host_may_be_called_nearly_like_an_id() {
    for host in ["dm1box", "dm1box.example.org:3000", "dm1-a-long-host-name"] {
        let fake = daemon(|| connected(None));
        assert_eq!(fake.ctl(&["connect", host, "--trust-on-first-use"]).code, 0, "{host}");
    }
}

#[test]
fn the_address_is_what_must_be_given() {
    let fake = daemon(|| connected(None));
    let why = "distmsgctl: the following required arguments were not provided: <ADDRESS>; \
               'distmsgctl connect --help' tells more\n";
    assert_eq!(fake.ctl(&["connect"]), ran(2, "", why));
    let help = fake.ctl(&["connect", "--help"]).stdout;
    assert!(help.contains("Usage: distmsgctl connect [OPTIONS] [PEER_ID] <ADDRESS>\n"), "{help}");
    assert!(help.contains("\n  [PEER_ID]") && help.contains("\n  <ADDRESS>"), "{help}");
}

#[test]
fn an_ipv6_address_without_brackets_is_shown_with_them() {
    let fake = daemon(|| connected(None));
    let ran = fake.ctl(&["connect", BOB, "::1:3000"]);
    let why = "distmsgctl: address: an IPv6 address stands in brackets; write [::1]:3000\n";
    assert_eq!(ran, crate::fake::ran(2, "", why));
    assert_eq!(fake.asked("connect"), [Value::Null; 0]);
}

#[test]
fn a_mistyped_id_or_address_is_exit_2() {
    let fake = daemon(|| connected(None));
    let typo = BOB.replace("lhh9s", "lhh9q");
    let ran_id = fake.ctl(&["connect", &typo, "192.0.2.7"]);
    assert_eq!(ran_id.code, 2);
    assert!(ran_id.stderr.contains("the checksum does not match"), "{}", ran_id.stderr);
    let ran_address = fake.ctl(&["connect", BOB, "192.0.2"]);
    assert_eq!(ran_address.code, 2);
    assert!(ran_address.stderr.contains("neither an IP address nor"), "{}", ran_address.stderr);
}
