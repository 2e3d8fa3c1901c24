//! An enemy with a valid identity of its own, as the only neighbour of two nodes: what it alters,
//! invents, repeats or keeps back is refused, and what it lets pass afterwards still arrives.

use bytes::Bytes;
use distmsg::control::protocol::Peer;
use distmsg::crypto::{Domain, commitment_of};
use distmsg::model::{Address, PrekeyId, Span};
use distmsg::wire::{
    CloseReason, Digest, Envelope, Find, Flood, Found, Frame, Notice, NoticeKind, Tail,
};

use crate::rig::Side::{Alice, Bob};
use crate::rig::{Forgery, Rig, Side, Told};

/// Every purpose of a signature but the opening of a session.
const OTHER_DOMAINS: [Domain; 5] =
    [Domain::Record, Domain::Find, Domain::Found, Domain::Flood, Domain::Notice];

const TRUE: &[u8] = b"true words";

fn is_envelope(_: Side, frame: &Frame) -> bool {
    matches!(frame, Frame::Envelope(_) | Frame::Flood(_))
}

fn is_receipt(_: Side, frame: &Frame) -> bool {
    matches!(frame, Frame::Receipt { .. })
}

/// Bob was given something false: he neither keeps it nor proves that he did.
#[track_caller]
fn refuses(rig: &mut Rig, envelope: Envelope, what: &str) {
    let before = rig.inbox(Bob).len();
    rig.say(Bob, &Frame::Envelope(envelope));
    let heard = rig.heard(Bob);
    let receipted = heard.iter().any(|frame| matches!(frame, Frame::Receipt { .. }));
    assert!(!receipted, "{what} is receipted");
    assert_eq!(rig.inbox(Bob).len(), before, "{what} is in the inbox");
    assert!(!rig.holds_back(Bob), "{what} is kept");
}

/// An envelope with one byte of its encoding changed, if that is still an envelope.
fn altered(envelope: &Envelope, at: usize) -> Option<Envelope> {
    let mut bytes = envelope.encoded.to_vec();
    *bytes.get_mut(at)? ^= 1;
    match Frame::decode(bytes.into()) {
        Ok(Frame::Envelope(envelope)) => Some(envelope),
        _ => None,
    }
}

#[test]
fn the_rig_carries_messages_and_an_honest_neighbours_own() {
    let mut rig = Rig::new();
    rig.send(Alice, 1, TRUE);
    rig.wait(Span::from_secs(1));
    assert_eq!(rig.told(Alice), [(1, Told::Delivered)]);
    let envelope = rig.forge(Bob, &Forgery::default());
    rig.say(Bob, &Frame::Envelope(envelope));
    let receipted = rig.heard(Bob).iter().any(|frame| matches!(frame, Frame::Receipt { .. }));
    assert!(receipted, "an envelope of the rig's own making is good");
    let inbox = [(rig.peer(Alice), TRUE.into()), (rig.enemy.peer(), b"forged"[..].into())];
    assert_eq!(rig.inbox(Bob), inbox);
}

#[test]
fn a_tampered_envelope_is_refused_wherever_it_was_altered() {
    let mut rig = Rig::new();
    let envelope = rig.intercept(Alice, 1, TRUE);
    let tail_at = envelope.encoded.len() - envelope.tail.len();
    // Attempt and what is before it is the way's business; everything from the source on is bound.
    // Of the opening, a sample; of the rest, every byte.
    let opening_end = tail_at + 1 + 4 + 1120 + 64;
    let of_opening = (tail_at + 1..opening_end).step_by(37);
    let places = (4..=tail_at).chain(of_opening).chain(opening_end..envelope.encoded.len());
    for (turn, at) in places.enumerate() {
        let Some(altered) = altered(&envelope, at) else { continue };
        refuses(&mut rig, altered, &format!("an envelope altered at byte {at}"));
        // Bob's patience with strangers' openings is a hundred a second.
        if turn % 50 == 0 {
            rig.wait_but(Span::from_secs(1), is_envelope);
        }
    }
    for cut in [1, 16, 100] {
        let shorter = envelope.tail.slice(..envelope.tail.len() - cut);
        let envelope = Envelope::new(envelope.header, 1, &shorter);
        refuses(&mut rig, envelope, &format!("an envelope that lacks {cut} bytes"));
    }
    assert_eq!(rig.told(Alice), [], "nothing is delivered yet");
    rig.say(Bob, &Frame::Envelope(envelope));
    rig.pass();
    assert_eq!(rig.inbox(Bob), [(rig.peer(Alice), TRUE.into())]);
    assert_eq!(rig.told(Alice), [(1, Told::Delivered)]);
}

#[test]
fn a_replayed_envelope_is_never_stored_twice() {
    let mut rig = Rig::new();
    let first = rig.intercept(Alice, 1, TRUE);
    rig.say(Bob, &Frame::Envelope(first.clone()));
    rig.pass();
    // Without an opening: the session is established.
    let second = rig.intercept(Alice, 2, b"more");
    rig.say(Bob, &Frame::Envelope(second.clone()));
    rig.pass();
    assert_eq!(rig.told(Alice), [(1, Told::Delivered), (2, Told::Delivered)]);
    assert!(Tail::decode(second.tail.clone()).expect("a tail").opening.is_none());
    let replay = |rig: &mut Rig| {
        for envelope in [&first, &second] {
            rig.say(Bob, &Frame::Envelope(envelope.clone()));
            rig.say(Bob, &Frame::Envelope(envelope.with_attempt(9)));
        }
        // The disk fails if a message comes twice.
        assert_eq!(rig.inbox(Bob).len(), 2);
        rig.heard(Bob)
    };
    replay(&mut rig);
    rig.restart(Bob);
    let heard = replay(&mut rig);
    let receipts = heard.iter().filter(|frame| matches!(frame, Frame::Receipt { .. })).count();
    assert!(receipts >= 2, "what is there is receipted again: {heard:?}");
    // The sessions are forgotten, the prekey is not.
    rig.skip(Span::from_secs(3 * 86_400));
    replay(&mut rig);
    rig.restart(Bob);
    replay(&mut rig);
    // The prekey is erased as well.
    rig.skip(Span::from_secs(6 * 86_400));
    rig.restart(Bob);
    let heard = replay(&mut rig);
    assert!(!heard.iter().any(|frame| matches!(frame, Frame::Receipt { .. })), "{heard:?}");
    assert_eq!(rig.inbox(Alice), []);
}

#[test]
fn a_spoofed_sender_is_refused() {
    let mut rig = Rig::new();
    let alice = rig.peer(Alice);
    let genuine = rig.intercept(Alice, 1, TRUE);
    let spoofed = rig.forge(Bob, &Forgery { source: Some(alice), ..Forgery::default() });
    refuses(&mut rig, spoofed, "an opening in alice's name, signed by the enemy");
    // In a session that exists, too.
    rig.say(Bob, &Frame::Envelope(genuine));
    rig.pass();
    let mut spoofed = rig.forge(Bob, &Forgery::default());
    spoofed.header.source = alice;
    let spoofed = Envelope::new(spoofed.header, 1, &spoofed.tail);
    refuses(&mut rig, spoofed, "the enemy's envelope under alice's name");
    let genuine = rig.intercept(Alice, 2, b"more");
    let mut spoofed = rig.forge(Bob, &Forgery::default());
    spoofed.header = distmsg::wire::Header { counter: 9, ..genuine.header };
    let sealed = Tail::decode(spoofed.tail.clone()).expect("a tail").sealed;
    let spoofed = Envelope::new(spoofed.header, 1, &Tail::encode(None, &sealed));
    refuses(&mut rig, spoofed, "an envelope in alice's session, sealed by the enemy");
    rig.say(Bob, &Frame::Envelope(genuine));
    rig.pass();
    assert_eq!(rig.inbox(Bob), [(alice, TRUE.into()), (alice, b"more"[..].into())]);
}

#[test]
fn anothers_envelope_cannot_be_made_ones_own() {
    let mut rig = Rig::new();
    let genuine = rig.intercept(Alice, 1, TRUE);
    let tail = Tail::decode(genuine.tail.clone()).expect("a tail");
    let mut opening = tail.opening.expect("the first envelope opens the session");
    let mut header = genuine.header;
    header.source = rig.enemy.peer();
    let context = distmsg::crypto::SessionContext {
        sender: header.source,
        recipient: header.destination,
        session: header.session,
        prekey: opening.prekey,
    };
    let signed: [&[u8]; 2] = [&context.to_bytes(), &opening.encapsulation];
    opening.signature = rig.enemy.sign(Domain::Opening, &signed);
    let resigned = Envelope::new(header, 1, &Tail::encode(Some(&opening), &tail.sealed));
    refuses(&mut rig, resigned, "alice's words, signed by the enemy");
    // Alice's words are not hindered by it.
    rig.say(Bob, &Frame::Envelope(genuine));
    rig.pass();
    assert_eq!(rig.inbox(Bob), [(rig.peer(Alice), TRUE.into())]);
    assert_eq!(rig.told(Alice), [(1, Told::Delivered)]);
}

#[test]
fn a_signature_for_one_purpose_does_not_open_a_session() {
    let mut rig = Rig::new();
    for domain in OTHER_DOMAINS {
        let forged = rig.forge(Bob, &Forgery { domain: Some(domain), ..Forgery::default() });
        refuses(&mut rig, forged, &format!("an opening signed as {domain:?}"));
    }
    let commitment = Some(commitment_of(&[7; 32]));
    let forged = rig.forge(Bob, &Forgery { commitment, ..Forgery::default() });
    refuses(&mut rig, forged, "a commitment that no receipt will match");
}

#[test]
fn an_opening_to_an_unknown_prekey_is_answered_with_a_reset() {
    let mut rig = Rig::new();
    let mut prekey = rig.record(Bob).prekeys[0].clone();
    prekey.id = PrekeyId(prekey.id.0 ^ 1);
    let forged = rig.forge(Bob, &Forgery { prekey: Some(prekey), ..Forgery::default() });
    let header = forged.header;
    rig.say(Bob, &Frame::Envelope(forged));
    let heard = rig.heard(Bob);
    let reset = heard.iter().find_map(|frame| match frame {
        Frame::Notice(notice) if notice.kind == NoticeKind::Reset => Some(*notice),
        _ => None,
    });
    let notice = reset.expect("bob says that he does not know the prekey");
    let signed = Notice::to_sign(NoticeKind::Reset, &header);
    let bob = rig.peer(Bob);
    assert!(distmsg::crypto::verify(&bob, Domain::Notice, &[&signed], &notice.signature));
    assert_eq!(rig.inbox(Bob), []);
}

#[test]
fn a_recipient_that_lost_everything_is_written_to_anew() {
    let mut rig = Rig::new();
    rig.send(Alice, 1, TRUE);
    rig.wait(Span::from_secs(1));
    rig.lose_state(Bob);
    rig.send(Alice, 2, b"after the loss");
    rig.wait(Span::from_secs(20));
    assert_eq!(rig.told(Alice), [(1, Told::Delivered), (2, Told::Delivered)]);
    assert_eq!(rig.inbox(Bob), [(rig.peer(Alice), b"after the loss"[..].into())]);
}

#[test]
fn a_prekey_that_expired_is_replaced_before_it_is_used() {
    let mut rig = Rig::new();
    rig.send(Alice, 1, TRUE);
    rig.wait(Span::from_secs(1));
    // Bob's prekey of that day is erased, alice's session with it is over.
    rig.skip(Span::from_secs(9 * 86_400));
    rig.send(Alice, 2, b"nine days later");
    rig.wait(Span::from_secs(20));
    assert_eq!(rig.told(Alice), [(1, Told::Delivered), (2, Told::Delivered)]);
}

#[test]
fn a_forged_receipt_is_no_delivery() {
    let mut rig = Rig::new();
    rig.send(Alice, 1, TRUE);
    let old = rig.pass_but(is_receipt);
    let Some(Frame::Receipt { preimage: old }) = old.first() else { panic!("no receipt") };
    rig.say(Alice, &Frame::Receipt { preimage: *old });
    assert_eq!(rig.told(Alice), [(1, Told::Delivered)]);
    let envelope = rig.intercept(Alice, 2, b"kept back");
    let own = rig.forge(Bob, &Forgery::default());
    rig.say(Bob, &Frame::Envelope(own));
    let of_own = rig.heard(Bob).into_iter().find(|frame| matches!(frame, Frame::Receipt { .. }));
    let commitment = envelope.header.commitment;
    for preimage in [commitment, [0; 32], commitment_of(&commitment), *old] {
        rig.say(Alice, &Frame::Receipt { preimage });
    }
    rig.say(Alice, &of_own.expect("the enemy's own envelope is receipted"));
    assert_eq!(rig.told(Alice).len(), 1, "a receipt was believed that bob did not give");
    assert_eq!(rig.outbox_len(Alice), 1);
    // What is kept back is never delivered, whatever time passes; what is let pass is.
    rig.wait_but(Span::from_secs(70), is_envelope);
    assert_eq!(rig.told(Alice), [(1, Told::Delivered), (2, Told::NotDelivered)]);
    assert_eq!(rig.outbox_len(Alice), 1);
    rig.wait(Span::from_secs(120));
    assert_eq!(rig.outbox_len(Alice), 0, "still queued");
    let bodies: Vec<Bytes> = rig.inbox(Bob).into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies, [TRUE, b"forged", b"kept back"]);
}

#[test]
fn a_forged_notice_makes_nobody_give_up() {
    let mut rig = Rig::new();
    let envelope = rig.intercept(Alice, 1, TRUE);
    let (header, commitment) = (envelope.header, envelope.header.commitment);
    for kind in [NoticeKind::TooLarge, NoticeKind::Full, NoticeKind::Reset] {
        let signed = Notice::to_sign(kind, &header);
        let mut signatures = vec![rig.enemy.sign(Domain::Notice, &[&signed]), [0; 64]];
        // Alice's own signature over something else.
        signatures.push(
            Tail::decode(envelope.tail.clone())
                .map_or([1; 64], |tail| tail.opening.map_or([2; 64], |opening| opening.signature)),
        );
        for signature in signatures {
            rig.say(Alice, &Frame::Notice(Notice { kind, commitment, signature }));
        }
    }
    // Bob's true word on another envelope.
    let mut prekey = rig.record(Bob).prekeys[0].clone();
    prekey.id = PrekeyId(prekey.id.0 ^ 1);
    let other = rig.forge(Bob, &Forgery { prekey: Some(prekey), ..Forgery::default() });
    rig.say(Bob, &Frame::Envelope(other));
    for frame in rig.heard(Bob) {
        if let Frame::Notice(notice) = frame {
            rig.say(Alice, &Frame::Notice(Notice { commitment, ..notice }));
        }
    }
    assert_eq!(rig.told(Alice), []);
    assert_eq!(rig.outbox_len(Alice), 1, "given up for a word that is not bob's");
    rig.say(Bob, &Frame::Envelope(envelope));
    rig.pass();
    assert_eq!(rig.told(Alice), [(1, Told::Delivered)], "the session was not given up either");
}

/// Alice's entry for bob.
fn entry_of_bob(rig: &mut Rig) -> Peer {
    let bob = rig.peer(Bob).to_string();
    let table = rig.table(Alice);
    table.into_iter().find(|peer| peer.peer == bob).expect("alice knows bob")
}

/// Records of bob that are not his, each newer than what he made.
fn forged_records(rig: &mut Rig) -> Vec<(Bytes, &'static str)> {
    let mut record = rig.record(Bob);
    let genuine = rig.record_bytes(Bob);
    record.sequence += 1_000;
    record.addresses = vec![Address::new("10.6.6.6", 666).expect("an address")];
    record.prekeys[0].public = Bytes::from(vec![6; record.prekeys[0].public.len()]);
    let mut patched = genuine.to_vec();
    // The last byte of the sequence: version, network and peer stand before it.
    patched[1 + 16 + 32 + 6] += 1;
    let mut forged = vec![
        (rig.signed_record(&record), "signed by the enemy"),
        (patched.into(), "with its sequence altered"),
    ];
    let transplanted = [&distmsg::wire::encode_record(&record)[..], &genuine[genuine.len() - 64..]];
    forged.push((transplanted.concat().into(), "with an older one's signature"));
    forged
}

#[test]
fn a_forged_record_changes_no_table() {
    let mut rig = Rig::new();
    let before = entry_of_bob(&mut rig);
    let bob = rig.peer(Bob);
    for (record, what) in forged_records(&mut rig) {
        let sequence = rig.record(Bob).sequence + 1_000_000;
        let sequence = sequence.min(rig.now().wall.as_millis() + 60_000);
        let digests = vec![Digest { peer: bob, sequence }];
        rig.say(Alice, &Frame::Digests { exchange: 0, more: false, digests });
        let asked = rig.heard(Alice).into_iter().any(|frame| match frame {
            Frame::RecordRequest { peers } => peers.contains(&bob),
            _ => false,
        });
        assert!(asked, "alice asks for what is said to be newer");
        rig.say(Alice, &Frame::Records { records: vec![record.clone()] });
        assert_eq!(entry_of_bob(&mut rig), before, "a record {what}, as an answer");
        // As a find's origin.
        let expires = rig.now().wall + Span::from_secs(60);
        let signed = Find::to_sign(false, 5, &rig.peer(Alice), expires, &record);
        let signature = rig.enemy.sign(Domain::Find, &[&signed]);
        let find = Find::encode(&signed, &signature, 0);
        rig.say(Alice, &Frame::decode(find).expect("a find"));
        assert_eq!(entry_of_bob(&mut rig), before, "a record {what}, in a find");
        rig.wait(Span::from_secs(1));
        assert_eq!(entry_of_bob(&mut rig), before, "a record {what}, a second later");
        assert_eq!(rig.closed(Alice), None);
    }
    rig.send(Alice, 1, TRUE);
    rig.wait(Span::from_secs(1));
    assert_eq!(rig.told(Alice), [(1, Told::Delivered)]);
}

#[test]
fn a_forged_answer_to_a_find_is_not_believed() {
    let mut rig = Rig::new();
    // Alice looks for bob anew: with him in her table and no way, she asks.
    rig.send(Alice, 1, TRUE);
    let heard = rig.heard(Alice);
    let find = heard.into_iter().find_map(|frame| match frame {
        Frame::Find(find) => Some(find),
        _ => None,
    });
    let find = find.expect("alice asks for the way");
    let (alice, bob) = (rig.peer(Alice), rig.peer(Bob));
    assert_eq!(find.target, bob);
    let before = entry_of_bob(&mut rig);
    for (record, what) in forged_records(&mut rig) {
        for direct in [false, true] {
            let signed = Found::to_sign(direct, &alice, find.nonce, &record);
            let signature = match direct {
                true => rig.enemy.sign(Domain::Found, &[&signed]),
                false => [0; 64],
            };
            let found = Found::encode(&signed, &signature, 1);
            rig.say(Alice, &Frame::decode(found).expect("a found"));
            assert_eq!(entry_of_bob(&mut rig), before, "a record {what}");
        }
    }
    // The true record, but not bob's own answer.
    let record = rig.record_bytes(Bob);
    let signed = Found::to_sign(true, &alice, find.nonce, &record);
    let signature = rig.enemy.sign(Domain::Found, &[&signed]);
    let found = Found::encode(&signed, &signature, 0);
    rig.say(Alice, &Frame::decode(found).expect("a found"));
    let heard = rig.heard(Alice);
    let sent = heard.iter().any(|frame| matches!(frame, Frame::Envelope(_)));
    assert!(!sent, "alice takes the enemy's signature for bob's");
    rig.say(Bob, &Frame::Find(find));
    rig.wait(Span::from_secs(1));
    assert_eq!(rig.told(Alice), [(1, Told::Delivered)]);
}

#[test]
fn a_spoofed_flood_is_refused_and_its_bringer_with_it() {
    let mut rig = Rig::new();
    let alice = rig.peer(Alice);
    let flood_of = |rig: &mut Rig, envelope: &Envelope| {
        let expires = rig.now().wall + Span::from_secs(60);
        let signed = Flood::to_sign(envelope, expires).remove(0);
        let signature = rig.enemy.sign(Domain::Flood, &[&signed]);
        Frame::decode(Flood::encode(&signed, &signature)).expect("a flood")
    };
    let own = rig.forge(Bob, &Forgery::default());
    let own = flood_of(&mut rig, &own);
    rig.say(Bob, &own);
    assert_eq!(rig.inbox(Bob).len(), 1, "the enemy may flood what is its own");
    let genuine = rig.intercept(Alice, 1, TRUE);
    let spoofed = rig.forge(Bob, &Forgery { source: Some(alice), ..Forgery::default() });
    for attempt in 1..50 {
        if rig.closed(Bob).is_some() {
            break;
        }
        let flood = flood_of(&mut rig, &spoofed.with_attempt(attempt));
        rig.say(Bob, &flood);
        // Alice's true words under the enemy's signature: floods prove who began them.
        let flood = flood_of(&mut rig, &genuine.with_attempt(attempt));
        rig.say(Bob, &flood);
    }
    assert_eq!(rig.inbox(Bob).len(), 1, "a flood was taken that its source did not sign");
    let (reason, text) = rig.closed(Bob).expect("a liar's link is ended");
    assert_eq!(*reason, CloseReason::Protocol);
    assert!(text.contains("signatures that do not hold"), "{text}");
    rig.link(Bob);
    rig.heard(Bob);
    rig.wait(Span::from_secs(90));
    assert_eq!(rig.inbox(Bob).len(), 2, "alice's words arrive in the end");
}
