//! Settings that change while a node runs.

use super::desk::{refused, send};
use super::*;
use crate::control::protocol::ErrorCode;
use crate::wire::decode_record;

/// What a node made by [`Lone::new`] runs on.
fn as_before() -> Changes {
    Changes {
        name: None,
        advertise: Vec::new(),
        links_auto: 0,
        limits: Limits::default(),
        listen: Vec::new(),
        interface: Vec::new(),
        warnings: Vec::new(),
    }
}

impl Lone {
    fn change(&mut self, changes: Changes) {
        self.input(Input::Changes(Box::new(changes)));
    }

    fn status(&mut self) -> crate::control::protocol::Status {
        self.told.clear();
        self.call(Request::Status {});
        match self.told.pop() {
            Some(ToClient::Reply { result: Ok(Reply::Status(status)), .. }) => *status,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn others_hear_of_a_new_name_or_address_and_of_nothing_else() {
    let mut node = Lone::new(1);
    let before = node.record.clone();
    let limits = Limits { links_max: 7, ..Limits::default() };
    node.change(Changes { links_auto: 3, limits, ..as_before() });
    assert_eq!(node.record, before, "nothing of it concerns others");
    let advertise = vec!["a.example:1".parse().expect("an address")];
    let name: Option<Name> = "ship".parse().ok();
    node.change(Changes { name: name.clone(), advertise: advertise.clone(), ..as_before() });
    let record = decode_record(node.record.clone()).expect("ours").record;
    assert_eq!((&record.name, &record.addresses), (&name, &advertise));
    let sequence = decode_record(before).expect("ours").record.sequence;
    assert!(record.sequence > sequence, "it counts as newer");
    assert_eq!(node.status().name.as_deref(), Some("ship"));
}

#[test]
fn links_that_are_up_stay_when_fewer_may_be_and_no_more_come() {
    let others: Vec<Lone> = (2..6).map(Lone::new).collect();
    let mut node = Lone::new(1);
    for (at, other) in others[..3].iter().enumerate() {
        node.link(other, at as u64, None);
    }
    let limits = Limits { links_max: 1, ..Limits::default() };
    node.change(Changes { limits, ..as_before() });
    assert_eq!(node.closed, [], "nobody who is there is sent away");
    let refused = node.link(&others[3], 9, None);
    assert_eq!(node.closed, [refused]);
    node.unlink(refused);
    node.change(as_before());
    node.link(&others[3], 10, None);
    assert_eq!(node.closed.len(), 1, "there is room again");
}

#[test]
fn an_outbox_that_shrinks_keeps_what_is_in_it_and_takes_no_more() {
    let mut node = Lone::new(1);
    [2, 3].into_iter().for_each(|to| send(&mut node, to));
    let limits = Limits { outbox_bytes_max: 1, ..Limits::default() };
    node.change(Changes { limits, ..as_before() });
    assert_eq!(node.status().outbox_messages, 2);
    send(&mut node, 4);
    assert_eq!(refused(&mut node), [ErrorCode::OutboxFull]);
    node.change(as_before());
    send(&mut node, 4);
    assert_eq!(refused(&mut node), []);
    assert_eq!(node.status().outbox_messages, 3);
    let limits = Limits { message_bytes_max: 0, ..Limits::default() };
    node.change(Changes { limits, ..as_before() });
    send(&mut node, 4);
    assert_eq!(refused(&mut node), [ErrorCode::TooLarge]);
}

#[test]
fn what_the_operator_should_know_is_told_until_it_is_over() {
    let mut node = Lone::new(1);
    let known = vec!["something".to_owned()];
    node.change(Changes { warnings: known.clone(), listen: vec!["x:1".into()], ..as_before() });
    assert_eq!((node.status().warnings, node.status().listen), (known, vec!["x:1".to_owned()]));
    node.input(Input::Warnings(Vec::new()));
    assert!(node.status().warnings.is_empty());
}

#[test]
fn links_of_our_own_choice_are_made_as_soon_as_they_are_wanted() {
    let mut bob = Lone::new(2);
    let advertise = vec!["192.0.2.2:3000".parse().expect("an address")];
    bob.change(Changes { advertise: advertise.clone(), ..as_before() });
    let mut node = Lone::new(1);
    let link = node.link(&bob, 1, None);
    node.unlink(link);
    node.wait(Span::from_secs(30));
    assert!(node.dials.is_empty(), "none is wanted");
    node.change(Changes { links_auto: 2, advertise, ..as_before() });
    node.wait(Span::from_secs(5));
    assert_eq!(node.dials.len(), 1);
}
