//! The peers at the other ends of our links.

use bytes::Bytes;

use super::directory::{Compared, Origin, Refusal, is_signed};
use super::exchange::Dialogue;
use super::outflow::Outflow;
use super::timers::Timer;
use super::{Output, Router};
use crate::model::limits::{
    FRAME_BYTES_MAX, FULL_LINK_QUEUES_MAX, LINK_SILENCE_MAX, PING_INTERVAL,
};
use crate::model::{Bucket, Limits, Monotonic, Occupancy, PeerId, Span};
use crate::wire::{CloseReason, Frame, ParsedRecord};

/// Control frames (pings, receipts, rejects) may wait beyond the link's queue by this many bytes,
/// so that a queue full of envelopes does not hide what became of them.
const QUEUE_HEADROOM_BYTES: usize = 256 * 1024;

/// A link that is never idle is pinged that often nevertheless, to know its round trip.
const RTT_AGE_MAX: Span = Span::from_secs(60);

/// When a timer is that late, the process was stopped: the neighbour's answers wait to be read, and
/// its silence is ours.
const STOPPED_MIN: Span = Span::from_secs(5);

/// Forged records, finds and floods are passed on by no honest node. A few may come of a damaged
/// disk; a neighbour that brings more than these in such a time is cut off.
const FORGERIES_MAX: u32 = 16;
const FORGERIES_INTERVAL: Span = Span::from_secs(600);

/// Pages of digests a neighbour may ask for: as many at once as a table of 250,000 records has.
const PAGES_PER_SECOND: u32 = 20;
const PAGES_BURST: u32 = 256;
/// Requests of 16 records each that a neighbour may make: twice what it could verify.
const ANSWERS_PER_SECOND: u32 = 128;
const ANSWERS_BURST: u32 = 256;

/// One neighbour.
#[derive(Debug)]
pub(super) struct Neighbour {
    /// When its link came up.
    pub(super) up_since: Monotonic,
    /// When it last said anything.
    heard: Monotonic,
    /// Something that went to it was to no avail, and it has said nothing since: perhaps it is
    /// gone, and others are asked first.
    doubted: bool,
    /// When the last ping went out, and its nonce until it is answered.
    pinged: (Monotonic, Option<u64>),
    /// Round trip of the last ping that was answered.
    pub(super) rtt_last: Option<Span>,
    /// Moving average of round trips (RFC 6298 section 2).
    pub(super) rtt_smoothed: Option<Span>,
    /// Bytes handed to its link that were not written yet.
    pub(super) queued: usize,
    /// Finds and floods it may send us.
    pub(super) floods: Bucket,
    /// Answers to finds it may send us: one for each find that we may send it.
    pub(super) founds: Bucket,
    /// Finds and floods that we send it.
    pub(super) outflow: Outflow,
    /// Pages of digests it may ask for.
    pub(super) pages: Bucket,
    /// Records it may ask for.
    pub(super) answers: Bucket,
    /// How much it brought that no honest node brings, and since when that is counted.
    forgeries: (Monotonic, u32),
    /// Where the comparison of our tables stands.
    pub(super) dialogue: Dialogue,
}

impl Neighbour {
    /// With so many bytes in its link's queue at most.
    pub(super) fn occupancy(&self, queue_bytes_max: usize) -> [Occupancy; 4] {
        let room = queue_bytes_max.saturating_add(QUEUE_HEADROOM_BYTES).max(FRAME_BYTES_MAX);
        let [wanted, asked] = self.dialogue.occupancy();
        let queued = Occupancy::new("bytes queued to a neighbour", self.queued, room);
        [queued, self.outflow.occupancy(), wanted, asked]
    }
}

/// What a neighbour may flood, and how many finds it may answer.
pub(super) const fn flood_budget(limits: &Limits, now: Monotonic) -> Bucket {
    Bucket::new(limits.link_floods_per_second, limits.link_floods_burst, now)
}

impl Router {
    pub(super) fn on_link_up(&mut self, id: PeerId, record: &Bytes) {
        self.remove_neighbour(&id);
        let (reason, text) = match self.read_hello(id, record) {
            _ if id == self.me => (CloseReason::Myself, CloseReason::Myself.to_string()),
            Err(refusal) => (CloseReason::Protocol, refusal.to_string()),
            Ok(record) => return self.add_neighbour(id, record),
        };
        self.output(Output::Disconnect { neighbour: id, reason, text });
    }

    /// The record of a hello, if it is news; it must be the neighbour's own in any case.
    fn read_hello(&self, id: PeerId, record: &Bytes) -> Result<Option<ParsedRecord>, Refusal> {
        let parsed = self.read_record(record)?;
        if parsed.record.peer != id {
            return Err(Refusal::OtherPeer);
        }
        match self.directory.compare(&parsed, self.now.wall) {
            Compared::Same => Ok(None),
            _ if !is_signed(&parsed) => Err(Refusal::Forged),
            Compared::Older => Ok(None),
            Compared::Newer => Ok(Some(parsed)),
        }
    }

    fn add_neighbour(&mut self, id: PeerId, record: Option<ParsedRecord>) {
        let now = self.now.mono;
        let neighbour = Neighbour {
            up_since: now,
            heard: now,
            doubted: false,
            pinged: (now, None),
            rtt_last: None,
            rtt_smoothed: None,
            queued: 0,
            floods: flood_budget(&self.limits, now),
            founds: flood_budget(&self.limits, now),
            outflow: Outflow::new(&self.limits, now),
            pages: Bucket::new(PAGES_PER_SECOND, PAGES_BURST, now),
            answers: Bucket::new(ANSWERS_PER_SECOND, ANSWERS_BURST, now),
            forgeries: (now, 0),
            dialogue: Dialogue::default(),
        };
        self.neighbours.insert(id, neighbour);
        self.directory.keep(&id, true);
        if let Some(record) = record {
            self.learn_record(record, id, Origin::Wanted);
        }
        self.learn_route(id, id, 1);
        self.on_located(id, true);
        self.repeat_finds(id);
        self.ping(id);
        self.timers.set(Timer::Link(id), now + PING_INTERVAL);
        self.compare_with(id);
        self.run_own_floods();
    }

    /// Ends a link: nothing more goes to this neighbour, and nothing of it is heard.
    pub(super) fn disconnect(&mut self, id: PeerId, reason: CloseReason, text: &str) {
        if self.neighbours.contains_key(&id) {
            self.output(Output::Disconnect { neighbour: id, reason, text: text.to_owned() });
            self.remove_neighbour(&id);
        }
    }

    /// A neighbour brought something that no honest node would have passed on.
    pub(super) fn on_forgery(&mut self, id: PeerId, text: &str) {
        let now = self.now.mono;
        let Some(neighbour) = self.neighbours.get_mut(&id) else { return };
        let (since, count) = &mut neighbour.forgeries;
        if now.since(*since) >= FORGERIES_INTERVAL {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count > FORGERIES_MAX {
            self.disconnect(id, CloseReason::Protocol, text);
        }
    }

    /// The link to a neighbour is down, or void.
    pub(super) fn remove_neighbour(&mut self, id: &PeerId) {
        let Some(neighbour) = self.neighbours.remove(id) else { return };
        self.queued = self.queued.saturating_sub(neighbour.queued);
        self.timers.clear(Timer::Link(*id));
        let kept = self.is_kept(id);
        self.directory.keep(id, kept);
        self.verifier.remove(id);
        self.end_dialogue_of(id);
        self.on_hop_down(id);
    }

    /// Whether a neighbour may be heard; notes that it was.
    pub(super) fn hear(&mut self, id: &PeerId) -> bool {
        let now = self.now.mono;
        let Some(neighbour) = self.neighbours.get_mut(id) else { return false };
        neighbour.heard = now;
        neighbour.doubted = false;
        true
    }

    /// What went to a neighbour at a time was to no avail. If it has said nothing since, it is
    /// doubted until it does, and asked to.
    pub(super) fn doubt(&mut self, id: &PeerId, sent: Monotonic) {
        let Some(neighbour) = self.neighbours.get_mut(id) else { return };
        if neighbour.heard <= sent && !neighbour.doubted {
            neighbour.doubted = true;
            self.ping(*id);
        }
    }

    pub(super) fn is_doubted(&self, id: &PeerId) -> bool {
        self.neighbours.get(id).is_some_and(|neighbour| neighbour.doubted)
    }

    pub(super) fn on_pong(&mut self, from: &PeerId, nonce: u64) {
        let now = self.now.mono;
        let Some(neighbour) = self.neighbours.get_mut(from) else { return };
        let (sent, expected) = neighbour.pinged;
        if expected != Some(nonce) {
            return;
        }
        let rtt = now.since(sent);
        neighbour.pinged.1 = None;
        neighbour.rtt_last = Some(rtt);
        neighbour.rtt_smoothed = Some(match neighbour.rtt_smoothed {
            None => rtt,
            Some(smoothed) => (smoothed.times(7) + rtt).divided(8),
        });
    }

    /// A link's timer is due: it needs a ping, or is dead, or neither.
    pub(super) fn on_link_timer(&mut self, id: PeerId, due: Monotonic) {
        let now = self.now.mono;
        let Some(neighbour) = self.neighbours.get_mut(&id) else { return };
        if now.since(due) >= STOPPED_MIN {
            neighbour.heard = neighbour.heard.max(now);
            neighbour.pinged.1 = None;
            self.ping(id);
            self.timers.set(Timer::Link(id), now + PING_INTERVAL);
            return;
        }
        let (heard, pinged) = (neighbour.heard, neighbour.pinged.0);
        if now.since(heard) >= LINK_SILENCE_MAX {
            let reason = CloseReason::Silent;
            return self.disconnect(id, reason, &reason.to_string());
        }
        let mut last_ping = pinged;
        let idle = now.since(heard) >= PING_INTERVAL || now.since(pinged) >= RTT_AGE_MAX;
        if idle && now.since(pinged) >= PING_INTERVAL {
            self.ping(id);
            last_ping = now;
        }
        let next = (heard.max(last_ping) + PING_INTERVAL).min(heard + LINK_SILENCE_MAX);
        self.timers.set(Timer::Link(id), next);
    }

    fn ping(&mut self, id: PeerId) {
        let nonce = self.random.number();
        if let Some(neighbour) = self.neighbours.get_mut(&id) {
            neighbour.pinged = (self.now.mono, Some(nonce));
            self.send_control(&id, &Frame::Ping { nonce });
        }
    }

    pub(super) fn on_written(&mut self, id: &PeerId, bytes: usize) {
        if let Some(neighbour) = self.neighbours.get_mut(id) {
            let written = bytes.min(neighbour.queued);
            neighbour.queued -= written;
            self.queued = self.queued.saturating_sub(written);
        }
    }

    /// Sends a small frame that tells what became of others; false if even the headroom is full.
    pub(super) fn send_control(&mut self, to: &PeerId, frame: &Frame) -> bool {
        let room = self.queue_room();
        self.send_within(to, frame.encode(), room.saturating_add(room.min(QUEUE_HEADROOM_BYTES)))
    }

    /// Sends a frame unless the neighbour's queue is full: a slow neighbour loses it.
    pub(super) fn send_traffic(&mut self, to: &PeerId, frame: Bytes) -> bool {
        let room = self.queue_room();
        self.send_within(to, frame, room)
    }

    /// How many bytes may wait for one neighbour: no more than its fair part when too many wait for
    /// all of them. One that reads never has that much waiting for long.
    fn queue_room(&self) -> usize {
        let room = self.limits.link_queue_bytes_max;
        let all = room.saturating_mul(FULL_LINK_QUEUES_MAX);
        if self.queued < all { room } else { room.min(all / self.neighbours.len().max(1)) }
    }

    fn send_within(&mut self, to: &PeerId, frame: Bytes, room: usize) -> bool {
        let Some(neighbour) = self.neighbours.get_mut(to) else { return false };
        let queued = neighbour.queued.saturating_add(frame.len());
        // One frame always fits, however small the queue was configured.
        if queued > room && neighbour.queued > 0 {
            return false;
        }
        neighbour.queued = queued;
        self.queued = self.queued.saturating_add(frame.len());
        self.output(Output::Send { neighbour: *to, frame });
        true
    }

    /// Sends a small frame to all neighbours but one.
    pub(super) fn send_control_to_all(&mut self, except: Option<PeerId>, frame: &Frame) {
        let to: Vec<PeerId> = self.neighbours.keys().copied().collect();
        for id in to.iter().filter(|id| Some(**id) != except) {
            self.send_control(id, frame);
        }
    }
}
