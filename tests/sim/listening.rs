//! What clients that listen are given.

use std::collections::BTreeSet;

use crate::rig::{Rig, Side};

#[test]
fn a_message_is_given_to_one_client_of_a_listener_at_a_time() {
    let mut rig = Rig::new();
    rig.listen(Side::Bob, 11, "worker", 4);
    rig.listen(Side::Bob, 12, "worker", 4);
    for number in 1..=8 {
        rig.send(Side::Alice, number, b"work");
        rig.pass();
    }
    let given = rig.given(Side::Bob);
    let messages: BTreeSet<u64> = given.iter().map(|(_, message)| *message).collect();
    let clients: BTreeSet<_> = given.iter().map(|(client, _)| *client).collect();
    assert_eq!(given.len(), messages.len(), "some went to both: {given:?}");
    assert_eq!((messages.len(), clients.len()), (8, 2), "{given:?}");
}
