//! Lines that are requests, and lines that are not.

use proptest::prelude::*;

use crate::control::codec::{Outgoing, RequestId, decode_request, encode_outgoing, encode_request};
use crate::control::protocol::{
    Ack, Connect, ErrorCode, Event, Listen, ListenerRef, Message, MessageEvent, Page, Request,
    Send, Subscribe, Topic, Wait,
};

fn code_of(line: &str) -> (Option<RequestId>, ErrorCode, String) {
    let incoming = decode_request(line.as_bytes());
    let failure = incoming.request.expect_err(line);
    (incoming.id, failure.code, failure.message)
}

fn call(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)
}

#[test]
fn requests_are_read_as_they_were_written() {
    let requests = [
        Request::Status {},
        Request::Peers(Page::default()),
        Request::Ack(Ack { subscription: 3, cursors: vec![1, 2] }),
        Request::RemoveListener(ListenerRef { name: "old".to_owned() }),
        Request::Subscribe(Subscribe { topics: vec![Topic::Messages, Topic::Traffic] }),
        Request::Connect(Connect {
            peer: "dm1".into(),
            address: "h:1".into(),
            alias: None,
            timeout_ms: 5,
        }),
    ];
    for request in requests {
        let mut line = Vec::new();
        encode_request(7, &request, &mut line);
        assert_eq!(line.pop(), Some(b'\n'));
        let incoming = decode_request(&line);
        assert_eq!(incoming.id, Some(RequestId::Number(7)));
        assert_eq!(incoming.request, Ok(request));
    }
}

#[test]
fn what_is_left_out_has_its_default() {
    let incoming = decode_request(br#"{"jsonrpc":"2.0","id":"a","method":"status"}"#);
    assert_eq!(incoming.id, Some(RequestId::Text("a".into())));
    assert_eq!(incoming.request, Ok(Request::Status {}));
    let incoming = decode_request(call("listen", r#"{"name":"x"}"#).as_bytes());
    let listen = Listen { name: "x".into(), from: None, since: None, window: 256 };
    assert_eq!(incoming.request, Ok(Request::Listen(listen)));
    let incoming = decode_request(call("send", r#"{"peer":"p","body":""}"#).as_bytes());
    let Ok(Request::Send(send)) = incoming.request else { panic!("no send") };
    assert_eq!((send.wait, send.body), (Wait::Delivered, Some(String::new())));
}

#[test]
fn every_mistake_has_its_code_and_is_named() {
    for (line, code, named) in [
        ("", ErrorCode::ParseError, "not JSON"),
        ("GET / HTTP/1.1", ErrorCode::ParseError, "not JSON"),
        ("{", ErrorCode::ParseError, "not JSON"),
        ("[]", ErrorCode::InvalidRequest, "a request is an object"),
        ("7", ErrorCode::InvalidRequest, "a request is an object"),
        // The members in order, without their names.
        (r#"["2.0",1,"status",{}]"#, ErrorCode::InvalidRequest, "a request is an object"),
        (r#" ["2.0",1,"status"]"#, ErrorCode::InvalidRequest, "a request is an object"),
        ("[", ErrorCode::ParseError, "not JSON"),
        (r#"{"jsonrpc":"2.0","method":"status"}"#, ErrorCode::InvalidRequest, "id"),
        (r#"{"jsonrpc":"2.0","id":null,"method":"status"}"#, ErrorCode::InvalidRequest, "id"),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"status"}"#, ErrorCode::InvalidRequest, ""),
        (r#"{"jsonrpc":"1.0","id":1,"method":"status"}"#, ErrorCode::InvalidRequest, "2.0"),
        (r#"{"id":1,"method":"status"}"#, ErrorCode::InvalidRequest, "jsonrpc"),
        (
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"status"}"#,
            ErrorCode::InvalidRequest,
            "duplicate",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"status","extra":1}"#,
            ErrorCode::InvalidRequest,
            "extra",
        ),
        (&call("bogus", "{}"), ErrorCode::MethodNotFound, "bogus"),
        (&call("status", r#"{"x":1}"#), ErrorCode::InvalidParams, "x"),
        (&call("status", "[]"), ErrorCode::InvalidParams, "object"),
        (&call("send", "{}"), ErrorCode::InvalidParams, "peer"),
        (&call("send", r#"{"peer":7}"#), ErrorCode::InvalidParams, ""),
        (&call("send", r#"{"peer":"p","bdy":"x"}"#), ErrorCode::InvalidParams, "bdy"),
        (&call("send", r#"{"peer":"p","peer":"q"}"#), ErrorCode::InvalidParams, "duplicate"),
        (&call("ack", r#"{"subscription":-1,"cursors":[]}"#), ErrorCode::InvalidParams, ""),
        (&call("ack", r#"{"subscription":1e99,"cursors":[]}"#), ErrorCode::InvalidParams, ""),
    ] {
        let (_, found, message) = code_of(line);
        assert_eq!(found, code, "{line}: {message}");
        assert!(message.contains(named), "{line}: {message:?} does not say {named:?}");
        assert!(!message.contains('\n'), "one line: {message}");
        assert!(!message.contains("struct"), "our own names are nobody's business: {message}");
    }
}

#[test]
fn hostile_lines_are_refused_without_harm() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(code_of(&call("status", &deep)).1, ErrorCode::InvalidParams);
    let deep = format!("{}1{}", r#"{"peer":"#.repeat(10_000), "}".repeat(10_000));
    assert_eq!(code_of(&call("forget", &deep)).1, ErrorCode::InvalidParams);
    let id = "x".repeat(129);
    let line = format!(r#"{{"jsonrpc":"2.0","id":"{id}","method":"status"}}"#);
    assert_eq!(code_of(&line).1, ErrorCode::InvalidRequest);
    let incoming = decode_request(b"\xff\xfe{}");
    assert_eq!(incoming.request.map_err(|failure| failure.code), Err(ErrorCode::ParseError));
    let (_, code, message) = code_of(&call(&"\\u001b[31m".repeat(99), "{}"));
    assert_eq!(code, ErrorCode::MethodNotFound);
    assert!(!message.contains('\u{1b}') && message.len() < 1_000, "{message}");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        decode_request(&bytes);
    }

    #[test]
    fn no_change_of_a_request_makes_it_panic(at in 0_usize..150, byte: u8) {
        let send = Send {
            peer: "bob".into(), body: Some("x".into()), body_base64: None, upload: None,
            subject: Some("s".into()), wait: Wait::Sent, timeout_ms: Some(1), key: Some("k".into()),
        };
        let mut line = Vec::new();
        encode_request(1, &Request::Send(send), &mut line);
        if let Some(slot) = line.get_mut(at) {
            *slot = byte;
        }
        decode_request(&line);
    }
}

#[test]
fn messages_that_are_shared_are_events_like_any_other() {
    let message = |cursor: u64| Message {
        cursor,
        id: "00ff".to_owned(),
        from: "dm1".to_owned(),
        alias: Some("bob".to_owned()),
        subject: None,
        sent: "2026-01-02T03:04:05Z".to_owned(),
        received: "2026-01-02T03:04:06Z".to_owned(),
        bytes: 3,
        body: Some("a\nb".to_owned()),
        body_base64: None,
    };
    let (mut shared, mut single) = (Vec::new(), Vec::new());
    let messages = [message(1), message(2)].into();
    encode_outgoing(&Outgoing::Messages { subscription: 7, messages }, &mut shared);
    for cursor in [1, 2] {
        let event = MessageEvent { subscription: 7, message: message(cursor) };
        encode_outgoing(&Outgoing::Event(Event::Message(event)), &mut single);
    }
    assert!(shared == single, "{}", String::from_utf8_lossy(&shared));
}
