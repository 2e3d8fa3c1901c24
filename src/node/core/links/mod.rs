//! Links: one to each neighbour, which ones to make, and when to try again.

mod auto;
mod connect;

use std::collections::BTreeMap;

use self::connect::{Connecting, failure_of, failure_text};
use super::{Caller, Core, DialFailure, DialId, Effect, LinkId, LinkUp, jittered};
use crate::control::Outgoing as ToClient;
use crate::control::protocol::{Event, LinkEvent};
use crate::courier;
use crate::crypto::{Domain, verify};
use crate::model::{Address, Monotonic, Now, Occupancy, PeerId, Record, Span};
use crate::router;
use crate::wire::{CloseReason, decode_record};

/// Before a peer that could not be reached is dialled again; doubled each time.
const REDIAL_INITIAL: Span = Span::from_millis(500);
/// A link that ends sooner than this is no success: its peer is dialled again no sooner than one
/// that could not be reached.
pub(in crate::node::core) const BRIEF_LINK_MAX: Span = Span::from_secs(30);
/// Between dials of a peer that stays away. A half longer at most, by jitter, so that what waits
/// for the end of a partition is delivered within a minute after it.
const REDIAL_MAX: Span = Span::from_secs(30);
/// Dials to kept peers at once: each takes a file descriptor. Who has waited longest goes first.
pub(in crate::node::core) const KEPT_DIALS_MAX: usize = 64;
/// How often to look whether there are enough links to peers of our own choice.
const AUTO_INTERVAL: Span = Span::from_secs(10);
/// When to look again after we reached somebody: whom it knows may be reached too.
const AUTO_SOON: Span = Span::from_millis(500);
/// Peers of our own choice that could not be reached are left alone for this long.
const AUTO_PAUSE: Span = Span::from_secs(600);
/// How many of them are remembered.
const AUTO_PAUSED_MAX: usize = 1_024;
/// Those among them to which there was a link are left alone for this long only: the network may
/// have been cut in two, and only we know whom to look for.
const LOST_PAUSE: Span = Span::from_secs(20);
/// How many of those are remembered.
const LOST_MAX: usize = 64;
/// Why there is no room for one more link, for both operators.
const LINKS_FULL: &str = "the limit of links is reached";

/// A link that is up.
#[derive(Debug)]
pub(in crate::node::core) struct LinkState {
    pub(in crate::node::core) peer: PeerId,
    pub(in crate::node::core) outbound: bool,
    pub(in crate::node::core) address: Address,
    pub(in crate::node::core) since: Monotonic,
    instance: u64,
    /// Whether the other end dialled: this link, or one that this one made superfluous.
    peer_dials: bool,
}

/// What a dial is for.
#[derive(Debug)]
enum Purpose {
    /// A client wants to know who answers.
    Probe(Caller),
    /// The operator's peer, at its own address or one from its record.
    Keep(PeerId),
    /// A peer of our own choice.
    Auto(PeerId),
    /// A client asked to connect a peer that is linked already: does it answer there too?
    Verify(PeerId),
}

#[derive(Debug)]
struct Dialling {
    purpose: Purpose,
    address: Address,
}

/// A peer whose link is kept.
#[derive(Debug)]
struct Kept {
    /// Dials in a row that came to no link.
    failures: u32,
    /// Links in a row that soon ended.
    brief_links: u32,
    /// When to dial again, if there is no link then.
    next: Monotonic,
    /// The dial that is under way; it is among [`Links::dials`] until it ends.
    dial: Option<DialId>,
    /// Tells which of the addresses is next.
    turn: usize,
}

/// All links of a node.
#[derive(Debug)]
pub(in crate::node::core) struct Links {
    up: BTreeMap<LinkId, LinkState>,
    active: BTreeMap<PeerId, LinkId>,
    dials: BTreeMap<DialId, Dialling>,
    next_dial: u64,
    kept: BTreeMap<PeerId, Kept>,
    connecting: Vec<Connecting>,
    /// Why kept peers were not reached, for people.
    last_errors: BTreeMap<PeerId, String>,
    /// Links to peers that the operator did not connect.
    auto: usize,
    links_max: usize,
    auto_next: Monotonic,
    auto_paused: BTreeMap<PeerId, Monotonic>,
    /// Peers that the operator did not connect, whose links went down, and when.
    lost: BTreeMap<PeerId, Monotonic>,
}

impl Links {
    pub(in crate::node::core) fn new(auto: usize, links_max: usize, now: Now) -> Self {
        Self {
            up: BTreeMap::new(),
            active: BTreeMap::new(),
            dials: BTreeMap::new(),
            next_dial: 1,
            kept: BTreeMap::new(),
            connecting: Vec::new(),
            last_errors: BTreeMap::new(),
            auto,
            links_max,
            auto_next: now.mono,
            auto_paused: BTreeMap::new(),
            lost: BTreeMap::new(),
        }
    }

    /// Keeps to these numbers from now on; links that are up stay.
    pub(in crate::node::core) fn adopt(&mut self, auto: usize, links_max: usize, now: Now) {
        if auto > self.auto {
            // There are too few now.
            self.auto_next = now.mono;
        }
        (self.auto, self.links_max) = (auto, links_max);
    }

    /// Who is at the other end, if this is the link that is used.
    pub(in crate::node::core) fn active_peer(&self, link: LinkId) -> Option<PeerId> {
        let peer = self.up.get(&link)?.peer;
        (self.active.get(&peer) == Some(&link)).then_some(peer)
    }

    pub(in crate::node::core) fn link_of(&self, peer: &PeerId) -> Option<LinkId> {
        self.active.get(peer).copied()
    }

    pub(in crate::node::core) fn state_of(&self, peer: &PeerId) -> Option<&LinkState> {
        self.up.get(self.active.get(peer)?)
    }

    pub(in crate::node::core) fn len(&self) -> usize {
        self.active.len()
    }

    pub(in crate::node::core) fn last_error(&self, peer: &PeerId) -> Option<&String> {
        self.last_errors.get(peer)
    }

    pub(in crate::node::core) fn occupancy(&self) -> [Occupancy; 7] {
        let dials_max = self.kept.len() + connect::ASKED_FOR_MAX + auto::AUTO_DIALS_MAX;
        [
            Occupancy::new("links", self.active.len(), self.links_max),
            Occupancy::new("links with their state", self.up.len(), self.active.len()),
            Occupancy::new("dials", self.dials.len(), dials_max),
            Occupancy::new("clients that connect", self.connecting.len(), connect::ASKED_FOR_MAX),
            Occupancy::new("peers not reached", self.last_errors.len(), self.kept.len()),
            Occupancy::new("peers left alone", self.auto_paused.len(), AUTO_PAUSED_MAX),
            Occupancy::new("peers lost", self.lost.len(), LOST_MAX),
        ]
    }

    /// Keeps a link to a peer from now on.
    pub(in crate::node::core) fn keep(&mut self, peer: PeerId, now: Monotonic) {
        self.auto_paused.remove(&peer);
        let new = Kept { failures: 0, brief_links: 0, next: now, dial: None, turn: 0 };
        self.kept.entry(peer).or_insert(new);
    }

    /// Keeps no link to a peer any longer.
    pub(in crate::node::core) fn let_go(&mut self, peer: &PeerId) {
        self.kept.remove(peer);
        self.last_errors.remove(peer);
    }

    /// Does not dial a peer by our own choice either, until the operator connects it again.
    fn shun(&mut self, peer: PeerId) {
        self.pause_auto(peer, Monotonic::NEVER);
    }

    /// Leaves a peer alone until then.
    fn pause_auto(&mut self, peer: PeerId, until: Monotonic) {
        while self.auto_paused.len() >= AUTO_PAUSED_MAX {
            let soonest = self.auto_paused.iter().min_by_key(|(_, until)| **until);
            let Some(soonest) = soonest.map(|(peer, _)| *peer) else { break };
            self.auto_paused.remove(&soonest);
        }
        // Whoever is shunned stays so.
        let until = self.auto_paused.get(&peer).map_or(until, |before| until.max(*before));
        self.auto_paused.insert(peer, until);
    }

    /// Whether a dial was meant for a peer that the operator disconnected meanwhile.
    fn is_unwanted(&self, peer: &PeerId, dial: Option<DialId>) -> bool {
        let Some(dialling) = dial.and_then(|dial| self.dials.get(&dial)) else { return false };
        match dialling.purpose {
            Purpose::Keep(_) => {
                !self.kept.contains_key(peer)
                    && self.connecting.iter().all(|connecting| connecting.peer != *peer)
            }
            Purpose::Auto(_) => self.auto_paused.get(peer) == Some(&Monotonic::NEVER),
            Purpose::Probe(_) | Purpose::Verify(_) => false,
        }
    }

    /// Dials that clients wait for.
    fn asked_for(&self) -> usize {
        let probes = |dialling: &&Dialling| matches!(dialling.purpose, Purpose::Probe(_));
        self.dials.values().filter(probes).count() + self.connecting.len()
    }

    /// How many more kept peers may be dialled now.
    fn kept_dials_left(&self) -> usize {
        let keeps = |dialling: &&Dialling| matches!(dialling.purpose, Purpose::Keep(_));
        KEPT_DIALS_MAX.saturating_sub(self.dials.values().filter(keeps).count())
    }

    /// Kept peers that have no link and are not being dialled, and when each is to be.
    fn missed(&self) -> impl Iterator<Item = (PeerId, &Kept)> {
        let idle = |(peer, kept): &(&PeerId, &Kept)| {
            kept.dial.is_none() && !self.active.contains_key(peer)
        };
        self.kept.iter().filter(idle).map(|(peer, kept)| (*peer, kept))
    }

    pub(in crate::node::core) fn deadline(&self) -> Monotonic {
        // With as many dials under way as there may be, the next goes when one of them ends.
        let left = self.kept_dials_left();
        let kept = self.missed().map(|(_, kept)| kept.next).filter(|_| left > 0);
        let connecting = self.connecting.iter().map(|connecting| connecting.deadline);
        let auto = (self.auto > 0).then_some(self.auto_next);
        kept.chain(connecting).chain(auto).min().unwrap_or(Monotonic::NEVER)
    }

    /// Remembers whose link went down; whom we lost first makes room.
    fn note_lost(&mut self, peer: PeerId, now: Monotonic) {
        self.lost.insert(peer, now);
        if self.lost.len() > LOST_MAX
            && let Some(first) = self.lost.iter().min_by_key(|(_, at)| **at).map(|(peer, _)| *peer)
        {
            self.lost.remove(&first);
        }
    }

    /// Remembers why a peer that the operator cares for has no link: strangers may come and go in
    /// any number.
    fn note_error(&mut self, peer: PeerId, why: &str) {
        let awaited = || self.connecting.iter().any(|connecting| connecting.peer == peer);
        if self.kept.contains_key(&peer) || awaited() {
            self.last_errors.insert(peer, why.to_owned());
        }
    }

    fn dial(&mut self, purpose: Purpose, address: Address) -> (DialId, Effect) {
        let dial = DialId(self.next_dial);
        self.next_dial += 1;
        let (expected, probe) = match &purpose {
            Purpose::Probe(_) => (None, true),
            Purpose::Keep(peer) | Purpose::Auto(peer) => (Some(*peer), false),
            Purpose::Verify(peer) => (Some(*peer), true),
        };
        self.dials.insert(dial, Dialling { purpose, address: address.clone() });
        (dial, Effect::Dial { dial, address, expected, probe })
    }

    /// A dial ended, whatever came of it: the only way out of the table, so that no kept peer waits
    /// for a dial that is over.
    fn end_dial(&mut self, dial: DialId) -> Option<Dialling> {
        let dialling = self.dials.remove(&dial)?;
        if let Purpose::Keep(peer) = &dialling.purpose
            && let Some(kept) = self.kept.get_mut(peer)
            && kept.dial == Some(dial)
        {
            kept.dial = None;
        }
        Some(dialling)
    }
}

impl Core {
    pub(in crate::node::core) fn on_link_up(&mut self, now: Now, up: LinkUp) {
        let LinkUp { link, peer, dial, address, instance, record } = up;
        let outbound = dial.is_some();
        let (since, peer_dials) = (now.mono, !outbound);
        let mut state = LinkState { peer, outbound, address, since, instance, peer_dials };
        if peer == self.me {
            self.refuse_link(link, CloseReason::Myself, "");
            return self.on_link_refused(now, dial, CloseReason::Myself.to_string());
        }
        if self.links.is_unwanted(&peer, dial) {
            self.refuse_link(link, CloseReason::Operator, "");
            return self.on_link_refused(now, dial, CloseReason::Operator.to_string());
        }
        if let Some(old) = self.links.active.get(&peer).copied() {
            let replaces = self.replaces(old, &state);
            if let Some(old) = self.links.up.get_mut(&old) {
                state.peer_dials |= old.peer_dials;
                old.peer_dials = state.peer_dials;
            }
            if !replaces {
                self.refuse_link(link, CloseReason::Duplicate, "");
                return self.on_linked(now, peer, dial);
            }
            self.drop_active(now, &peer);
            self.out.flush_frames_of(old);
            self.refuse_link(old, CloseReason::Duplicate, "");
        } else if !self.has_room_for_link(now, &state) {
            self.refuse_link(link, CloseReason::Busy, LINKS_FULL);
            return self.on_link_refused(now, dial, LINKS_FULL.to_owned());
        }
        self.links.up.insert(link, state);
        self.links.active.insert(peer, link);
        self.links.lost.remove(&peer);
        if outbound {
            let soon = now.mono + jittered(&mut self.random, AUTO_SOON);
            self.links.auto_next = self.links.auto_next.min(soon);
        }
        self.router.handle(now, router::Input::LinkUp { neighbour: peer, record });
        self.route(now);
        if self.links.link_of(&peer) == Some(link) {
            self.links.last_errors.remove(&peer);
            self.on_linked(now, peer, dial);
            self.courier.handle(now, courier::Input::Nudge { peer: None });
            self.tell_link(peer, true, None);
        } else {
            // The router would not have it, for a reason that was noted with its end.
            let why = self.links.last_errors.get(&peer).cloned();
            let why = why.unwrap_or_else(|| "its link was refused".to_owned());
            self.on_link_refused(now, dial, why);
        }
    }

    /// A link that we refused: if we dialled it, that dial came to nothing.
    fn on_link_refused(&mut self, now: Now, dial: Option<DialId>, reason: String) {
        if let Some(dial) = dial {
            self.on_dial_failed(now, dial, DialFailure::Unacceptable { reason });
        }
    }

    /// Whether there may be one more link. The operator's peers are always let in: the newest link
    /// that a stranger dialled goes for them. Strangers leave room for those that we dial.
    fn has_room_for_link(&mut self, now: Now, new: &LinkState) -> bool {
        let Links { links_max, auto, .. } = self.links;
        let own_share = auto.div_ceil(2).min(links_max / 2);
        let taken = self.links.active.len();
        if self.peers.dial(&new.peer).is_none() {
            return taken < links_max - if new.outbound { 0 } else { own_share };
        }
        if taken < links_max {
            return true;
        }
        let up = self.links.active.values().filter_map(|link| self.links.up.get(link));
        let strangers = up.filter(|link| !link.outbound && self.peers.dial(&link.peer).is_none());
        let Some(newest) = strangers.max_by_key(|link| link.since).map(|link| link.peer) else {
            return false;
        };
        self.close_link(now, &newest, CloseReason::Busy, LINKS_FULL);
        true
    }

    /// Whether a new link to the same peer replaces the old one. Both ends come to the same answer.
    fn replaces(&self, old: LinkId, new: &LinkState) -> bool {
        let Some(old) = self.links.up.get(&old) else { return true };
        // The peer's daemon was restarted, or dialled again: the old link is dead.
        if old.instance != new.instance || old.outbound == new.outbound {
            return true;
        }
        // Both dialled at once: the link that the smaller ID dialled stays.
        new.outbound == (self.me < new.peer)
    }

    /// There is a link to this peer, perhaps by a dial: whoever waited for it is told.
    fn on_linked(&mut self, now: Now, peer: PeerId, dial: Option<DialId>) {
        if let Some(dial) = dial {
            self.links.end_dial(dial);
        }
        if let Some(kept) = self.links.kept.get_mut(&peer) {
            kept.failures = 0;
        }
        let (mine, others) = std::mem::take(&mut self.links.connecting)
            .into_iter()
            .partition(|connecting| connecting.peer == peer);
        self.links.connecting = others;
        let mine: Vec<Connecting> = mine;
        for connecting in mine {
            self.on_connected(now, connecting);
        }
    }

    pub(in crate::node::core) fn on_link_down(&mut self, now: Now, link: LinkId, reason: &str) {
        let Some(peer) = self.links.active_peer(link) else {
            self.links.up.remove(&link);
            return;
        };
        if !self.links.kept.contains_key(&peer) {
            self.links.note_lost(peer, now.mono);
        }
        self.links.note_error(peer, reason);
        self.drop_active(now, &peer);
        self.tell_link(peer, false, Some(reason.to_owned()));
    }

    /// Ends the link to a peer, if there is one.
    pub(in crate::node::core) fn close_link(
        &mut self,
        now: Now,
        peer: &PeerId,
        reason: CloseReason,
        text: &str,
    ) {
        let Some(link) = self.links.link_of(peer) else { return };
        if reason == CloseReason::Silent {
            self.links.note_lost(*peer, now.mono);
        }
        self.out.flush_frames_of(link);
        self.drop_active(now, peer);
        self.refuse_link(link, reason, text);
        let why = if text.is_empty() { reason.to_string() } else { text.to_owned() };
        self.links.note_error(*peer, &why);
        self.tell_link(*peer, false, Some(why));
    }

    fn drop_active(&mut self, now: Now, peer: &PeerId) {
        let Some(link) = self.links.active.remove(peer) else { return };
        let since = self.links.up.remove(&link).map_or(now.mono, |link| link.since);
        if let Some(kept) = self.links.kept.get_mut(peer) {
            kept.next = now.mono + jittered(&mut self.random, REDIAL_INITIAL.divided(4));
            if now.mono.since(since) < BRIEF_LINK_MAX {
                // Counted from when it came up: whoever ends all links makes us dial at that pace.
                let pause = jittered(&mut self.random, redial_pause(kept.brief_links));
                kept.next = kept.next.max(since + pause);
                kept.brief_links = kept.brief_links.saturating_add(1);
            } else {
                kept.brief_links = 0;
            }
        }
        self.router.handle(now, router::Input::LinkDown { neighbour: *peer });
    }

    fn refuse_link(&mut self, link: LinkId, reason: CloseReason, text: &str) {
        self.out.effects.push(Effect::Close { link, reason, text: text.to_owned() });
    }

    pub(in crate::node::core) fn on_dial_failed(
        &mut self,
        now: Now,
        dial: DialId,
        failure: DialFailure,
    ) {
        let Some(dialling) = self.links.end_dial(dial) else { return };
        let address = &dialling.address;
        let text = failure_text(&failure, address);
        match &dialling.purpose {
            Purpose::Probe(caller) => {
                self.fail(caller.clone(), failure_of(&failure, text));
            }
            Purpose::Verify(peer) => self.on_connect_failed(now, *peer, dial, &failure, &text),
            Purpose::Keep(peer) => {
                let peer = *peer;
                if let Some(kept) = self.links.kept.get_mut(&peer) {
                    self.links.last_errors.insert(peer, text.clone());
                    kept.turn = kept.turn.wrapping_add(1);
                    let pause = redial_pause(kept.failures);
                    kept.failures = kept.failures.saturating_add(1);
                    kept.next = now.mono + jittered(&mut self.random, pause);
                }
                self.on_connect_failed(now, peer, dial, &failure, &text);
            }
            Purpose::Auto(peer) => {
                let silent = matches!(failure, DialFailure::Unreachable { .. });
                let lost = silent && self.links.lost.contains_key(peer);
                let pause = if lost { LOST_PAUSE } else { AUTO_PAUSE };
                let until = now.mono + jittered(&mut self.random, pause);
                self.links.pause_auto(*peer, until);
            }
        }
    }

    pub(in crate::node::core) fn tick_links(&mut self, now: Now) {
        self.expire_connecting(now);
        self.redial(now);
        if self.links.auto > 0 && self.links.auto_next <= now.mono {
            self.links.auto_next = now.mono + jittered(&mut self.random, AUTO_INTERVAL);
            self.dial_others(now);
        }
    }

    fn redial(&mut self, now: Now) {
        let left = self.links.kept_dials_left();
        let due = self.links.missed().filter(|(_, kept)| kept.next <= now.mono);
        let mut due: Vec<(Monotonic, PeerId, usize)> =
            due.map(|(peer, kept)| (kept.next, peer, kept.turn)).collect();
        due.sort_unstable();
        due.truncate(left);
        for (_, peer, turn) in due {
            // Its own address first, then those of its record: it may have moved.
            let mut addresses: Vec<Address> = self.peers.dial(&peer).cloned().into_iter().collect();
            if let Some(record) = self.router.record(&peer) {
                addresses.extend(record.record.addresses.iter().cloned());
            }
            addresses.dedup();
            let at = turn % addresses.len().max(1);
            let Some(address) = addresses.into_iter().nth(at) else {
                self.links.let_go(&peer);
                continue;
            };
            let (dial, effect) = self.links.dial(Purpose::Keep(peer), address);
            self.out.effects.push(effect);
            if let Some(kept) = self.links.kept.get_mut(&peer) {
                kept.dial = Some(dial);
            }
        }
    }

    fn tell_link(&mut self, peer: PeerId, up: bool, reason: Option<String>) {
        let event = Event::Link(LinkEvent {
            peer: peer.to_string(),
            alias: self.peers.alias(&peer).map(ToString::to_string),
            up,
            reason,
        });
        for client in self.clients.link_watchers() {
            self.out.tell(client, ToClient::Event(event.clone()));
        }
    }
}

/// Before the next dial, after so many in a row and one more were in vain.
fn redial_pause(before: u32) -> Span {
    REDIAL_INITIAL.times(1 << before.min(8)).min(REDIAL_MAX)
}

/// The content of a record, if it is the peer's own.
pub(in crate::node::core) fn verified(peer: PeerId, bytes: &bytes::Bytes) -> Option<Record> {
    let parsed = decode_record(bytes.clone()).ok()?;
    let holds = parsed.record.peer == peer
        && verify(&peer, Domain::Record, &[&parsed.signed], &parsed.signature);
    holds.then_some(parsed.record)
}
