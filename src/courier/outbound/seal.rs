//! Sealing and sending what waits in a queue, as far as its pace allows.

use std::collections::{BTreeMap, VecDeque};

use super::flights::Flight;
use super::lifetimes::{Lifetimes, Setting};
use super::queue::{LOADED_BYTES_MAX, LOADED_MESSAGES_MAX, Loaded, Part, Phase, Queue};
use super::{OutSession, Output, settle};
use crate::crypto::{Identity, Random};
use crate::model::limits::{CHUNK_BYTES, WINDOW};
use crate::model::{Incarnation, Now, PeerId, Sequence, Span};
use crate::wire::{FRAGMENT_BYTES_MAX, Item, PayloadWriter};

/// After so many misses the next attempt is flooded, and then every second one.
const FLOOD_MISSES: u16 = 2;
/// The time that each fragment of a flooded envelope adds to its timeout: origins may send two a
/// second.
const FRAGMENT_PAUSE: Span = Span::from_millis(600);

/// What a queue needs to send.
pub(super) struct Turn<'a> {
    pub(super) identity: &'a Identity,
    pub(super) recipient: PeerId,
    pub(super) now: Now,
    pub(super) random: &'a mut Random,
    pub(super) on_the_way: &'a mut BTreeMap<[u8; 32], PeerId>,
    pub(super) lifetimes: &'a Lifetimes,
    /// How much may be loaded.
    pub(super) page: usize,
    pub(super) out: &'a mut VecDeque<Output>,
}

impl Turn<'_> {
    /// No receipt is awaited for these any more.
    fn settle(&mut self, commitments: &[[u8; 32]]) {
        settle(self.on_the_way, commitments, self.out);
    }
}

/// What an envelope is.
enum Content {
    /// A ping.
    Ping(u64),
    /// Messages of a run, or nothing but its lowest number that is still wanted.
    Floor(Incarnation, Sequence),
}

impl Queue {
    /// Sends again what was lost, then what is new, as far as the pace allows.
    pub(super) fn pump(&mut self, turn: &mut Turn<'_>) {
        if self.is_wanted() && self.phase == Phase::Idle {
            self.locate(turn.recipient, false, turn.out);
        }
        if self.phase != Phase::Ready {
            return;
        }
        self.refresh_session(turn);
        self.heed_clock(turn.now, turn.lifetimes);
        while self.may_send()
            && let Some(flight) = self.flights.next_lost()
        {
            self.send_again(turn, flight);
        }
        // What cannot be sealed goes back to where it came from, and the queue is not ready any
        // more: each round looks at that again.
        while self.may_send()
            && let Some(ping) = self.pings.pop_front()
        {
            self.seal_ping(turn, ping);
        }
        while self.may_send() && self.seal_next(turn) {}
        while self.phase == Phase::Ready
            && let Some((incarnation, floor)) = self.untold_floor()
        {
            let writer = PayloadWriter::new(incarnation, floor);
            self.seal(turn, writer, Vec::new(), Content::Floor(incarnation, floor));
        }
        let hungry = match turn.page < LOADED_BYTES_MAX {
            // All together have too much: first what it has.
            true => self.messages.is_empty(),
            false => self.parts.len() < LOADED_MESSAGES_MAX / 2 && self.has_room(),
        };
        if hungry && !self.loading && (self.messages.len() as u64) < self.undelivered {
            self.load_more(turn.recipient, turn.page, turn.out);
        }
    }

    fn may_send(&self) -> bool {
        self.phase == Phase::Ready && self.pace.allows(self.flights.bytes())
    }

    /// Lets go of a session that is not to be used any more, and of what was sealed in it and lost.
    fn refresh_session(&mut self, turn: &mut Turn<'_>) {
        if self.prekey.is_none() {
            return;
        }
        if !self.is_session_current(turn.now) {
            self.session = None;
        }
        let current = self.session.as_ref().map(OutSession::id);
        let stale = self.flights.take_stale(current);
        if !stale.is_empty() {
            let commitments = self.unseal(stale);
            turn.settle(&commitments);
        }
    }

    /// Whether the session, if there is one, may go on being used.
    pub(super) fn is_session_current(&self, now: Now) -> bool {
        let Some(prekey) = &self.prekey else { return true };
        self.session.as_ref().is_none_or(|session| session.is_current(prekey.id, now))
    }

    fn send_again(&mut self, turn: &mut Turn<'_>, mut flight: Flight) {
        let wanted = |part: &Part| {
            self.messages.get(&part.row).is_some_and(|loaded| turn.now.wall < loaded.expires)
        };
        let is_empty = flight.ping.is_none() && flight.parts.is_empty();
        let is_outdated = flight.setting.differs_much(Setting::of(turn.now));
        if is_empty || is_outdated || !flight.parts.iter().all(wanted) {
            // Some of it has expired: the rest is sealed anew, without it. A floor may have risen.
            // Or the clock was set, and what it says of its expiry is wrong.
            let commitments = self.unseal(vec![flight]);
            turn.settle(&commitments);
            return;
        }
        let attempt = flight.envelope.attempt.saturating_add(1);
        flight.envelope = match &self.session {
            Some(session) if session.id() == flight.session => {
                session.with_opening(&flight.envelope, attempt)
            }
            _ => flight.envelope.with_attempt(attempt),
        };
        self.launch(turn, flight);
    }

    fn launch(&mut self, turn: &mut Turn<'_>, mut flight: Flight) {
        let misses = flight.misses;
        let is_turn = misses >= FLOOD_MISSES && misses % 2 == FLOOD_MISSES % 2;
        flight.flooded = is_turn && !self.flights.any_flooded();
        if flight.flooded {
            turn.out.push_back(Output::Locate { peer: turn.recipient, anew: true });
        }
        let timeout = self.pace.timeout(misses.saturating_add(1));
        let jitter = Span::from_micros(turn.random.below(timeout.as_micros() / 4));
        let pause = match flight.flooded {
            true => {
                FRAGMENT_PAUSE.times(flight.envelope.tail.len().div_ceil(FRAGMENT_BYTES_MAX) as u64)
            }
            false => Span::ZERO,
        };
        flight.sent = turn.now.mono;
        flight.deadline = turn.now.mono + timeout + jitter + pause;
        let envelope = flight.envelope.clone();
        turn.out.push_back(match flight.flooded {
            true => Output::Flood(envelope),
            false => Output::Send { envelope, elsewhere: misses > 0 },
        });
        turn.on_the_way.insert(flight.commitment(), turn.recipient);
        self.flights.launch(flight);
    }

    /// Seals the next envelope of messages; false if there is none to seal.
    fn seal_next(&mut self, turn: &mut Turn<'_>) -> bool {
        let Some(incarnation) = self.next_incarnation(turn) else { return false };
        let floor = self.first_wanted(incarnation).unwrap_or(Sequence::FIRST);
        let mut writer = PayloadWriter::new(incarnation, floor);
        let mut parts = Vec::new();
        while let Some(part) = self.parts.front().copied() {
            let Some(loaded) = self.messages.get(&part.row) else {
                self.parts.pop_front();
                continue;
            };
            let message = &loaded.message;
            if message.incarnation != incarnation
                || message.sequence.0.saturating_sub(floor.0) >= WINDOW
                || !writer.push(&item_of(loaded, part.chunk))
            {
                break;
            }
            parts.push(part);
            self.parts.pop_front();
        }
        !parts.is_empty() && self.seal(turn, writer, parts, Content::Floor(incarnation, floor))
    }

    /// The incarnation of the next message to seal.
    fn next_incarnation(&mut self, turn: &Turn<'_>) -> Option<Incarnation> {
        while let Some(part) = self.parts.front() {
            match self.messages.get(&part.row) {
                Some(loaded) if turn.now.wall < loaded.expires => {
                    return Some(loaded.message.incarnation);
                }
                // Given up, or about to be.
                _ => {
                    self.next_expiry = turn.now.mono;
                    self.parts.pop_front()
                }
            };
        }
        None
    }

    fn seal_ping(&mut self, turn: &mut Turn<'_>, ping: u64) {
        let mut writer = PayloadWriter::new(Incarnation(0), Sequence::FIRST);
        writer.push(&Item::Ping);
        self.seal(turn, writer, Vec::new(), Content::Ping(ping));
    }

    fn seal(
        &mut self,
        turn: &mut Turn<'_>,
        writer: PayloadWriter,
        parts: Vec<Part>,
        content: Content,
    ) -> bool {
        let (ping, floor) = match content {
            Content::Ping(ping) => (Some(ping), None),
            Content::Floor(incarnation, floor) => (None, Some((incarnation, floor))),
        };
        let sealed = self.session(turn).and_then(|session| {
            let envelope = session.seal(writer.finish()).ok()?;
            Some((envelope, session.id()))
        });
        let Some((envelope, session)) = sealed else {
            // The recipient's prekey is of no use: only a newer record helps.
            self.requeue(parts);
            self.pings.extend(ping);
            self.prekey = None;
            self.back_off(turn.now, turn.random);
            return false;
        };
        let now = turn.now.mono;
        self.last_sealed = now;
        let setting = Setting::of(turn.now);
        parts.iter().for_each(|part| self.sealed.note(part.row, setting));
        let flight = Flight {
            envelope,
            session,
            parts,
            ping,
            floor,
            setting,
            first_sent: now,
            sent: now,
            deadline: now,
            flooded: false,
            misses: self.misses_before,
        };
        self.launch(turn, flight);
        true
    }

    fn session(&mut self, turn: &mut Turn<'_>) -> Option<&mut OutSession> {
        if self.session.is_none() {
            let prekey = self.prekey.as_ref().filter(|key| turn.now.wall < key.expires)?;
            let (identity, recipient) = (turn.identity, turn.recipient);
            self.session =
                OutSession::open(identity, recipient, prekey, turn.now, turn.random).ok();
        }
        self.session.as_mut()
    }
}

fn item_of(loaded: &Loaded, chunk: Option<u16>) -> Item {
    let Loaded { message, expires, .. } = loaded;
    let (sequence, sent, expires) = (message.sequence, message.queued, *expires);
    let subject = message.subject.clone();
    match chunk {
        None => Item::Message { sequence, sent, expires, subject, body: message.body.clone() },
        Some(index) => {
            let start = usize::from(index).saturating_mul(CHUNK_BYTES).min(message.body.len());
            let end = start.saturating_add(CHUNK_BYTES).min(message.body.len());
            let (total, bytes) = (message.body.len() as u64, message.body.slice(start..end));
            Item::Chunk { sequence, sent, expires, subject, total, index, bytes }
        }
    }
}
