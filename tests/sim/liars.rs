//! What the only neighbour between two nodes achieves with a valid identity and altered envelopes.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use distmsg::model::{PeerId, Prekey, PrekeyId, SessionId, Span};
use distmsg::wire::{Envelope, Frame, Header, RejectReason, Tail};

use crate::rig::Side::{Alice, Bob};
use crate::rig::{Rig, Told};

/// Runs what must come to an end.
fn ends(what: &str, run: impl FnOnce() + Send + 'static) {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        run();
        let _ = sender.send(());
    });
    assert!(receiver.recv_timeout(Duration::from_secs(10)).is_ok(), "{what}: it never ends");
}

#[test]
fn a_neighbour_without_prekeys_does_not_hang_who_writes_to_it() {
    ends("a send to a neighbour whose record has no prekey", || {
        let mut rig = Rig::new();
        let enemy = rig.enemy.peer();
        rig.send_to(Alice, enemy, 1, b"hello");
    });
}

#[test]
fn a_neighbour_with_a_malformed_prekey_does_not_hang_who_writes_to_it() {
    ends("a send to a neighbour whose prekey is malformed", || {
        let mut rig = Rig::new();
        let enemy = rig.enemy.peer();
        let mut record = rig.own_record();
        record.sequence += 1;
        record.prekeys.push(Prekey {
            id: PrekeyId(1),
            expires: record.expires,
            public: Bytes::from(vec![0xff; Prekey::PUBLIC_LEN]),
        });
        rig.link_with(Alice, &record);
        rig.send_to(Alice, enemy, 1, b"hello");
    });
}

fn junk(rig: &mut Rig) -> Envelope {
    let header = Header {
        source: PeerId::from_bytes([77; 32]),
        destination: rig.peer(Bob),
        session: SessionId(rig.random.number()),
        counter: 0,
        commitment: rig.random.bytes(),
    };
    Envelope::new(header, 1, &Tail::encode(None, &[0; 64]))
}

fn reset_after(junk_per_second: usize) -> bool {
    let mut rig = Rig::new();
    rig.send(Alice, 1, b"one");
    rig.wait(Span::from_secs(1));
    assert_eq!(rig.told(Alice), [(1, Told::Delivered)]);
    rig.lose_sessions(Bob);
    rig.pass();
    for _ in 0..junk_per_second * 2 {
        let junk = junk(&mut rig);
        rig.say(Bob, &Frame::Envelope(junk));
        rig.wait(Span::from_micros(1_000_000 / junk_per_second as u64));
    }
    rig.send(Alice, 2, b"two");
    for _ in 0..60 {
        for _ in 0..junk_per_second {
            let junk = junk(&mut rig);
            rig.say(Bob, &Frame::Envelope(junk));
            rig.wait(Span::from_micros(1_000_000 / junk_per_second as u64));
        }
        if junk_per_second == 0 {
            rig.wait(Span::from_secs(1));
        }
    }
    rig.told(Alice).contains(&(2, Told::Delivered))
}

#[test]
fn without_junk_a_lost_session_is_reset() {
    assert!(reset_after(0));
}

#[test]
fn junk_without_any_signature_does_not_use_up_the_notices() {
    assert!(
        reset_after(400),
        "400 junk envelopes a second, and Bob never tells Alice of the reset"
    );
}

/// The enemy takes the opening out of envelopes and passes the answer on.
#[test]
fn resets_do_not_keep_a_message_from_being_flooded() {
    let mut rig = Rig::new();
    rig.send(Alice, 1, b"hello");
    let mut attempts = Vec::new();
    let mut kept: Vec<Envelope> = Vec::new();
    for _ in 0..20_000 {
        // It keeps Alice's envelopes; floods go another way and are not its to keep.
        let taken = rig.wait_but_keep(Span::from_millis(2), |side, frame| {
            side == Alice && matches!(frame, Frame::Envelope(_))
        });
        for frame in taken {
            if let Frame::Envelope(envelope) = frame {
                attempts.push(envelope.attempt);
                kept.push(envelope);
            }
        }
        // A second later, just before she tries another way, Bob gets it without its opening.
        if let Some(envelope) = kept.pop() {
            kept.clear();
            let taken = rig.wait_but_keep(Span::from_millis(1_000), |side, frame| {
                side == Alice && matches!(frame, Frame::Envelope(_))
            });
            attempts.extend(taken.iter().map(|frame| match frame {
                Frame::Envelope(envelope) => envelope.attempt,
                _ => 0,
            }));
            let tail = Tail::decode(envelope.tail.clone()).expect("a tail");
            let tail = Tail::encode(None, &tail.sealed);
            rig.say(Bob, &Frame::Envelope(Envelope::new(envelope.header, 1, &tail)));
        }
        if !rig.told(Alice).is_empty() {
            break;
        }
    }
    assert_eq!(rig.told(Alice), [(1, Told::Delivered)], "attempts: {attempts:?}");
}

#[test]
fn a_recipient_that_rejects_everything_is_not_sent_the_same_for_ever_at_once() {
    let mut rig = Rig::new();
    // The enemy has a good record: Bob's prekey will do.
    let enemy = rig.enemy.peer();
    let mut record = rig.own_record();
    record.sequence += 1;
    record.prekeys = rig.record(Bob).prekeys;
    rig.link_with(Alice, &record);
    rig.heard(Alice);
    rig.send_to(Alice, enemy, 1, b"hello");
    let mut sent = 0;
    for _ in 0..2_000 {
        for frame in rig.heard(Alice) {
            if let Frame::Envelope(envelope) = frame {
                sent += 1;
                let reject = Frame::Reject { key: envelope.key(), reason: RejectReason::NoRoute };
                rig.say(Alice, &reject);
            }
        }
    }
    assert!(sent < 50, "{sent} attempts in no time");
}
