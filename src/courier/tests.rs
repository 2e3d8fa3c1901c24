//! Two couriers, hand to hand, and somebody in between.

mod clocks;
mod hostile;
mod queues;

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::crypto::{Domain, SessionContext, commitment_of, message_id};
use crate::model::limits::CHUNK_BYTES;
use crate::model::{Incarnation, NetworkId, Record, Sequence, Uid, WhyGivenUp};
use crate::wire::{Opening, Tail};

const START_MS: u64 = 1_700_000_000_000;

/// One courier with what it has stored.
struct End {
    courier: Courier,
    identity: Arc<Identity>,
    limits: Limits,
    now: Now,
    rows: Vec<Change>,
    out: Vec<Output>,
    last_row: u64,
    /// How long what it queues may wait.
    lifetime: Span,
}

impl End {
    fn new(seed: u8) -> Self {
        Self::with_limits(seed, Limits::default())
    }

    fn with_limits(seed: u8, limits: Limits) -> Self {
        let identity = Arc::new(Identity::from_seed(&[seed; 32]));
        let now =
            Now { mono: Monotonic::from_micros(1_000_000), wall: Timestamp::from_millis(START_MS) };
        let random = Random::from_seed([seed; 32]);
        let courier = Courier::new(Arc::clone(&identity), &limits, Stored::default(), now, random);
        let (rows, out, last_row) = (Vec::new(), Vec::new(), 0);
        let lifetime = Span::from_secs(3_600);
        let mut end = Self { courier, identity, limits, now, rows, out, last_row, lifetime };
        end.settle();
        end
    }

    fn peer(&self) -> PeerId {
        self.identity.peer()
    }

    fn record(&self) -> SignedRecord {
        let record = Record {
            network: NetworkId::OPEN,
            peer: self.peer(),
            sequence: 1,
            expires: self.now.wall + Span::from_secs(86_400),
            name: None,
            addresses: Vec::new(),
            prekeys: self.courier.prekeys(),
        };
        SignedRecord { record, bytes: Bytes::new() }
    }

    fn handle(&mut self, input: Input) {
        self.courier.handle(self.now, input);
        self.collect();
    }

    fn collect(&mut self) {
        self.courier.flush(self.now);
        while let Some(output) = self.courier.poll_output() {
            self.out.push(output);
        }
    }

    /// Stores whatever there is to store, until there is nothing more.
    fn settle(&mut self) {
        self.collect();
        while let Some(at) = self
            .out
            .iter()
            .position(|output| matches!(output, Output::Store(_) | Output::StorePrekeys(_)))
        {
            match self.out.remove(at) {
                Output::Store(changes) => {
                    let kept_windows = self.needed_windows(&changes);
                    self.rows.extend(changes);
                    self.handle(Input::Stored { kept_windows });
                }
                Output::StorePrekeys(changes) => self.rows.extend(changes),
                _ => unreachable!("only these were looked for"),
            }
        }
    }

    /// The windows that changes would drop although messages of their run are in the inbox, from
    /// which nothing goes here.
    fn needed_windows(&self, changes: &[Change]) -> Vec<(PeerId, Incarnation)> {
        let has_any_of = |run: &(PeerId, Incarnation)| {
            self.rows.iter().any(|change| match change {
                Change::Deliver(message) => (message.key.sender, message.key.incarnation) == *run,
                _ => false,
            })
        };
        let dropped = changes.iter().filter_map(|change| match change {
            Change::DropWindow { sender, incarnation } => Some((*sender, *incarnation)),
            _ => None,
        });
        dropped.filter(has_any_of).collect()
    }

    /// Lets time pass until what is due is done.
    fn wait(&mut self, span: Span) {
        self.now.mono = self.now.mono + span;
        self.now.wall = self.now.wall + span;
        self.courier.tick(self.now);
        self.collect();
    }

    /// Stops and starts with what was stored and nothing else.
    fn restart(&mut self) {
        let mut stored = Stored::default();
        for change in &self.rows {
            match change {
                Change::Prekey(row) => stored.prekeys.push((**row).clone()),
                Change::Session(row) => stored.sessions.push((**row).clone()),
                Change::Window(row) => {
                    let other = |known: &WindowRow| {
                        (known.sender, known.incarnation) != (row.sender, row.incarnation)
                    };
                    stored.windows.retain(other);
                    stored.windows.push((**row).clone());
                }
                Change::Deliver(message) => stored.last_cursor = message.cursor,
                Change::Release { cursor, .. } => stored.last_cursor = *cursor,
                _ => {}
            }
        }
        let random = Random::from_seed([99; 32]);
        let identity = Arc::clone(&self.identity);
        self.courier = Courier::new(identity, &self.limits, stored, self.now, random);
        self.out.clear();
    }

    /// Queues a message.
    fn queue(&mut self, recipient: PeerId, body: &[u8]) {
        self.last_row += 1;
        let (incarnation, sequence) = (Incarnation(7), Sequence(self.last_row));
        let uid = Uid { sender: self.peer(), recipient, incarnation, sequence };
        let message = Outgoing {
            row: Row(self.last_row),
            id: message_id(&uid),
            recipient,
            incarnation,
            sequence,
            queued: self.now.wall,
            expires: self.now.wall + self.lifetime,
            subject: None,
            key: None,
            body: Bytes::copy_from_slice(body),
        };
        self.handle(Input::Queued(vec![message]));
    }

    /// Answers searches with a record.
    fn located(&mut self, record: &SignedRecord) {
        self.out.retain(|output| !matches!(output, Output::Locate { .. }));
        self.handle(Input::Located(record.clone()));
    }

    /// Envelopes it wants carried.
    fn sent(&mut self) -> Vec<Envelope> {
        let (mut sent, mut rest) = (Vec::new(), Vec::new());
        for output in self.out.drain(..) {
            match output {
                Output::Send { envelope, .. } | Output::Flood(envelope) => sent.push(envelope),
                other => rest.push(other),
            }
        }
        self.out = rest;
        sent
    }

    fn bodies(&self) -> Vec<Vec<u8>> {
        let mut bodies = Vec::new();
        for output in &self.out {
            let Output::Arrived(arrivals) = output else { continue };
            for arrival in arrivals {
                bodies.extend(arrival.message.as_ref().map(|message| message.body.to_vec()));
            }
        }
        bodies
    }

    fn reveals(&self) -> Vec<[u8; 32]> {
        let preimage = |output: &Output| match output {
            Output::Reveal { preimage } => Some(*preimage),
            _ => None,
        };
        self.out.iter().filter_map(preimage).collect()
    }

    fn notices(&self) -> Vec<NoticeKind> {
        let kind = |output: &Output| match output {
            Output::Notify { kind, .. } => Some(*kind),
            _ => None,
        };
        self.out.iter().filter_map(kind).collect()
    }

    fn given_up(&self) -> Vec<(Row, WhyGivenUp)> {
        let mut given_up = Vec::new();
        for output in &self.out {
            let Output::GivenUp(messages) = output else { continue };
            given_up.extend(messages.iter().map(|message| (message.row, message.why)));
        }
        given_up
    }

    fn delivered(&self) -> Vec<Row> {
        let rows = |output: &Output| match output {
            Output::Delivered { rows, .. } => Some(rows.clone()),
            _ => None,
        };
        self.out.iter().filter_map(rows).flatten().collect()
    }
}

/// A sender that has one message for a recipient under seal.
fn sealed(body: &[u8]) -> (End, End, Envelope) {
    let (mut alice, bob) = (End::new(1), End::new(2));
    alice.queue(bob.peer(), body);
    alice.located(&bob.record());
    let envelope = alice.sent().pop().expect("an envelope");
    (alice, bob, envelope)
}

/// An envelope as a neighbour brings it that nobody vouches for, from a sender like that.
fn delivery(envelope: Envelope) -> Input {
    let via = Identity::from_seed(&[99; 32]).peer();
    Input::Envelope(Delivery { envelope, via, via_vouched: false, vouched: false })
}

/// The same from a sender that the operator knows.
fn vouched_delivery(envelope: Envelope) -> Input {
    let via = Identity::from_seed(&[99; 32]).peer();
    Input::Envelope(Delivery { envelope, via, via_vouched: false, vouched: true })
}

fn receive(end: &mut End, envelope: &Envelope) {
    end.handle(delivery(envelope.clone()));
    end.settle();
}

/// The same envelope with another header, its tail untouched.
fn with_header(envelope: &Envelope, change: impl FnOnce(&mut Header)) -> Envelope {
    let mut header = envelope.header;
    change(&mut header);
    Envelope::new(header, envelope.attempt, &envelope.tail)
}

#[test]
fn a_receipt_comes_after_the_store_and_ends_the_delivery() {
    let (mut alice, mut bob, envelope) = sealed(b"hello");
    bob.handle(delivery(envelope.clone()));
    assert!(bob.reveals().is_empty() && bob.bodies().is_empty(), "nothing is on disk yet");
    bob.settle();
    assert_eq!(bob.bodies(), [b"hello"]);
    let reveals = bob.reveals();
    assert_eq!(reveals.len(), 1);
    assert_eq!(commitment_of(&reveals[0]), envelope.header.commitment);
    alice.handle(Input::Receipt { commitment: envelope.header.commitment });
    assert_eq!(alice.delivered(), [Row(1)]);
    alice.out.clear();
    alice.handle(Input::Receipt { commitment: envelope.header.commitment });
    assert!(alice.delivered().is_empty(), "once is enough");
}

#[test]
fn a_forged_receipt_delivers_nothing() {
    let (mut alice, _, envelope) = sealed(b"hello");
    let mut commitment = envelope.header.commitment;
    commitment[0] ^= 1;
    alice.handle(Input::Receipt { commitment });
    assert!(alice.delivered().is_empty());
}

#[test]
fn no_change_to_an_envelope_goes_unnoticed() {
    let (_, mut bob, envelope) = sealed(b"hello");
    let step = envelope.tail.len() / 60 + 1;
    for at in (0..envelope.tail.len()).step_by(step) {
        let mut tail = envelope.tail.to_vec();
        tail[at] ^= 1;
        receive(&mut bob, &Envelope::new(envelope.header, 1, &tail));
    }
    for change in [
        |header: &mut Header| header.counter += 1,
        |header: &mut Header| header.session.0 ^= 1,
        |header: &mut Header| header.commitment[5] ^= 1,
        |header: &mut Header| header.source = PeerId::from_bytes([9; 32]),
        |header: &mut Header| header.destination = PeerId::from_bytes([9; 32]),
    ] {
        receive(&mut bob, &with_header(&envelope, change));
    }
    assert!(bob.bodies().is_empty() && bob.reveals().is_empty());
    receive(&mut bob, &envelope);
    assert_eq!(bob.bodies(), [b"hello"], "the true one is still taken");
}

#[test]
fn another_cannot_sign_a_sealed_message_as_its_own() {
    let (_, mut bob, envelope) = sealed(b"from alice");
    let mallory = Identity::from_seed(&[66; 32]);
    let tail = Tail::decode(envelope.tail.clone()).expect("well-formed");
    let opening = tail.opening.expect("the first has an opening");
    let context = SessionContext {
        sender: mallory.peer(),
        recipient: bob.peer(),
        session: envelope.header.session,
        prekey: opening.prekey,
    };
    let signature = mallory.sign(Domain::Opening, &[&context.to_bytes(), &opening.encapsulation]);
    let resigned = Opening { signature, ..opening.clone() };
    let stolen = Tail::encode(Some(&resigned), &tail.sealed);
    let header = Header { source: mallory.peer(), ..envelope.header };
    receive(&mut bob, &Envelope::new(header, 1, &stolen));
    // A signature of another kind is none, even by the right key.
    let alice = Identity::from_seed(&[1; 32]);
    let context = SessionContext { sender: alice.peer(), ..context };
    let signature = alice.sign(Domain::Find, &[&context.to_bytes(), &opening.encapsulation]);
    let confused = Tail::encode(Some(&Opening { signature, ..opening }), &tail.sealed);
    receive(&mut bob, &Envelope::new(envelope.header, 1, &confused));
    assert!(bob.bodies().is_empty() && bob.reveals().is_empty());
}

#[test]
fn a_replay_after_a_restart_is_receipted_again_and_stored_no_more() {
    let (_, mut bob, envelope) = sealed(b"once");
    receive(&mut bob, &envelope);
    assert_eq!(bob.bodies().len(), 1);
    for _ in 0..3 {
        bob.restart();
        let stored = bob.rows.len();
        receive(&mut bob, &envelope.with_attempt(2));
        assert!(bob.bodies().is_empty());
        assert_eq!(bob.reveals().len(), 1);
        assert_eq!(bob.rows.len(), stored, "there was nothing to store");
    }
}

#[test]
fn a_crash_before_the_store_loses_nothing_that_was_promised() {
    let (_, mut bob, envelope) = sealed(b"again");
    bob.handle(delivery(envelope.clone()));
    assert!(bob.reveals().is_empty());
    bob.restart();
    receive(&mut bob, &envelope);
    assert_eq!(bob.bodies(), [b"again"]);
}

#[test]
fn a_lost_session_is_reset_and_the_message_still_arrives_once() {
    let (mut alice, mut bob, first) = sealed(b"one");
    receive(&mut bob, &first);
    alice.handle(Input::Receipt { commitment: first.header.commitment });
    alice.queue(bob.peer(), b"two");
    let second = alice.sent().pop().expect("an envelope");
    assert!(Tail::decode(second.tail.clone()).expect("one").opening.is_none());
    // Bob restarts from a disk that has its windows and prekeys, but no session.
    bob.rows.retain(|change| !matches!(change, Change::Session(_)));
    bob.restart();
    receive(&mut bob, &second);
    assert_eq!(bob.notices(), [NoticeKind::Reset]);
    assert!(bob.bodies().is_empty());
    let commitment = second.header.commitment;
    alice.handle(Input::Notice { commitment, kind: NoticeKind::Reset });
    alice.located(&bob.record());
    let again = alice.sent().pop().expect("sealed anew");
    assert_ne!(again.header.session, second.header.session);
    receive(&mut bob, &again);
    assert_eq!(bob.bodies(), [b"two"]);
}

#[test]
fn an_erased_prekey_is_answered_with_a_reset() {
    let (_, mut bob, envelope) = sealed(b"late");
    for _ in 0..9 {
        bob.wait(Span::from_secs(86_400));
        bob.settle();
    }
    receive(&mut bob, &envelope);
    assert_eq!(bob.notices(), [NoticeKind::Reset]);
    assert!(bob.bodies().is_empty());
}

#[test]
fn what_comes_out_of_order_is_kept_and_released_in_order() {
    let (mut alice, mut bob) = (End::new(1), End::new(2));
    alice.queue(bob.peer(), b"1");
    alice.located(&bob.record());
    for body in [b"2", b"3"] {
        alice.queue(bob.peer(), body);
    }
    let sent = alice.sent();
    assert_eq!(sent.len(), 3);
    receive(&mut bob, &sent[2]);
    receive(&mut bob, &sent[1]);
    assert_eq!(bob.reveals().len(), 2, "stored is stored");
    assert!(!bob.out.iter().any(|output| matches!(output, Output::Arrived(_))));
    receive(&mut bob, &sent[0]);
    let places = |change: &Change| match change {
        Change::Deliver(message) => Some((message.key.sequence.0, message.cursor.0)),
        Change::Release { key, cursor } => Some((key.sequence.0, cursor.0)),
        _ => None,
    };
    let places: Vec<_> = bob.rows.iter().filter_map(places).collect();
    assert_eq!(places, [(1, 1), (2, 2), (3, 3)]);
}

#[test]
fn a_full_disk_makes_no_receipt_and_no_gap() {
    let (_, mut bob, envelope) = sealed(b"too much");
    bob.handle(delivery(envelope.clone()));
    assert!(matches!(bob.out.pop(), Some(Output::Store(_))));
    bob.handle(Input::StoreFull);
    assert_eq!(bob.notices(), [NoticeKind::Full]);
    assert!(bob.reveals().is_empty());
    bob.out.clear();
    receive(&mut bob, &envelope.with_attempt(2));
    assert_eq!(bob.bodies(), [b"too much"]);
    assert_eq!(bob.courier.last_cursor(), Cursor(1));
}

#[test]
fn a_full_inbox_and_a_large_message_are_refused_in_words() {
    let limits = Limits { inbox_bytes_max: 10, ..Limits::default() };
    let (mut alice, mut bob) = (End::new(1), End::with_limits(2, limits));
    alice.queue(bob.peer(), &[0; 11]);
    alice.located(&bob.record());
    receive(&mut bob, &alice.sent()[0]);
    assert_eq!(bob.notices(), [NoticeKind::Full]);
    let limits = Limits { message_bytes_max: 10, ..Limits::default() };
    let (mut alice, mut bob) = (End::new(1), End::with_limits(2, limits));
    alice.queue(bob.peer(), &[0; 11]);
    alice.located(&bob.record());
    let envelope = alice.sent().remove(0);
    receive(&mut bob, &envelope);
    assert_eq!(bob.notices(), [NoticeKind::TooLarge]);
    let commitment = envelope.header.commitment;
    alice.handle(Input::Notice { commitment, kind: NoticeKind::TooLarge });
    assert_eq!(alice.given_up(), [(Row(1), WhyGivenUp::TooLarge)]);
    let is_settled =
        |output: &Output| matches!(output, Output::Settled { commitment: c } if *c == commitment);
    assert!(alice.out.iter().any(is_settled), "nothing more is wanted of the envelope");
}

#[test]
fn a_large_message_is_whole_only_when_every_chunk_is_there() {
    let (mut alice, mut bob) = (End::new(1), End::new(2));
    let body = vec![5; 4 * CHUNK_BYTES - 1];
    alice.queue(bob.peer(), &body);
    alice.located(&bob.record());
    let sent = alice.sent();
    assert_eq!(sent.len(), 4);
    for envelope in [&sent[3], &sent[0], &sent[2], &sent[0]] {
        receive(&mut bob, envelope);
    }
    assert!(!bob.rows.iter().any(|change| matches!(change, Change::Assemble { .. })));
    for envelope in &sent[..3] {
        alice.handle(Input::Receipt { commitment: envelope.header.commitment });
    }
    assert!(alice.delivered().is_empty());
    receive(&mut bob, &sent[1]);
    let whole = |change: &Change| matches!(change, Change::Assemble { cursor: Some(_), .. });
    assert_eq!(bob.rows.iter().filter(|change| whole(change)).count(), 1);
    alice.handle(Input::Receipt { commitment: sent[3].header.commitment });
    assert_eq!(alice.delivered(), [Row(1)]);
}

#[test]
fn what_is_not_receipted_is_sent_elsewhere_and_then_flooded() {
    let (mut alice, bob, first) = sealed(b"hello");
    alice.wait(Span::from_secs(2));
    let elsewhere = alice.out.iter().any(|output| {
        matches!(output, Output::Send { elsewhere: true, envelope } if envelope.attempt == 2)
    });
    assert!(elsewhere, "{:?}", alice.out);
    alice.out.clear();
    alice.wait(Span::from_secs(5));
    let flooded = alice.out.iter().find_map(|output| match output {
        Output::Flood(envelope) => Some(envelope.clone()),
        _ => None,
    });
    let flooded = flooded.expect("flooded");
    assert_eq!((flooded.attempt, flooded.header), (3, first.header));
    assert!(
        alice
            .out
            .iter()
            .any(|o| matches!(o, Output::Locate { peer, anew: true } if *peer == bob.peer()))
    );
}

#[test]
fn a_recipient_that_nobody_finds_is_looked_for_again_ever_more_rarely() {
    let (mut alice, bob) = (End::new(1), End::new(2));
    alice.queue(bob.peer(), b"hello");
    let mut pauses = Vec::new();
    let mut since = alice.now.mono;
    for _ in 0..8 {
        let asked = |output: &Output| matches!(output, Output::Locate { .. });
        let mut steps = 0;
        while !alice.out.iter().any(asked) {
            alice.wait(Span::from_millis(250));
            steps += 1;
            assert!(steps < 1_000, "it gave up");
        }
        pauses.push(alice.now.mono.since(since).as_millis());
        since = alice.now.mono;
        alice.out.clear();
        alice.handle(Input::NotFound(bob.peer()));
    }
    assert!(pauses[1] < 2_500 && pauses[7] > 20_000, "{pauses:?}");
    // Its record changed: it is back.
    alice.handle(Input::Nudge { peer: Some(bob.peer()) });
    alice.wait(Span::from_millis(1_500));
    assert!(alice.out.iter().any(|output| matches!(output, Output::Locate { .. })));
}

#[test]
fn a_message_that_expires_is_given_up_and_leaves_no_gap() {
    let (mut alice, mut bob, _) = sealed(b"old");
    alice.wait(Span::from_secs(3_700));
    assert_eq!(alice.given_up(), [(Row(1), WhyGivenUp::Expired)]);
    alice.out.clear();
    bob.wait(Span::from_secs(3_700));
    alice.queue(bob.peer(), b"new");
    alice.located(&bob.record());
    for envelope in alice.sent() {
        receive(&mut bob, &envelope);
    }
    assert_eq!(bob.bodies(), [b"new"], "nobody waits for the one that was given up");
}

#[test]
fn a_peer_that_was_forgotten_is_located_before_it_is_pinged() {
    let (mut alice, mut bob, envelope) = sealed(b"hi");
    receive(&mut bob, &envelope);
    alice.handle(Input::Forget(bob.peer()));
    alice.out.clear();
    alice.handle(Input::Ping { recipient: bob.peer(), ping: 5 });
    let is_search = |output: &Output| matches!(output, Output::Locate { .. });
    assert_eq!(alice.out.iter().filter(|output| is_search(output)).count(), 1, "{:?}", alice.out);
    assert!(alice.sent().is_empty(), "without a prekey nothing can be sealed");
    alice.located(&bob.record());
    assert_eq!(alice.sent().len(), 1);
}

#[test]
fn a_ping_to_a_prekey_that_has_expired_waits_for_a_newer_one() {
    let (mut alice, mut bob) = (End::new(1), End::new(2));
    let old = bob.record();
    alice.located(&old);
    alice.wait(Span::from_secs(9 * 86_400));
    alice.out.clear();
    alice.handle(Input::Ping { recipient: bob.peer(), ping: 5 });
    alice.located(&old);
    assert!(alice.sent().is_empty(), "nobody could open it");
    bob.wait(Span::from_secs(9 * 86_400));
    bob.settle();
    alice.wait(Span::from_secs(60));
    alice.located(&bob.record());
    assert_eq!(alice.sent().len(), 1);
}

#[test]
fn a_ping_is_answered_and_leaves_nothing() {
    let (mut alice, mut bob) = (End::new(1), End::new(2));
    alice.handle(Input::Ping { recipient: bob.peer(), ping: 5 });
    alice.located(&bob.record());
    let envelope = alice.sent().remove(0);
    receive(&mut bob, &envelope);
    assert_eq!(bob.reveals().len(), 1);
    assert!(bob.bodies().is_empty());
    alice.handle(Input::Receipt { commitment: envelope.header.commitment });
    assert!(alice.out.iter().any(|output| matches!(output, Output::Pong { ping: 5, .. })));
}
