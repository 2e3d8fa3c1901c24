//! Commands that ask and print.

use serde_json::{Value, json};

use crate::fake::{BOB, EVE, Event, Fake, failure, ran, reply};

pub(crate) fn status() -> Value {
    json!({
        "version": "0.1.0", "pid": 17, "peer": BOB, "name": "bob", "network": "closed",
        "uptime_s": 7_265, "state_dir": "/var/lib/distmsg", "listen": ["127.0.0.1:3000"],
        "advertise": [], "peers": 12, "links": 1, "outbox_messages": 0, "outbox_bytes": 0,
        "given_up": 2, "last_given_up": given_up(), "inbox_messages": 3, "inbox_bytes": 2_048,
        "listeners": [
            listener("default", 3, 1, Value::Null),
            listener("old", 7, 0, "2026-01-02T03:04:05Z".into()),
        ],
        "warnings": ["the disk is full\n"],
    })
}

fn listener(name: &str, unread: u64, clients: u64, last_seen: Value) -> Value {
    json!({
        "name": name, "unread": unread, "position": 12, "leased": 2 * clients,
        "clients": clients, "last_seen": last_seen,
    })
}

fn given_up() -> Value {
    json!({
        "id": "0abc", "to": EVE, "alias": "eve", "subject": null,
        "queued": "2026-01-02T03:04:05Z", "given_up": "2026-01-03T03:04:05Z", "bytes": 2_048,
        "state": "given up", "reason": "too_large",
    })
}

pub(crate) fn peer(id: &str, alias: Option<&str>) -> Value {
    json!({
        "peer": id, "alias": alias, "name": "box", "addresses": ["192.0.2.7:3000"],
        "connected": false, "dial": null, "link": null, "record_made": null,
        "record_expires": null, "queued": 0, "last_error": null,
    })
}

#[test]
fn id_prints_the_full_id_alone() {
    let fake = Fake::answering("status", || reply(status()));
    assert_eq!(fake.ctl(&["id"]), ran(0, &format!("{BOB}\n"), ""));
    let json = format!("{{\"peer\":\"{BOB}\",\"name\":\"bob\"}}\n");
    assert_eq!(fake.ctl(&["id", "--json"]), ran(0, &json, ""));
}

#[test]
fn status_names_the_socket_and_all_that_matters() {
    let fake = Fake::answering("status", || reply(status()));
    let expected = format!(
        "peer       {BOB}\n\
         name       bob\n\
         network    closed\n\
         socket     {}\n\
         state      /var/lib/distmsg\n\
         daemon     distmsg 0.1.0, process 17, up 2h 1m\n\
         listening  127.0.0.1:3000\n\
         advertises nothing\n\
         peers      12 known, 1 link\n\
         outbox     0 messages, 0 B\n\
         inbox      3 messages, 2.0 KiB\n\
         given up   2 messages, the last one for eve: too large for the recipient; \
         see 'distmsgctl outbox'\n\
         listener   default: 3 unread, 1 client attached\n\
         listener   old: 7 unread, 0 clients attached\n\
         warning    the disk is full\\n\n",
        fake.socket().display()
    );
    assert_eq!(fake.ctl(&["status"]), ran(0, &expected, ""));
}

#[test]
fn status_as_json_is_the_daemons_answer_and_the_socket() {
    let fake = Fake::answering("status", || reply(status()));
    let ran = fake.ctl(&["status", "--json"]);
    let mut expected = status();
    expected["socket"] = fake.socket().to_str().expect("text").into();
    assert_eq!(serde_json::from_str::<Value>(&ran.stdout).expect("JSON"), expected);
}

#[test]
fn peers_are_a_table_over_all_pages() {
    let fake = Fake::start(|method, params| {
        assert_eq!(method, "peers");
        if params["after"] == "p1" {
            let mut eve = peer(EVE, None);
            eve["connected"] = true.into();
            eve["dial"] = "[2001:db8::7]:3000".into();
            eve["last_error"] = "connection refused".into();
            eve["name"] = "bob\u{202e}".into();
            return reply(json!({"peers": [eve], "next": null}));
        }
        let mut bob = peer(BOB, Some("bob"));
        bob["link"] = json!({
            "direction": "outbound", "address": "192.0.2.7:3000", "up_s": 3, "rtt_ms": 0.26,
        });
        bob["queued"] = 2.into();
        reply(json!({"peers": [bob], "next": "p1"}))
    });
    let expected = format!(
        "ALIAS  ID{:61}LINK      RTT     ADDRESS         NAME   NOTE\n\
         bob    {BOB}  outbound  0.3 ms  192.0.2.7:3000  \"box\"  2 queued\n       \
         {EVE}  dialling          [2001:db8::7]:3000  \"bob\\u{{202e}}\"  connection refused\n",
        ""
    );
    assert_eq!(fake.ctl(&["peers"]), ran(0, &expected, ""));
}

#[test]
fn peers_can_be_only_the_linked_ones() {
    let fake =
        Fake::answering("peers", || reply(json!({"peers": [peer(BOB, None)], "next": null})));
    assert_eq!(fake.ctl(&["peers", "--linked"]), ran(0, "", ""));
}

#[test]
fn peers_as_json_are_one_a_line() {
    let fake = Fake::answering("peers", || {
        reply(json!({"peers": [peer(BOB, None), peer(EVE, Some("eve"))], "next": null}))
    });
    let ran = fake.ctl(&["peers", "--json"]);
    let lines: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines, [peer(BOB, None), peer(EVE, Some("eve"))]);
}

#[test]
fn routes_are_a_row_for_each_way() {
    let fake = Fake::answering("routes", || {
        let hop = |peer: &str, alias: Option<&str>, hops: u8| {
            json!({
                "peer": peer, "alias": alias, "hops": hops, "score": 0.5, "receipts": 7,
                "age_s": 61,
            })
        };
        reply(json!({
            "routes": [{
                "destination": EVE, "alias": null,
                "next_hops": [hop(BOB, Some("bob"), 2), hop(EVE, None, 1)],
            }],
            "next": null,
        }))
    });
    let expected = format!(
        "DESTINATION{:52}BY{:61}HOPS  SCORE  RECEIPTS  AGE\n\
         {EVE}  bob{:60}2     0.50   7         1m 1s\n\
         {EVE}  {EVE}  1     0.50   7         1m 1s\n",
        "", "", ""
    );
    assert_eq!(fake.ctl(&["routes"]), ran(0, &expected, ""));
}

#[test]
fn ping_tells_how_long_it_took() {
    let fake =
        Fake::answering("ping", || reply(json!({"peer": BOB, "rtt_ms": 1.234, "attempts": 1})));
    let expected = format!("{BOB} answered in 1.23 ms, 1 attempt\n");
    assert_eq!(fake.ctl(&["ping", "bob", "--timeout", "500ms"]), ran(0, &expected, ""));
    assert_eq!(fake.asked("ping"), [json!({"peer": "bob", "timeout_ms": 500})]);
}

#[test]
fn a_ping_without_an_answer_is_exit_5() {
    for code in ["timeout", "not_delivered", "unreachable"] {
        let fake = Fake::answering("ping", move || failure(code, "no answer within 10s"));
        assert_eq!(fake.ctl(&["ping", "bob"]), ran(5, "", "distmsgctl: no answer within 10s\n"));
    }
}

#[test]
fn discover_shows_what_it_learns_and_ends_with_counts() {
    let fake = Fake::answering("discover", || {
        let learned = |peer: &str, new: bool| {
            Event(
                "discovered",
                json!({
                    "peer": peer, "name": "box", "addresses": ["192.0.2.7:3000"], "via": BOB,
                    "new": new,
                }),
            )
        };
        let counts = json!({"asked": 2, "answered": 1, "new": 1, "updated": 1, "known": 9});
        let mut answers = vec![learned(EVE, true), learned(BOB, false)];
        answers.extend(reply(counts));
        answers
    });
    let expected = format!(
        "new {EVE} \"box\" at 192.0.2.7:3000 via {BOB}\n\
         updated {BOB} \"box\" at 192.0.2.7:3000 via {BOB}\n\
         1 of 2 neighbours answered: 1 new, 1 updated, 9 peers known\n"
    );
    assert_eq!(fake.ctl(&["discover"]), ran(0, &expected, ""));
    let lines = fake.ctl(&["discover", "--json"]).stdout;
    let last = lines.lines().last().expect("counts");
    assert_eq!(last, r#"{"asked":2,"answered":1,"new":1,"updated":1,"known":9}"#);
}

#[test]
fn a_discover_that_nobody_answers_is_exit_5() {
    let fake = Fake::answering("discover", || {
        reply(json!({"asked": 2, "answered": 0, "new": 0, "updated": 0, "known": 2}))
    });
    assert_eq!(
        fake.ctl(&["discover", "--timeout", "2"]),
        ran(
            5,
            "0 of 2 neighbours answered: 0 new, 0 updated, 2 peers known\n",
            "distmsgctl: no neighbour answered within 2s; see 'distmsgctl peers'\n"
        )
    );
}

#[test]
fn listeners_are_listed_and_removed() {
    let fake = Fake::start(|method, params| match method {
        "status" => reply(status()),
        "remove_listener" if params["name"] == "old" => reply(json!({})),
        "remove_listener" if params["name"] == "default" => {
            failure("listener_in_use", "somebody listens by this name; end that first")
        }
        _ => failure("no_such_listener", "no listener has this name"),
    });
    let expected = "NAME     UNREAD  POSITION  LEASED  CLIENTS  LAST SEEN\n\
                    default  3       12        2       1        now\n\
                    old      7       12        0       0        2026-01-02T03:04:05+00:00\n";
    assert_eq!(fake.ctl(&["listeners"]), ran(0, expected, ""));
    let json = fake.ctl(&["listeners", "--json"]).stdout;
    let lines: Vec<Value> =
        json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(Value::from(lines), status()["listeners"]);
    assert_eq!(fake.ctl(&["listeners", "--remove", "old"]), ran(0, "", ""));
    let in_use = "distmsgctl: somebody listens by this name; end that first\n";
    assert_eq!(fake.ctl(&["listeners", "--remove", "default"]), ran(7, "", in_use));
    let unknown = "distmsgctl: no listener has this name\n";
    assert_eq!(fake.ctl(&["listeners", "--remove", "x"]), ran(8, "", unknown));
}

#[test]
fn the_level_of_the_log_is_shown_or_set() {
    let fake = Fake::start(|method, params| match (method, params["level"].as_str()) {
        ("log", None) => reply(json!({"level": "distmsg::link=debug"})),
        ("log", Some(level)) => reply(json!({"level": level})),
        _ => failure("method_not_found", "no"),
    });
    assert_eq!(fake.ctl(&["log"]), ran(0, "distmsg::link=debug\n", ""));
    assert_eq!(fake.ctl(&["log", "warn"]), ran(0, "", ""));
    assert_eq!(fake.ctl(&["log", "warn", "--json"]), ran(0, "{\"level\":\"warn\"}\n", ""));
    let wrong = "distmsgctl: invalid value 'loud' for '[LEVEL]'; [possible values: error, warn, \
                 info, debug, trace]; 'distmsgctl log --help' tells more\n";
    assert_eq!(fake.ctl(&["log", "loud"]), ran(2, "", wrong));
}

#[test]
fn what_is_done_without_a_result_is_silent() {
    for (method, args) in [
        ("forget", &["forget", "bob"][..]),
        ("alias", &["alias", "bob", "box"]),
        ("alias", &["alias", "bob", "--remove"]),
    ] {
        let fake = Fake::answering(method, || reply(json!({})));
        assert_eq!(fake.ctl(args), ran(0, "", ""), "{args:?}");
        let with_json: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        assert_eq!(fake.ctl(&with_json), ran(0, "{}\n", ""), "{args:?}");
    }
}

#[test]
fn a_disconnect_that_may_not_last_says_so() {
    for (dialled_by_peer, line) in [
        (false, ""),
        (
            true,
            "disconnected bob, but it dials us and may do so again; have its operator disconnect \
             as well\n",
        ),
    ] {
        let done = json!({"dialled_by_peer": dialled_by_peer});
        let as_json = format!("{done}\n");
        let fake = Fake::answering("disconnect", move || reply(done.clone()));
        assert_eq!(fake.ctl(&["disconnect", "bob"]), ran(0, "", line));
        assert_eq!(fake.ctl(&["disconnect", "bob", "--json"]), ran(0, &as_json, ""));
    }
}

#[test]
fn an_alias_is_given_and_taken() {
    let fake = Fake::answering("alias", || reply(json!({})));
    fake.ctl(&["alias", "bob", "box"]);
    fake.ctl(&["alias", "box", "--remove"]);
    let asked = [json!({"peer": "bob", "alias": "box"}), json!({"peer": "box", "alias": null})];
    assert_eq!(fake.asked("alias"), asked);
}

#[test]
fn the_inbox_is_listed_and_acknowledged_is_nothing() {
    let fake = Fake::start(|method, params| {
        assert_eq!(method, "inbox");
        let message = |cursor: u64, body: Value| {
            json!({
                "cursor": cursor, "id": "00", "from": BOB, "alias": "bob", "subject": null,
                "sent": "2026-01-02T03:04:05Z", "received": "2026-01-02T03:04:06.7Z",
                "bytes": 300_000, "body": body,
            })
        };
        match params["after"].as_u64() {
            None => reply(json!({"messages": [message(1, "a\nb".into())], "next": 1})),
            _ => {
                let more = [message(2, Value::Null), message(3, "c".into())];
                reply(json!({"messages": more, "next": null}))
            }
        }
    });
    assert_eq!(
        fake.ctl(&["inbox", "--limit", "2"]),
        ran(
            0,
            "1 2026-01-02T03:04:06+00:00 bob a\\nb\n\
             2 2026-01-02T03:04:06+00:00 bob (292.9 KiB, not shown)\n",
            ""
        )
    );
}

#[test]
fn the_outbox_is_listed() {
    let fake = Fake::answering("outbox", || {
        let message = json!({
            "id": "00ff", "to": BOB, "alias": "bob", "subject": null,
            "queued": "2026-01-02T03:04:05Z", "expires": "2026-01-09T03:04:05Z", "bytes": 12,
            "state": "in flight",
        });
        reply(json!({"messages": [message], "next": null, "given_up": [given_up()]}))
    });
    assert_eq!(
        fake.ctl(&["outbox"]),
        ran(
            0,
            "ID    TO   QUEUED                     EXPIRES                    SIZE  STATE\n\
             00ff  bob  2026-01-02T03:04:05+00:00  2026-01-09T03:04:05+00:00  12 B  in flight\n\
             0abc  eve  2026-01-02T03:04:05+00:00  2026-01-03T03:04:05+00:00  2.0 KiB  \
             given up: too large for the recipient\n",
            ""
        )
    );
    assert_eq!(fake.ctl(&["outbox", "--limit", "1"]).stdout.lines().count(), 2);
    let json = fake.ctl(&["outbox", "--json"]).stdout;
    let last: Value = serde_json::from_str(json.lines().last().expect("two")).expect("JSON");
    assert_eq!(last, given_up());
}
