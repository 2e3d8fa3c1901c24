//! The queue to one recipient: what waits, what is sealed, and what it is doing about it.

use std::collections::{BTreeMap, VecDeque};

use super::flights::{Flight, Flights};
use super::lifetimes::{Lifetimes, Sealed, Setting};
use super::runs::Runs;
use super::searches::Place;
use super::{OutSession, Output, Pace};
use crate::courier::chunk_set::ChunkSet;
use crate::courier::pace::{TIMEOUT_MAX, WINDOW_MAX as PACE_BYTES_MAX};
use crate::crypto::Random;
use crate::model::limits::{CHUNK_BYTES, MESSAGE_LIFETIME_MAX, WINDOW};
use crate::model::{
    GivenUp, Incarnation, Monotonic, Now, Occupancy, Outgoing, PeerId, Prekey, Row, Sequence, Span,
    Timestamp, WhyGivenUp,
};
use crate::wire::PayloadWriter;

/// Bytes of message bodies kept in memory for one recipient; the rest stays on disk.
pub(super) const LOADED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes that are loaded at once when all recipients together have too much.
pub(super) const LOADED_BYTES_MIN: usize = 64 * 1024;
/// Messages kept in memory for one recipient.
pub(super) const LOADED_MESSAGES_MAX: usize = 4 * WINDOW as usize;
/// Messages that are not in memory of which it is known what was receipted: those that were begun
/// last are sent again from their start.
const RECEIPTED_MAX: usize = 256;
/// Between the first failure to find a recipient and the next try; doubled each time.
const RETRY_INITIAL: Span = Span::from_secs(1);
/// How often expired messages are looked for, and how long a session is kept for what may follow.
const EXPIRY_INTERVAL: Span = Span::from_secs(3600);

/// The queue to one recipient.
#[derive(Debug)]
pub(super) struct Queue {
    /// Messages in memory that are not delivered yet.
    pub(super) messages: BTreeMap<Row, Loaded>,
    /// Their bodies' bytes.
    pub(super) bytes: usize,
    /// Messages that are not delivered yet, those on disk only included.
    pub(super) undelivered: u64,
    /// The last message that was loaded.
    pub(super) last_loaded: Row,
    /// Whether an answer to [`Output::Load`] is awaited.
    pub(super) loading: bool,
    /// How many bytes that may be.
    pub(super) asked: usize,
    /// What it counts for among all queues: what is in memory and what is asked for.
    pub(super) counted: usize,
    /// When the first message that is on disk only expires, if that is known.
    pub(super) first_expires: Option<Timestamp>,
    /// Whether that answer is of no use: what it was to follow was unloaded.
    pub(super) loads_in_vain: bool,
    /// What was receipted of large messages that are not in memory: it is not sent again.
    receipted: BTreeMap<Row, ChunkSet>,
    /// What has to be sealed, in order.
    pub(super) parts: VecDeque<Part>,
    /// What was ever sealed.
    pub(super) sealed: Sealed,
    /// How the clock was set when it was last looked when messages expire.
    setting: Setting,
    /// What is sealed.
    pub(super) flights: Flights,
    /// Pings that have to be sent.
    pub(super) pings: VecDeque<u64>,
    pub(super) session: Option<OutSession>,
    /// How often what has been sealed anew since did not make it: whoever makes us begin again does
    /// not make us forget that.
    pub(super) misses_before: u16,
    /// The recipient's prekey, from its newest record.
    pub(super) prekey: Option<Prekey>,
    /// Whether the newest record was asked for, not just any that is good.
    pub(super) located_anew: bool,
    /// Whether the recipient, or somebody in its name, does not know the session's prekey.
    pub(super) prekey_doubted: bool,
    pub(super) pace: Pace,
    pub(super) phase: Phase,
    /// What the recipient has of our runs.
    pub(super) runs: Runs,
    /// Searches that came up empty in a row.
    pub(super) failures: u32,
    /// How often in a row the recipient was full.
    pub(super) times_full: u32,
    pub(super) last_reset: Option<Monotonic>,
    /// When expired messages are looked for next, and whether the session is still of use.
    pub(super) next_expiry: Monotonic,
    /// When something was last sealed.
    pub(super) last_sealed: Monotonic,
    /// What stands in `timers`.
    pub(super) timer: Option<Monotonic>,
    /// What stands in the line of searches.
    pub(super) place: Option<Place>,
}

#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) message: Outgoing,
    /// When it is given up, by the clock as the queue last saw it.
    pub(super) expires: Timestamp,
    /// The parts whose receipt has come.
    pub(super) receipted: ChunkSet,
}

/// A whole message, or a chunk of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    pub(super) row: Row,
    pub(super) chunk: Option<u16>,
}

impl Part {
    /// Its place among the parts of its message.
    fn index(&self) -> u16 {
        self.chunk.unwrap_or(0)
    }
}

/// What a queue is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It does not know the way and has not asked.
    Idle,
    /// It asked.
    Locating,
    /// It knows a way.
    Ready,
    /// Nobody answered, or the recipient is full; until then.
    Waiting { until: Monotonic, full: bool },
    /// It has waited, and asks again when it is its turn among all others.
    InLine { since: Monotonic },
}

impl Queue {
    pub(super) fn new(now: Now) -> Self {
        Self {
            messages: BTreeMap::new(),
            bytes: 0,
            undelivered: 0,
            last_loaded: Row(0),
            loading: false,
            asked: 0,
            counted: 0,
            first_expires: None,
            loads_in_vain: false,
            receipted: BTreeMap::new(),
            parts: VecDeque::new(),
            sealed: Sealed::default(),
            setting: Setting::of(now),
            flights: Flights::default(),
            pings: VecDeque::new(),
            session: None,
            misses_before: 0,
            prekey: None,
            located_anew: false,
            prekey_doubted: false,
            pace: Pace::new(),
            phase: Phase::Idle,
            runs: Runs::default(),
            failures: 0,
            times_full: 0,
            last_reset: None,
            next_expiry: now.mono,
            last_sealed: now.mono,
            timer: None,
            place: None,
        }
    }

    pub(super) fn is_all_loaded(&self) -> bool {
        self.messages.len() as u64 == self.undelivered && !self.loading
    }

    /// The lowest sequence number of an incarnation that is still wanted, if that is known. Rows
    /// grow with sequence numbers, so it is that of the first one in memory.
    pub(super) fn first_wanted(&self, incarnation: Incarnation) -> Option<Sequence> {
        let mut own = self.messages.values().filter(|m| m.message.incarnation == incarnation);
        own.next().map(|loaded| loaded.message.sequence)
    }

    /// A run of which something waits at the recipient for what will not come, and the number to
    /// tell it.
    pub(super) fn untold_floor(&self) -> Option<(Incarnation, Sequence)> {
        self.runs.waiting().find_map(|(incarnation, base, last)| {
            let floor = match self.first_wanted(incarnation) {
                Some(first) => first,
                None if self.is_all_loaded() => last.next(),
                None => return None,
            };
            (floor > base && !self.flights.any_tells(incarnation, floor))
                .then_some((incarnation, floor))
        })
    }

    pub(super) fn has_room(&self) -> bool {
        self.bytes < LOADED_BYTES_MAX && self.messages.len() < LOADED_MESSAGES_MAX
    }

    /// Whether nothing is lost by forgetting it. A session is worth keeping for a day.
    pub(super) fn is_idle(&self) -> bool {
        self.undelivered == 0
            && self.pings.is_empty()
            && self.flights.is_empty()
            && self.session.is_none()
            && !self.runs.any_waiting()
    }

    /// With messages of so many bytes at most. What was asked for comes on top of what is there.
    pub(super) fn occupancy(&self, message_bytes_max: usize) -> [Occupancy; 4] {
        let bytes_max = 2 * LOADED_BYTES_MAX + message_bytes_max;
        let messages_max = 2 * LOADED_MESSAGES_MAX;
        let parts_max = messages_max + bytes_max.div_ceil(CHUNK_BYTES);
        [
            Occupancy::new("messages in memory", self.messages.len(), messages_max),
            Occupancy::new("bytes of messages in memory", self.bytes, bytes_max),
            Occupancy::new("parts to seal", self.parts.len(), parts_max),
            Occupancy::new("bytes on their way", self.flights.bytes(), 2 * PACE_BYTES_MAX),
        ]
    }

    pub(super) fn load(&mut self, now: Now, lifetimes: &Lifetimes, message: Outgoing) {
        self.first_expires = None;
        let length = message.body.len();
        let row = message.row;
        let receipted = if PayloadWriter::fits_whole(length) {
            self.parts.push_back(Part { row, chunk: None });
            ChunkSet::new(1)
        } else {
            let chunks = length.div_ceil(CHUNK_BYTES);
            let receipted = self.receipted.remove(&row).unwrap_or_else(|| ChunkSet::new(chunks));
            let missing = (0_u16..).take(chunks).filter(|chunk| !receipted.has(*chunk));
            self.parts.extend(missing.map(|chunk| Part { row, chunk: Some(chunk) }));
            receipted
        };
        self.bytes += length;
        self.last_loaded = self.last_loaded.max(row);
        let expires = lifetimes.expires(now, &message, self.sealed.of(row));
        self.messages.insert(row, Loaded { message, expires, receipted });
    }

    /// Drops what is in memory and on disk too. Nothing may be on its way.
    pub(super) fn unload(&mut self) {
        let expires = self.messages.values().map(|loaded| loaded.expires).min();
        self.first_expires = expires.or(self.first_expires);
        let begun = std::mem::take(&mut self.messages).into_iter();
        let begun = begun.filter(|(_, loaded)| !loaded.receipted.is_empty());
        self.receipted.extend(begun.map(|(row, loaded)| (row, loaded.receipted)));
        while self.receipted.len() > RECEIPTED_MAX {
            self.receipted.pop_last();
        }
        self.parts.clear();
        self.bytes = 0;
        self.last_loaded = Row(0);
        self.loads_in_vain = self.loading;
    }

    /// There is no way to write to the recipient for now: each time in a row longer.
    pub(super) fn back_off(&mut self, now: Now, random: &mut Random) {
        let backoff = RETRY_INITIAL.times(1 << self.failures.min(6)).min(TIMEOUT_MAX);
        self.failures = self.failures.saturating_add(1);
        let jittered = backoff.divided(2) + Span::from_micros(random.below(backoff.as_micros()));
        self.phase = Phase::Waiting { until: now.mono + jittered, full: false };
    }

    pub(super) const fn place_in_line(&self) -> Option<Place> {
        match self.phase {
            Phase::InLine { since } => Some((self.failures, since)),
            _ => None,
        }
    }

    /// Whether there is anything for which a way is needed.
    pub(super) fn is_wanted(&self) -> bool {
        self.undelivered > 0
            || !self.pings.is_empty()
            || self.flights.any_lost()
            || self.runs.any_waiting()
    }

    pub(super) fn locate(&mut self, recipient: PeerId, anew: bool, out: &mut VecDeque<Output>) {
        if self.phase != Phase::Locating {
            self.phase = Phase::Locating;
            self.located_anew = anew;
            out.push_back(Output::Locate { peer: recipient, anew });
        }
    }

    /// What was sealed has to be sealed anew; returns its commitments, which mean nothing any more.
    pub(super) fn unseal(&mut self, flights: Vec<Flight>) -> Vec<[u8; 32]> {
        let commitments = flights.iter().map(Flight::commitment).collect();
        let misses = flights.iter().map(|flight| flight.misses).max().unwrap_or(0);
        self.misses_before = self.misses_before.max(misses);
        let mut parts = Vec::new();
        for flight in flights {
            self.pings.extend(flight.ping);
            parts.extend(flight.parts);
        }
        self.requeue(parts);
        commitments
    }

    /// Puts parts back where they belong: before what was never sealed, in order.
    pub(super) fn requeue(&mut self, mut parts: Vec<Part>) {
        parts.retain(|part| self.messages.contains_key(&part.row));
        parts.extend(self.parts.drain(..));
        parts.sort_unstable();
        parts.dedup();
        self.parts = parts.into();
    }

    /// An envelope whose receipt came: the messages that are whole by it.
    pub(super) fn settle(&mut self, now: Now, flight: &Flight) -> Vec<Row> {
        let (mut rows, mut sequences) = (Vec::new(), Vec::new());
        for part in &flight.parts {
            let Some(loaded) = self.messages.get_mut(&part.row) else { continue };
            loaded.receipted.add(part.index());
            if loaded.receipted.missing() == 0 {
                rows.push(part.row);
                sequences.push(loaded.message.sequence);
                self.bytes -= loaded.message.body.len();
                self.messages.remove(&part.row);
            }
        }
        if let Some((incarnation, floor)) = flight.floor {
            self.runs.on_receipt(now.mono, incarnation, floor, &sequences);
        }
        self.undelivered = self.undelivered.saturating_sub(rows.len() as u64);
        rows
    }

    /// Messages that are not wanted any more. What of them is on its way stays there; its receipts
    /// are for nothing.
    pub(super) fn give_up(&mut self, now: Now, rows: &[Row], why: WhyGivenUp) -> Output {
        let mut given_up = Vec::with_capacity(rows.len());
        for row in rows {
            let Some(Loaded { message, .. }) = self.messages.remove(row) else { continue };
            self.bytes -= message.body.len();
            self.undelivered = self.undelivered.saturating_sub(1);
            given_up.push(GivenUp {
                row: *row,
                id: message.id,
                recipient: message.recipient,
                queued: message.queued,
                subject: message.subject,
                bytes: message.body.len() as u64,
                at: now.wall,
                why,
            });
        }
        self.parts.retain(|part| self.messages.contains_key(&part.row));
        Output::GivenUp(given_up)
    }

    pub(super) fn largest_of(&self, parts: &[Part]) -> Option<Row> {
        let sizes = parts.iter().filter_map(|part| {
            self.messages.get(&part.row).map(|loaded| (loaded.message.body.len(), part.row))
        });
        sizes.max().map(|(_, row)| row)
    }

    /// Looks again when messages expire, if the clock was set.
    pub(super) fn heed_clock(&mut self, now: Now, lifetimes: &Lifetimes) {
        let setting = Setting::of(now);
        if self.setting.differs(setting) {
            self.setting = setting;
            // Of those on disk only their own times tell, and these have to be read.
            self.first_expires = None;
            for (row, loaded) in &mut self.messages {
                loaded.expires = lifetimes.expires(now, &loaded.message, self.sealed.of(*row));
            }
        }
    }

    pub(super) fn expire(&mut self, now: Now, lifetimes: &Lifetimes, out: &mut VecDeque<Output>) {
        self.heed_clock(now, lifetimes);
        let expired = |loaded: &Loaded| loaded.expires <= now.wall;
        let rows: Vec<Row> =
            self.messages.iter().filter(|(_, m)| expired(m)).map(|(row, _)| *row).collect();
        if !rows.is_empty() {
            out.push_back(self.give_up(now, &rows, WhyGivenUp::Expired));
        }
    }

    pub(super) fn on_time(
        &mut self,
        now: Now,
        lifetimes: &Lifetimes,
        page: usize,
        recipient: PeerId,
        out: &mut VecDeque<Output>,
    ) {
        let is_full = matches!(self.phase, Phase::Waiting { full: true, .. });
        if self.flights.lose_late(now.mono, is_full) {
            self.pace.on_loss();
        }
        if let Phase::Waiting { until, full } = self.phase
            && until <= now.mono
        {
            self.phase = match full {
                true => Phase::Ready,
                false => Phase::InLine { since: now.mono },
            };
        }
        if self.next_expiry <= now.mono {
            self.next_expiry = now.mono + EXPIRY_INTERVAL;
            self.expire(now, lifetimes, out);
            self.runs.forget(now.mono, EXPIRY_INTERVAL, MESSAGE_LIFETIME_MAX);
            if self.undelivered == 0 && now.mono >= self.last_sealed + EXPIRY_INTERVAL {
                self.session = None;
            }
            if self.first_expires.is_none_or(|first| first <= now.wall) {
                self.load_if_empty(recipient, page, out);
            }
        }
    }

    /// Has messages loaded if all are on disk only: those that have expired must be found.
    pub(super) fn load_if_empty(
        &mut self,
        recipient: PeerId,
        page: usize,
        out: &mut VecDeque<Output>,
    ) {
        if self.messages.is_empty() && self.undelivered > 0 && !self.loading {
            self.load_more(recipient, page, out);
        }
    }

    /// Has the messages after those in memory loaded, up to so many bytes.
    pub(super) fn load_more(
        &mut self,
        recipient: PeerId,
        bytes_max: usize,
        out: &mut VecDeque<Output>,
    ) {
        (self.loading, self.asked) = (true, bytes_max);
        out.push_back(Output::Load { recipient, after: self.last_loaded, bytes_max });
    }

    pub(super) fn next_deadline(&self) -> Option<Monotonic> {
        let waiting = match self.phase {
            Phase::Waiting { until, .. } => Some(until),
            _ => None,
        };
        let kept = self.undelivered > 0 || self.session.is_some() || self.runs.any_waiting();
        let expiry = kept.then_some(self.next_expiry);
        self.flights.deadline().into_iter().chain(waiting).chain(expiry).min()
    }
}
