//! Messages that are handed in.

use super::*;
use crate::control::SendRequest;
use crate::control::protocol::{ErrorCode, Wait};

pub(super) fn send(node: &mut Lone, to: u8) {
    let request = SendRequest {
        peer: PeerId::from_bytes([to; 32]).to_string(),
        body: Bytes::from_static(b"x"),
        subject: None,
        wait: Wait::Queued,
        timeout_ms: None,
        key: None,
    };
    let calls = vec![(RequestId::Number(i64::from(to)), Call::Send(request))];
    node.input(Input::Calls { client: ClientId(1), calls });
}

/// Those that were refused, by the kind of reason.
pub(super) fn refused(node: &mut Lone) -> Vec<ErrorCode> {
    let told = node.told.drain(..);
    let failures = told.filter_map(|told| match told {
        ToClient::Reply { result, .. } => result.err(),
        _ => None,
    });
    failures.map(|failure| failure.code).collect()
}

#[test]
fn messages_wait_for_so_many_peers_and_no_number_is_given_twice() {
    let mut node = Lone::new(1);
    node.core.desk.recipients_max = 3;
    [1, 2, 2, 2, 3].into_iter().for_each(|to| send(&mut node, to));
    assert_eq!(refused(&mut node), []);
    send(&mut node, 4);
    assert_eq!(refused(&mut node), [ErrorCode::OutboxFull], "a fourth peer");
    send(&mut node, 3);
    assert_eq!(refused(&mut node), [], "one of the three");
    // They expire, and nothing is on its way to anybody.
    node.wait(Span::from_secs(8 * 86_400));
    send(&mut node, 4);
    send(&mut node, 2);
    assert_eq!(refused(&mut node), []);
    let numbers_of = |to: u8| {
        let peer = PeerId::from_bytes([to; 32]);
        let queued = node.disk.queued.iter().filter(move |(of, _)| *of == peer);
        queued.map(|(_, sequence)| sequence.0).collect::<Vec<_>>()
    };
    assert_eq!(numbers_of(4), [4], "above all that were given to those that went");
    assert_eq!(numbers_of(2), [1, 2, 3, 4]);
}
