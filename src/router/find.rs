//! Asking the network for the way to a peer, and answering.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::directory::{Compared, Origin, is_signed};
use super::flood::find_digest;
use super::outflow::Rank;
use super::route::Hop;
use super::timers::Timer;
use super::{Output, Router};
use crate::crypto::{Domain, verify};
use crate::model::limits::FLOOD_LIFETIME;
use crate::model::{Monotonic, Occupancy, PeerId, Span};
use crate::wire::{Find, Found, ParsedRecord};

/// How long an answer to our find is waited for.
const FIND_PATIENCE: Span = Span::from_secs(3);
/// Peers that we seek at once: at two finds a second, more would wait for minutes.
const SEARCHES_MAX: usize = 1_024;
/// How long answers to a find are passed back.
const ASKED_LIFETIME: Span = Span::from_secs(60);
/// Finds whose answers are passed back: more than 200 verifications a second bring in that time.
const ASKED_MAX: usize = 16_384;
/// Answers to one find that are passed back, and that we take for a find of our own; each from
/// another neighbour, so that one alone cannot use them up.
const FOUNDS_PASSED_MAX: usize = 3;
const FOUNDS_TAKEN_MAX: usize = 8;
/// Neighbours through which a find's origin is learned, the first included.
const WAYS_BACK_MAX: u8 = 3;
/// Finds kept for neighbours that come while an answer is awaited: the newest.
const RECENT_MAX: usize = 64;

/// Finds, ours and others'.
#[derive(Debug, Default)]
pub(super) struct Finds {
    /// Whom our courier wants to reach.
    searches: BTreeMap<PeerId, Search>,
    /// Those of them whose find has not left yet, in order; some may be void by now.
    waiting: VecDeque<PeerId>,
    /// Finds that passed here or left here, by origin and nonce.
    asked: BTreeMap<(PeerId, u64), Asked>,
    /// The same in order of time.
    order: VecDeque<(Monotonic, (PeerId, u64))>,
    /// The newest of them, for neighbours that come while an answer is awaited: a target that was
    /// restarted, or the only way to it, need not be asked for again.
    recent: VecDeque<Recent>,
}

/// An answer to a find, whose form was checked.
#[derive(Debug)]
pub(super) struct Answer {
    found: Box<Found>,
    record: Box<ParsedRecord>,
}

/// A find that was sent to all neighbours.
#[derive(Debug)]
struct Recent {
    sent: Monotonic,
    origin: PeerId,
    nonce: u64,
    target: PeerId,
    frame: Bytes,
}

/// A peer that our courier wants to reach.
#[derive(Debug)]
struct Search {
    /// Only the peer itself may answer.
    direct: bool,
    /// The find that left for it, and when.
    sent: Option<(u64, Monotonic)>,
}

/// A find whose answers go back.
#[derive(Debug)]
struct Asked {
    /// The neighbour that asked us; none if the find is ours.
    asker: Option<PeerId>,
    /// Others that asked the same. If only the target itself may answer, what was known before did
    /// not work: its answer goes back on all these ways, so that one does not depend on whoever is
    /// quickest.
    others: Vec<PeerId>,
    target: PeerId,
    direct: bool,
    /// Neighbours whose answer was taken.
    answered: Vec<PeerId>,
    /// Through how many neighbours the origin was learned.
    ways_back: u8,
    /// Ours, and the courier was told that nobody answered: a late answer is news.
    missed: bool,
}

impl Finds {
    /// Whether a find of ours waits to leave.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Peers that were located before their find left need none.
    fn drop_void(&mut self) {
        let is_open = |peer: &PeerId| self.searches.get(peer).is_some_and(|s| s.sent.is_none());
        self.waiting.retain(is_open);
    }

    fn remember(&mut self, origin: PeerId, find: (u64, PeerId, bool), asker: Option<PeerId>) {
        let (nonce, target, direct) = find;
        let (others, answered) = (Vec::new(), Vec::new());
        let asked = Asked { asker, others, target, direct, answered, ways_back: 1, missed: false };
        self.asked.insert((origin, nonce), asked);
    }

    /// Forgets finds that nobody answers any more.
    pub(super) fn sweep(&mut self, now: Monotonic) {
        let is_old = |at: Monotonic| now.since(at) > ASKED_LIFETIME;
        while self.order.front().is_some_and(|(at, _)| is_old(*at)) {
            self.forget_oldest();
        }
    }

    fn note(&mut self, now: Monotonic, key: (PeerId, u64)) {
        self.order.push_back((now, key));
        while self.order.len() > ASKED_MAX {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.asked.remove(&key);
        }
    }

    pub(super) fn occupancy(&self) -> [Occupancy; 6] {
        let others = self.asked.values().map(|asked| asked.others.len()).max();
        [
            Occupancy::new("searches", self.searches.len(), SEARCHES_MAX),
            Occupancy::new("searches waiting", self.waiting.len(), SEARCHES_MAX),
            Occupancy::new("finds passed on", self.order.len(), ASKED_MAX),
            Occupancy::new("finds by nonce", self.asked.len(), self.order.len()),
            Occupancy::new("askers of a find", others.unwrap_or(0), usize::from(WAYS_BACK_MAX)),
            Occupancy::new("finds to repeat", self.recent.len(), RECENT_MAX),
        ]
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.searches.len(), self.asked.len())
    }
}

impl Router {
    /// The courier wants to write to a peer.
    pub(super) fn on_locate(&mut self, peer: PeerId, anew: bool) {
        let recorded = self.fresh_record(&peer).is_some();
        // One that fell silent is sought by others.
        let linked = self.neighbours.contains_key(&peer) && !self.is_doubted(&peer);
        if recorded && (linked || (!anew && self.has_way(&peer))) {
            return self.output(Output::Located { peer });
        }
        if anew {
            self.routes.doubt(&peer);
        }
        let full = self.finds.searches.len() >= SEARCHES_MAX;
        let known = self.finds.searches.get(&peer).map(|search| search.direct || !anew);
        if known == Some(true) {
            return;
        }
        if self.own.is_none() || self.neighbours.is_empty() || (known.is_none() && full) {
            return self.output(Output::NotFound { peer });
        }
        self.finds.searches.insert(peer, Search { direct: anew, sent: None });
        if !self.finds.waiting.contains(&peer) {
            if self.finds.waiting.len() >= SEARCHES_MAX {
                self.finds.drop_void();
            }
            self.finds.waiting.push_back(peer);
        }
        self.run_own_floods();
    }

    /// Whether a way to a peer is known that does not fail.
    fn has_way(&self, peer: &PeerId) -> bool {
        self.routes
            .hops(peer, self.now.mono)
            .any(|hop| !hop.is_bad() && self.neighbours.contains_key(&hop.via))
    }

    /// Peers that were located before their find left need none.
    pub(super) fn drop_void_searches(&mut self) {
        let finds = &mut self.finds;
        while let Some(peer) = finds.waiting.front() {
            if finds.searches.get(peer).is_some_and(|search| search.sent.is_none()) {
                return;
            }
            finds.waiting.pop_front();
        }
    }

    /// Floods the next find of ours.
    pub(super) fn send_find(&mut self) {
        let Some(target) = self.finds.waiting.pop_front() else { return };
        let nonce = self.random.number();
        let (now, expires) = (self.now.mono, self.now.wall + FLOOD_LIFETIME);
        let Some(own) = &self.own else { return };
        let Some(search) = self.finds.searches.get_mut(&target) else { return };
        search.sent = Some((nonce, now));
        let direct = search.direct;
        let signed = Find::to_sign(direct, nonce, &target, expires, &own.bytes);
        let signature = self.identity.sign(Domain::Find, &[&signed]);
        self.seen.insert(now, find_digest(&signed));
        self.finds.remember(self.me, (nonce, target, direct), None);
        self.finds.note(now, (self.me, nonce));
        let (origin, frame) = (self.me, Find::encode(&signed, &signature, 0));
        self.spread(None, Recent { sent: now, origin, nonce, target, frame });
        self.timers.set_by(Timer::Finds, now + FIND_PATIENCE);
    }

    /// Sends a find to all neighbours but one, and to those that come soon.
    fn spread(&mut self, except: Option<PeerId>, find: Recent) {
        let rank = except.map_or(Rank::Own, |from| self.rank_of(&find.origin, from));
        self.flood_to_all(except, rank, &find.target, &find.frame);
        let recent = &mut self.finds.recent;
        while recent.len() >= RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(find);
    }

    /// A new neighbour hears the finds that are still waiting for an answer.
    pub(super) fn repeat_finds(&mut self, neighbour: PeerId) {
        let now = self.now.mono;
        let (me, finds) = (self.me, &mut self.finds);
        finds.recent.retain(|find| now.since(find.sent) < FIND_PATIENCE);
        let waits = |find: &&Recent| {
            let asked = finds.asked.get(&(find.origin, find.nonce));
            asked.is_some_and(|asked| {
                asked.answered.is_empty()
                    && asked.asker != Some(neighbour)
                    && find.origin != neighbour
                    && (find.origin != me || finds.searches.contains_key(&asked.target))
            })
        };
        let recent = finds.recent.iter().filter(waits);
        let recent: Vec<_> =
            recent.map(|find| (find.origin, find.target, find.frame.clone())).collect();
        for (origin, target, frame) in recent {
            let rank = if origin == me { Rank::Own } else { self.rank_of(&origin, origin) };
            self.flood_to(&neighbour, rank, &target, frame);
        }
    }

    /// Finds that nobody answered in time.
    pub(super) fn on_finds_timer(&mut self) {
        let now = self.now.mono;
        let sent = |search: &Search| search.sent.map(|(_, at)| at);
        let searches = &self.finds.searches;
        let late = |at: &Monotonic| now.since(*at) >= FIND_PATIENCE;
        let missed: Vec<PeerId> = searches
            .iter()
            .filter(|(_, search)| sent(search).is_some_and(|at| late(&at)))
            .map(|(peer, _)| *peer)
            .collect();
        let next = searches.values().filter_map(sent).filter(|at| !late(at)).min();
        if let Some(next) = next {
            self.timers.set(Timer::Finds, next + FIND_PATIENCE);
        }
        for peer in missed {
            self.give_up_search(peer);
        }
    }

    /// No link is left to search on.
    pub(super) fn give_up_searches(&mut self) {
        self.finds.waiting.clear();
        let peers: Vec<PeerId> = self.finds.searches.keys().copied().collect();
        for peer in peers {
            self.give_up_search(peer);
        }
    }

    fn give_up_search(&mut self, peer: PeerId) {
        let Some(search) = self.finds.searches.remove(&peer) else { return };
        let asked = search.sent.and_then(|(nonce, _)| self.finds.asked.get_mut(&(self.me, nonce)));
        if let Some(asked) = asked {
            asked.missed = true;
        }
        self.output(Output::NotFound { peer });
    }

    /// A peer gave a sign of where it is, itself or through another's word: whether that is what
    /// our courier waits for.
    pub(super) fn on_located(&mut self, peer: PeerId, direct: bool) -> bool {
        let search = self.finds.searches.get(&peer);
        let located = search.is_some_and(|search| direct || !search.direct)
            && self.fresh_record(&peer).is_some();
        if located {
            self.finds.searches.remove(&peer);
            self.output(Output::Located { peer });
        }
        located
    }

    /// A find that was not seen before, verified: learn the way back, then answer or pass it on.
    pub(super) fn on_verified_find(&mut self, from: PeerId, find: &Find, record: ParsedRecord) {
        let origin = record.record.peer;
        if self.directory.compare(&record, self.now.wall) == Compared::Newer {
            self.learn_record(record, from, Origin::Flooded);
        }
        self.learn_route(origin, from, find.hops.saturating_add(1));
        self.on_located(origin, true);
        self.finds.remember(origin, (find.nonce, find.target, find.direct), Some(from));
        self.finds.note(self.now.mono, (origin, find.nonce));
        if find.target == self.me {
            self.answer_for_ourselves(from, origin, find.nonce);
        } else if find.direct || !self.answer_for_another(from, origin, find) {
            let hops = find.hops.saturating_add(1);
            let frame = Find::encode(&find.signed, &find.signature, hops);
            let (sent, nonce, target) = (self.now.mono, find.nonce, find.target);
            self.spread(Some(from), Recent { sent, origin, nonce, target, frame });
        }
    }

    /// The same find through another neighbour: another way back. It is not passed on.
    pub(super) fn on_find_again(&mut self, from: PeerId, find: &Find, origin: &PeerId) {
        let Some(asked) = self.finds.asked.get_mut(&(*origin, find.nonce)) else { return };
        if asked.asker.is_none_or(|asker| asker == from) || asked.ways_back >= WAYS_BACK_MAX {
            return;
        }
        asked.ways_back += 1;
        asked.others.push(from);
        self.learn_route(*origin, from, find.hops.saturating_add(1));
        if find.target == self.me {
            // So that the origin learns more than one way to us.
            self.answer_for_ourselves(from, *origin, find.nonce);
        }
    }

    fn answer_for_ourselves(&mut self, to: PeerId, origin: PeerId, nonce: u64) {
        let Some(own) = &self.own else { return };
        let signed = Found::to_sign(true, &origin, nonce, &own.bytes);
        let signature = self.identity.sign(Domain::Found, &[&signed]);
        self.send_traffic(&to, Found::encode(&signed, &signature, 0));
    }

    /// Answers with what we know of the target; false if that is not good enough.
    fn answer_for_another(&mut self, to: PeerId, origin: PeerId, find: &Find) -> bool {
        let Some(record) = self.fresh_record(&find.target) else { return false };
        let is_way = |via: &PeerId| *via != to && self.neighbours.contains_key(via);
        let is_good = |hop: &&Hop| is_way(&hop.via) && !hop.is_bad();
        let learned = || self.routes.hops(&find.target, self.now.mono).find(is_good);
        let hops = match is_way(&find.target) {
            true => Some(1),
            false => learned().map(|hop| hop.hops),
        };
        let Some(hops) = hops else { return false };
        let signed = Found::to_sign(false, &origin, find.nonce, &record.bytes);
        self.send_traffic(&to, Found::encode(&signed, &[0; 64], hops));
        true
    }

    /// An answer to a find came: the checks before its verification.
    pub(super) fn on_found(&mut self, from: PeerId, found: Found) {
        let Some(asked) = self.asked_of(&from, &found) else { return };
        let (target, is_ours) = (asked.target, asked.asker.is_none());
        let now = self.now.mono;
        if !self.neighbours.get_mut(&from).is_some_and(|there| there.founds.take(now)) {
            return;
        }
        let Ok(record) = self.read_record(&found.record) else { return };
        if record.record.peer != target || target == self.me {
            return;
        }
        let is_verified_already = !found.direct && self.is_held(&record);
        let answer = Answer { found: Box::new(found), record: Box::new(record) };
        match is_verified_already {
            true => self.on_answer(from, answer),
            false => self.admit_answer(from, answer, is_ours),
        }
    }

    /// What an answer is for, if it is waited for from this neighbour.
    fn asked_of(&self, from: &PeerId, found: &Found) -> Option<&Asked> {
        let asked = self.finds.asked.get(&(found.origin, found.nonce))?;
        let is_ours = asked.asker.is_none();
        let answers_max = if is_ours { FOUNDS_TAKEN_MAX } else { FOUNDS_PASSED_MAX };
        let is_awaited = asked.asker != Some(*from)
            && (found.direct || !asked.direct)
            && !asked.answered.contains(from)
            && asked.answered.len() < answers_max;
        is_awaited.then_some(asked)
    }

    /// An answer whose verification is paid for, and that others may have come before.
    pub(super) fn on_answer(&mut self, from: PeerId, answer: Answer) {
        let Answer { found, record } = answer;
        let Some(asked) = self.asked_of(&from, &found) else { return };
        let (asker, target) = (asked.asker, asked.target);
        let others = if found.direct { asked.others.clone() } else { Vec::new() };
        if !self.is_answer_verified(&found, &record) {
            return self.on_forgery(from, "answers to finds with signatures that do not hold");
        }
        let key = (found.origin, found.nonce);
        if let Some(asked) = self.finds.asked.get_mut(&key) {
            asked.answered.push(from);
        }
        if self.directory.compare(&record, self.now.wall) == Compared::Newer {
            let wanted = if asker.is_none() { Origin::Wanted } else { Origin::Flooded };
            self.learn_record(*record, from, wanted);
        }
        self.learn_route(target, from, found.hops.saturating_add(1));
        match asker {
            Some(asker) => {
                let hops = found.hops.saturating_add(1);
                let frame = Found::encode(&found.signed, &found.signature, hops);
                for other in others.iter().filter(|other| **other != from) {
                    self.send_traffic(other, frame.clone());
                }
                self.send_traffic(&asker, frame);
            }
            None => self.on_own_found(target, found.direct, key),
        }
    }

    /// Whether this very record is known: its signature was verified then.
    pub(super) fn is_held(&self, record: &ParsedRecord) -> bool {
        self.directory.compare(record, self.now.wall) == Compared::Same
    }

    /// Whether all signatures in it hold, the first of which is paid for.
    fn is_answer_verified(&mut self, found: &Found, record: &ParsedRecord) -> bool {
        let is_held = self.is_held(record);
        if !is_held && found.direct {
            self.verifier.owe();
        }
        (is_held || is_signed(record))
            && (!found.direct
                || verify(&record.record.peer, Domain::Found, &[&found.signed], &found.signature))
    }

    fn on_own_found(&mut self, peer: PeerId, direct: bool, key: (PeerId, u64)) {
        if self.on_located(peer, direct) || self.fresh_record(&peer).is_none() {
            return;
        }
        if let Some(asked) = self.finds.asked.get_mut(&key).filter(|asked| asked.missed) {
            asked.missed = false;
            self.output(Output::Located { peer });
        }
    }
}
