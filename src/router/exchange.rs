//! Comparing record tables with neighbours: all of it now and then, and news as they come.
//!
//! The neighbour's table is read page by page as digests; what is newer than ours is asked for in
//! batches, one request at a time, verified at a pace of its own, and only then the next page is
//! asked for. So neither side holds more than a page of the other's table in mind.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::budget::Lanes;
use super::directory::{Compared, Origin, is_from_the_future, is_signed};
use super::timers::Timer;
use super::{DiscoverOutcome, Output, Router};
use crate::model::limits::{CLOCK_SKEW_MAX, DIGESTS_MAX, RECORDS_PER_FRAME_MAX};
use crate::model::{Bucket, Monotonic, Occupancy, PeerId, Span};
use crate::wire::{CloseReason, Digest, Frame, ParsedRecord};

/// How often tables are compared with all neighbours, plus up to a quarter.
const COMPARE_INTERVAL: Span = Span::from_secs(600);
/// Records of exchanges verified in a second: a signature costs some 50 us, so these leave the
/// processor nearly free.
const RECORD_VERIFICATIONS_PER_SECOND: u32 = 1_000;
/// A neighbour that owes an answer for this long does not hold up others: a discover goes on
/// without it, and what it was asked for is asked of others too.
const STALLED_AFTER: Span = Span::from_secs(5);
/// On a slow link an answer may take longer; after this it is not waited for.
const ANSWER_PATIENCE: Span = Span::from_secs(30);
/// Digests waiting to be asked for, from news: the next comparison brings what is above.
const WANTED_MAX: usize = 4 * DIGESTS_MAX;
/// Digests looked at in a row that others are being asked for: whoever sends a frame of a few bytes
/// makes us look at no more. The rest is looked at the next time that something has come.
const ELSEWHERE_MAX: usize = 64;
/// Pages read from one neighbour beyond those that our table could hold.
const PAGES_EXTRA_MAX: usize = 64;

/// Where the comparison with one neighbour stands.
#[derive(Debug, Default)]
pub(super) struct Dialogue {
    /// The comparison of whole tables that is going on.
    run: Option<Run>,
    /// Records to ask for.
    wanted: Wanted,
    /// What it was asked for and owes.
    asked: Option<BTreeSet<PeerId>>,
    /// When it was last asked for anything.
    asked_at: Monotonic,
}

/// Records to ask one neighbour for, each once.
#[derive(Debug, Default)]
struct Wanted {
    /// The sequence that the neighbour claims to have.
    sequences: BTreeMap<PeerId, u64>,
    /// The same peers, in turn.
    order: VecDeque<PeerId>,
}

impl Wanted {
    /// Adds a record to ask for; false if it was there.
    fn add(&mut self, digest: &Digest) -> bool {
        let before = self.sequences.get(&digest.peer).copied();
        self.sequences.insert(digest.peer, digest.sequence.max(before.unwrap_or(0)));
        if before.is_none() {
            self.order.push_back(digest.peer);
        }
        before.is_none()
    }

    /// The next in turn, and its sequence.
    fn take(&mut self) -> Option<Digest> {
        let peer = self.order.pop_front()?;
        let sequence = self.sequences.remove(&peer)?;
        Some(Digest { peer, sequence })
    }

    fn len(&self) -> usize {
        self.order.len()
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// A comparison of whole tables.
#[derive(Debug, Default)]
struct Run {
    /// Its number, in requests and answers.
    exchange: u32,
    /// The last peer of the last page.
    after: Option<PeerId>,
    /// Whether a page is owed.
    waiting: bool,
    /// Whether there is nothing after the last page.
    complete: bool,
    /// How many pages came.
    pages: usize,
}

impl Dialogue {
    /// News, and a page on top of them.
    pub(super) fn occupancy(&self) -> [Occupancy; 2] {
        let asked = self.asked.as_ref().map_or(0, BTreeSet::len);
        [
            Occupancy::new("records wanted", self.wanted.len(), WANTED_MAX + DIGESTS_MAX),
            Occupancy::new("records asked for", asked, RECORDS_PER_FRAME_MAX),
        ]
    }

    /// Whether an answer is owed.
    fn is_waiting(&self) -> bool {
        self.asked.is_some() || self.run.as_ref().is_some_and(|run| run.waiting)
    }
}

/// What is common to all comparisons.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Records asked for that are neither here nor given up: of whom, and since when. Others are
    /// not asked for the same meanwhile.
    fetching: BTreeMap<PeerId, (PeerId, Monotonic)>,
    /// Records that came and wait for their verification. A neighbour is asked for more only when
    /// all of its were verified, so each lane has at most [`RECORDS_PER_FRAME_MAX`].
    arrived: Lanes<ParsedRecord>,
    /// The pace of verification.
    budget: Bucket,
    /// The discover that a user waits for.
    discover: Option<Discover>,
    /// Digests looked at in order to ask for their records, ever.
    #[cfg(test)]
    looked_at: usize,
}

/// A discover that goes on.
#[derive(Debug, Default)]
struct Discover {
    /// Neighbours whose table is not merged yet.
    waiting: BTreeSet<PeerId>,
    outcome: DiscoverOutcome,
}

impl Exchange {
    pub(super) fn new(now: Monotonic) -> Self {
        let rate = RECORD_VERIFICATIONS_PER_SECOND;
        Self {
            fetching: BTreeMap::new(),
            arrived: Lanes::default(),
            budget: Bucket::new(rate, rate, now),
            discover: None,
            #[cfg(test)]
            looked_at: 0,
        }
    }

    /// Counts a record that was learned; whether a discover is going on.
    pub(super) fn count(&mut self, new: bool) -> bool {
        let Some(discover) = &mut self.discover else { return false };
        if new {
            discover.outcome.new += 1;
        } else {
            discover.outcome.updated += 1;
        }
        true
    }

    /// With so many links at most.
    pub(super) fn occupancy(&self, links_max: usize) -> [Occupancy; 3] {
        let limit = links_max.saturating_mul(RECORDS_PER_FRAME_MAX);
        let discovering = self.discover.as_ref().map_or(0, |discover| discover.waiting.len());
        [
            Occupancy::new("records being fetched", self.fetching.len(), limit),
            Occupancy::new("records to verify", self.arrived.len(), limit),
            Occupancy::new("tables being merged", discovering, links_max),
        ]
    }

    #[cfg(test)]
    pub(super) fn fetching(&self) -> usize {
        self.fetching.len()
    }

    #[cfg(test)]
    pub(super) const fn looked_at(&self) -> usize {
        self.looked_at
    }
}

impl Router {
    /// A user wants all neighbours' tables merged now.
    pub(super) fn on_discover(&mut self) {
        if self.exchange.discover.is_some() {
            return;
        }
        let waiting: BTreeSet<PeerId> = self.neighbours.keys().copied().collect();
        let asked = u64::try_from(waiting.len()).unwrap_or(u64::MAX);
        let outcome = DiscoverOutcome { asked, ..DiscoverOutcome::default() };
        self.exchange.discover = Some(Discover { waiting: waiting.clone(), outcome });
        for neighbour in waiting {
            self.compare_with(neighbour);
            // If a comparison is going on it is joined, but it must go on.
            if self.neighbours.get(&neighbour).is_some_and(|n| n.dialogue.is_waiting()) {
                self.timers.set_by(Timer::Exchange(neighbour), self.now.mono + STALLED_AFTER);
            }
        }
        self.end_discover_if_done();
    }

    /// Time to compare tables with everybody.
    pub(super) fn on_compare_timer(&mut self) {
        self.schedule_compare();
        let neighbours: Vec<PeerId> = self.neighbours.keys().copied().collect();
        for neighbour in neighbours {
            self.compare_with(neighbour);
        }
    }

    pub(super) fn schedule_compare(&mut self) {
        let jitter = self.random.below(COMPARE_INTERVAL.as_micros() / 4);
        let at = self.now.mono + COMPARE_INTERVAL + Span::from_micros(jitter);
        self.timers.set(Timer::Compare, at);
    }

    /// Begins to compare tables with a neighbour, unless that is going on.
    pub(super) fn compare_with(&mut self, id: PeerId) {
        let [a, b, c, d] = self.random.bytes();
        let Some(neighbour) = self.neighbours.get_mut(&id) else { return };
        if neighbour.dialogue.run.is_none() {
            let exchange = u32::from_be_bytes([a, b, c, d]).max(1);
            neighbour.dialogue.run = Some(Run { exchange, ..Run::default() });
            self.pump(id);
        }
    }

    /// Asks a neighbour for the next thing, if it owes nothing.
    fn pump(&mut self, id: PeerId) {
        let batch = match self.neighbours.get(&id) {
            Some(n) if !n.dialogue.is_waiting() && self.exchange.arrived.count(&id) == 0 => {
                self.next_batch(id)
            }
            _ => return,
        };
        let now = self.now.mono;
        let Some(neighbour) = self.neighbours.get_mut(&id) else { return };
        let dialogue = &mut neighbour.dialogue;
        let request = if !batch.is_empty() {
            self.exchange.fetching.extend(batch.iter().map(|peer| (*peer, (id, now))));
            dialogue.asked = Some(batch.iter().copied().collect());
            Frame::RecordRequest { peers: batch }
        } else if !dialogue.wanted.is_empty() {
            // Others are being asked for all of it: this goes on when they are done.
            return;
        } else if let Some(run) = &mut dialogue.run {
            if run.complete {
                return self.end_run(id, true);
            }
            run.waiting = true;
            Frame::DigestRequest { exchange: run.exchange, after: run.after }
        } else {
            return;
        };
        dialogue.asked_at = now;
        self.timers.set(Timer::Exchange(id), now + STALLED_AFTER);
        self.send_control(&id, &request);
    }

    /// Goes on with everybody that waited for others.
    fn pump_all(&mut self) {
        let idle = |dialogue: &Dialogue| {
            !dialogue.is_waiting() && (dialogue.run.is_some() || !dialogue.wanted.is_empty())
        };
        let neighbours = self.neighbours.iter().filter(|(_, n)| idle(&n.dialogue));
        let neighbours: Vec<PeerId> = neighbours.map(|(id, _)| *id).collect();
        for id in neighbours {
            self.pump(id);
        }
    }

    /// The next records to ask a neighbour for. What others are being asked for goes to the end of
    /// the queue, so that several neighbours with the same table share the work.
    fn next_batch(&mut self, id: PeerId) -> Vec<PeerId> {
        let Some(neighbour) = self.neighbours.get_mut(&id) else { return Vec::new() };
        let mut wanted = std::mem::take(&mut neighbour.dialogue.wanted);
        let mut batch = Vec::new();
        let mut elsewhere = Vec::new();
        while batch.len() < RECORDS_PER_FRAME_MAX && elsewhere.len() < ELSEWHERE_MAX {
            let Some(digest) = wanted.take() else { break };
            #[cfg(test)]
            {
                self.exchange.looked_at += 1;
            }
            if !self.is_wanted(&digest, &id) {
                continue;
            }
            if self.is_fetched_elsewhere(&digest.peer, &id) {
                elsewhere.push(digest);
            } else {
                batch.push(digest.peer);
            }
        }
        for digest in &elsewhere {
            wanted.add(digest);
        }
        if let Some(neighbour) = self.neighbours.get_mut(&id) {
            neighbour.dialogue.wanted = wanted;
        }
        batch
    }

    fn is_fetched_elsewhere(&self, peer: &PeerId, id: &PeerId) -> bool {
        let fetching = self.exchange.fetching.get(peer);
        fetching.is_some_and(|(of, since)| of != id && self.now.mono.since(*since) < STALLED_AFTER)
    }

    /// Whether a record that a neighbour has is worth asking for.
    fn is_wanted(&self, digest: &Digest, of: &PeerId) -> bool {
        let Digest { peer, sequence } = *digest;
        if sequence > (self.now.wall + CLOCK_SKEW_MAX).as_millis() {
            return false;
        }
        if peer == self.me {
            return self.is_own_ahead(sequence);
        }
        match self.directory.record(&peer) {
            Some(known) => {
                known.record.sequence < sequence || is_from_the_future(&known.record, self.now.wall)
            }
            None => self.is_kept(&peer) || self.directory.has_room(&peer, of),
        }
    }

    /// A neighbour asks what we have.
    pub(super) fn on_digest_request(&mut self, from: PeerId, exchange: u32, after: Option<PeerId>) {
        if exchange == 0 {
            return self.disconnect(from, CloseReason::Protocol, "a comparison has no number");
        }
        let now = self.now.mono;
        if self.neighbours.get_mut(&from).is_some_and(|n| n.pages.take(now)) {
            let (digests, more) = self.digests_after(after);
            self.send_traffic(&from, Frame::Digests { exchange, more, digests }.encode());
        }
    }

    /// A neighbour says what it has: a page we asked for, or news.
    pub(super) fn on_digests(
        &mut self,
        from: PeerId,
        exchange: u32,
        more: bool,
        digests: &[Digest],
    ) {
        for digest in digests {
            self.directory.hear(digest, from, |id| self.neighbours.contains_key(id));
        }
        let wanted: Vec<&Digest> =
            digests.iter().filter(|digest| self.is_wanted(digest, &from)).collect();
        let pages_max = self.limits.records_max / DIGESTS_MAX + PAGES_EXTRA_MAX;
        let Some(neighbour) = self.neighbours.get_mut(&from) else { return };
        let dialogue = &mut neighbour.dialogue;
        if exchange == 0 {
            let mut any = false;
            for digest in wanted {
                if dialogue.wanted.len() >= WANTED_MAX {
                    break;
                }
                any |= dialogue.wanted.add(digest);
            }
            // What is no news changes nothing: whatever waits goes on when an answer comes.
            if any {
                self.pump(from);
            }
            return;
        }
        let Some(run) = &mut dialogue.run else { return };
        if run.exchange != exchange || !run.waiting {
            return;
        }
        let first = digests.first().map(|digest| digest.peer);
        let ordered = digests.is_sorted_by(|a, b| a.peer < b.peer)
            && (first.is_none() || first > run.after)
            && (first.is_some() || !more);
        if !ordered {
            return self.disconnect(from, CloseReason::Protocol, "digests are not in order");
        }
        run.waiting = false;
        run.pages += 1;
        run.after = digests.last().map(|digest| digest.peer);
        run.complete = !more;
        let endless = more && run.pages >= pages_max;
        for digest in wanted {
            dialogue.wanted.add(digest);
        }
        self.timers.clear(Timer::Exchange(from));
        if endless {
            self.end_run(from, false);
        }
        self.pump(from);
    }

    /// A neighbour asks for records.
    pub(super) fn on_record_request(&mut self, from: PeerId, peers: &[PeerId]) {
        let now = self.now.mono;
        if !self.neighbours.get_mut(&from).is_some_and(|n| n.answers.take(now)) {
            return;
        }
        let records = peers
            .iter()
            .filter_map(|peer| match *peer == self.me {
                true => self.own.as_ref(),
                false => self.fresh_record(peer),
            })
            .map(|record| record.bytes.clone())
            .collect();
        self.send_traffic(&from, Frame::Records { records }.encode());
    }

    /// Records that we asked for; others are ignored.
    pub(super) fn on_records(&mut self, from: PeerId, records: &[bytes::Bytes]) {
        let dialogue = self.neighbours.get_mut(&from).map(|n| &mut n.dialogue);
        let Some(mut asked) = dialogue.and_then(|dialogue| dialogue.asked.take()) else { return };
        self.timers.clear(Timer::Exchange(from));
        for record in records {
            let Ok(record) = self.read_record(record) else { continue };
            if asked.remove(&record.record.peer) {
                self.exchange.arrived.push(from, record);
            }
        }
        self.release(from, asked);
        if self.exchange.arrived.count(&from) == 0 {
            self.pump_all();
        }
        self.verify_records();
    }

    /// Verifies as many of the records that came as the pace allows.
    pub(super) fn verify_records(&mut self) {
        while !self.exchange.arrived.is_empty() {
            let now = self.now.mono;
            if !self.exchange.budget.take(now) {
                self.timers.set(Timer::Records, self.exchange.budget.ready_at(now));
                return;
            }
            let Some((from, record)) = self.exchange.arrived.pop() else { return };
            self.take_record(from, record);
            if self.exchange.arrived.count(&from) == 0 {
                self.pump_all();
            }
        }
    }

    fn take_record(&mut self, from: PeerId, record: ParsedRecord) {
        let peer = record.record.peer;
        self.release(from, [peer].into());
        if peer == self.me {
            return self.on_own_record_seen(&record);
        }
        if self.directory.compare(&record, self.now.wall) != Compared::Newer {
            return;
        }
        if is_signed(&record) {
            self.learn_record(record, from, Origin::Exchange);
        } else {
            self.on_forgery(from, "records with signatures that do not hold");
        }
    }

    /// These are no longer being fetched from this neighbour.
    fn release(&mut self, of: PeerId, peers: BTreeSet<PeerId>) {
        for peer in peers {
            if self.exchange.fetching.get(&peer).is_some_and(|(from, _)| *from == of) {
                self.exchange.fetching.remove(&peer);
            }
        }
    }

    /// A neighbour owes an answer for long.
    pub(super) fn on_exchange_timer(&mut self, id: PeerId) {
        let now = self.now.mono;
        let Some(neighbour) = self.neighbours.get_mut(&id) else { return };
        if !neighbour.dialogue.is_waiting() {
            return;
        }
        let patience_ends = neighbour.dialogue.asked_at + ANSWER_PATIENCE;
        if now < patience_ends {
            self.timers.set(Timer::Exchange(id), patience_ends);
            self.leave_out_of_discover(&id, false);
        } else {
            self.end_dialogue(id);
        }
        self.pump_all();
    }

    /// Gives up whatever goes on with a neighbour.
    pub(super) fn end_dialogue_of(&mut self, id: &PeerId) {
        self.end_dialogue(*id);
        self.pump_all();
    }

    fn end_dialogue(&mut self, id: PeerId) {
        self.timers.clear(Timer::Exchange(id));
        self.exchange.arrived.remove(&id);
        self.exchange.fetching.retain(|_, (of, _)| *of != id);
        if let Some(neighbour) = self.neighbours.get_mut(&id) {
            neighbour.dialogue = Dialogue::default();
        }
        self.leave_out_of_discover(&id, false);
    }

    fn end_run(&mut self, id: PeerId, complete: bool) {
        if let Some(neighbour) = self.neighbours.get_mut(&id) {
            neighbour.dialogue.run = None;
        }
        self.leave_out_of_discover(&id, complete);
    }

    /// A neighbour needs not be waited for any longer.
    fn leave_out_of_discover(&mut self, id: &PeerId, complete: bool) {
        let Some(discover) = &mut self.exchange.discover else { return };
        if discover.waiting.remove(id) && complete {
            discover.outcome.answered += 1;
        }
        self.end_discover_if_done();
    }

    fn end_discover_if_done(&mut self) {
        if self.exchange.discover.as_ref().is_some_and(|discover| discover.waiting.is_empty())
            && let Some(discover) = self.exchange.discover.take()
        {
            self.output(Output::Discovered(discover.outcome));
        }
    }
}
