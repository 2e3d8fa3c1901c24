//! Lines from a client, and what it is told of those that are none.

use distmsg::control::RequestId;
use distmsg::control::codec::{decode_request, encode_failure, encode_request};
use distmsg::control::protocol::Failure;
use serde_json::Value;

/// Bytes of a line about a client's mistake: it repeats some of it, not all.
const FAILURE_BYTES_MAX: usize = 4 * 1024;

/// One line.
pub(crate) fn request(input: &[u8]) {
    let incoming = decode_request(input);
    match incoming.request {
        Ok(request) => {
            assert!(incoming.id.is_some(), "nobody would hear of {request:?}");
            let mut line = Vec::new();
            encode_request(7, &request, &mut line);
            assert_eq!(line.pop(), Some(b'\n'));
            assert!(!line.contains(&b'\n'), "two lines");
            let again = decode_request(&line);
            assert_eq!(again.id, Some(RequestId::Number(7)));
            assert_eq!(again.request.as_ref(), Ok(&request));
        }
        Err(failure) => refused(incoming.id.as_ref(), &failure),
    }
}

fn refused(id: Option<&RequestId>, failure: &Failure) {
    assert!(!failure.message.is_empty());
    let control = failure.message.chars().find(|character| character.is_control());
    assert_eq!(control, None, "{:?}", failure.message);
    let mut line = Vec::new();
    encode_failure(id, failure, &mut line);
    assert!(line.len() <= FAILURE_BYTES_MAX, "{} bytes about a mistake", line.len());
    assert_eq!(line.pop(), Some(b'\n'));
    assert!(!line.contains(&b'\n'), "two lines");
    let read: Value = serde_json::from_slice(&line).expect("a failure is JSON");
    assert_eq!(read["error"]["message"], failure.message);
    match id {
        None => assert_eq!(read["id"], Value::Null),
        Some(RequestId::Number(number)) => assert_eq!(read["id"], *number),
        Some(RequestId::Text(text)) => assert_eq!(read["id"], **text),
    }
}
