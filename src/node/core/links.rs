//! Links: one to each neighbour, which ones to make, and when to try again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::peers::Known;
use super::{Caller, Core, DialFailure, DialId, Effect, LinkId, LinkUp, jittered};
use crate::control::Outgoing as ToClient;
use crate::control::protocol::{
    Connect, Connected, ErrorCode, Event, Failure, LinkEvent, PeerRef, Probe, Probed, Reply,
};
use crate::courier;
use crate::crypto::{Domain, verify};
use crate::model::{Address, Monotonic, Name, Now, PeerId, Record, Span, escaped};
use crate::router;
use crate::wire::{CloseReason, decode_record};

/// Before a peer that could not be reached is dialled again; doubled each time.
const REDIAL_INITIAL: Span = Span::from_millis(500);
/// Between dials of a peer that stays away.
const REDIAL_MAX: Span = Span::from_secs(60);
/// How often to look whether there are enough links to peers of our own choice.
const AUTO_INTERVAL: Span = Span::from_secs(10);
/// Dials of our own choice at once.
const AUTO_DIALS_MAX: usize = 2;
/// Peers of our own choice that could not be reached are left alone for this long.
const AUTO_PAUSE: Span = Span::from_secs(600);
/// How many of them are remembered.
const AUTO_PAUSED_MAX: usize = 1_024;
/// Records looked at for a candidate.
const AUTO_SAMPLE: usize = 64;

/// A link that is up.
#[derive(Debug)]
pub(super) struct LinkState {
    pub(super) peer: PeerId,
    pub(super) outbound: bool,
    pub(super) address: Address,
    pub(super) since: Monotonic,
    instance: u64,
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
    failures: u32,
    next: Monotonic,
    dial: Option<DialId>,
    /// Tells which of the addresses is next.
    turn: usize,
}

/// A client that waits for a link.
#[derive(Debug)]
struct Connecting {
    caller: Caller,
    peer: PeerId,
    address: Address,
    alias: Option<Name>,
    deadline: Monotonic,
    dial: DialId,
}

/// All links of a node.
#[derive(Debug)]
pub(super) struct Links {
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
}

impl Links {
    pub(super) fn new(auto: usize, links_max: usize, now: Now) -> Self {
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
        }
    }

    /// Who is at the other end, if this is the link that is used.
    pub(super) fn active_peer(&self, link: LinkId) -> Option<PeerId> {
        let peer = self.up.get(&link)?.peer;
        (self.active.get(&peer) == Some(&link)).then_some(peer)
    }

    pub(super) fn link_of(&self, peer: &PeerId) -> Option<LinkId> {
        self.active.get(peer).copied()
    }

    pub(super) fn state_of(&self, peer: &PeerId) -> Option<&LinkState> {
        self.up.get(self.active.get(peer)?)
    }

    pub(super) fn len(&self) -> usize {
        self.active.len()
    }

    pub(super) fn last_error(&self, peer: &PeerId) -> Option<&String> {
        self.last_errors.get(peer)
    }

    /// Keeps a link to a peer from now on.
    pub(super) fn keep(&mut self, peer: PeerId, now: Monotonic) {
        let new = Kept { failures: 0, next: now, dial: None, turn: 0 };
        self.kept.entry(peer).or_insert(new);
    }

    /// Keeps no link to a peer any longer.
    pub(super) fn let_go(&mut self, peer: &PeerId) {
        self.kept.remove(peer);
        self.last_errors.remove(peer);
    }

    pub(super) fn deadline(&self) -> Monotonic {
        let idle = |kept: &&Kept| kept.dial.is_none();
        let kept = self
            .kept
            .iter()
            .filter(|(peer, _)| !self.active.contains_key(peer))
            .map(|(_, kept)| kept)
            .filter(idle)
            .map(|kept| kept.next);
        let connecting = self.connecting.iter().map(|connecting| connecting.deadline);
        let auto = (self.auto > 0).then_some(self.auto_next);
        kept.chain(connecting).chain(auto).min().unwrap_or(Monotonic::NEVER)
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
}

impl Core {
    pub(super) fn on_link_up(&mut self, now: Now, up: LinkUp) {
        let LinkUp { link, peer, dial, address, instance, record } = up;
        let outbound = dial.is_some();
        if let Some(dial) = dial {
            self.links.dials.remove(&dial);
        }
        let state = LinkState { peer, outbound, address, since: now.mono, instance };
        if peer == self.me {
            return self.refuse_link(link, CloseReason::Myself, "that is this node itself");
        }
        if let Some(old) = self.links.active.get(&peer).copied() {
            if !self.replaces(old, &state) {
                self.refuse_link(link, CloseReason::Duplicate, "another link is in use");
                return self.on_linked(now, peer);
            }
            self.drop_active(now, &peer);
            self.out.flush_frames_of(old);
            self.refuse_link(old, CloseReason::Duplicate, "another link is in use");
        } else if self.links.active.len() >= self.links.links_max
            && self.peers.dial(&peer).is_none()
        {
            return self.refuse_link(link, CloseReason::Busy, "there are too many links");
        }
        self.links.up.insert(link, state);
        self.links.active.insert(peer, link);
        self.links.last_errors.remove(&peer);
        self.router.handle(now, router::Input::LinkUp { neighbour: peer, record });
        self.route(now);
        if self.links.link_of(&peer) == Some(link) {
            self.on_linked(now, peer);
            self.courier.handle(now, courier::Input::Nudge { peer: None });
            self.tell_link(peer, true, None);
        }
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

    /// There is a link to this peer: whoever waited for it is told.
    fn on_linked(&mut self, now: Now, peer: PeerId) {
        if let Some(kept) = self.links.kept.get_mut(&peer) {
            kept.failures = 0;
            kept.dial = None;
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

    fn on_connected(&mut self, now: Now, connecting: Connecting) {
        let Connecting { caller, peer, address, alias, .. } = connecting;
        let name = self.router.record(&peer).and_then(|record| record.record.name.clone());
        let mut known = self.peers.known(&peer).cloned().unwrap_or_default();
        // The operator vouches for this peer: its own name becomes its alias, if that is free.
        let free = |name: &Name| self.peers.owner_of(name).is_none_or(|owner| owner == peer);
        known.alias = alias.or(known.alias).or_else(|| name.clone().filter(free));
        known.dial = Some(address.clone());
        let alias = known.alias.as_ref().map(ToString::to_string);
        self.set_known(now, peer, known);
        self.links.keep(peer, now.mono);
        let reply = Connected {
            peer: peer.to_string(),
            alias,
            name: name.map(|name| name.to_string()),
            address: address.to_string(),
        };
        self.storage.reply_later(caller, Reply::Connected(reply));
    }

    pub(super) fn on_link_down(&mut self, now: Now, link: LinkId, reason: &str) {
        let Some(peer) = self.links.active_peer(link) else {
            self.links.up.remove(&link);
            return;
        };
        // Only of peers that matter to the operator: strangers may come and go in any number.
        if self.links.kept.contains_key(&peer) {
            self.links.last_errors.insert(peer, reason.to_owned());
        }
        self.drop_active(now, &peer);
        self.tell_link(peer, false, Some(reason.to_owned()));
    }

    /// Ends the link to a peer, if there is one.
    pub(super) fn close_link(&mut self, now: Now, peer: &PeerId, reason: CloseReason, text: &str) {
        let Some(link) = self.links.link_of(peer) else { return };
        self.out.flush_frames_of(link);
        self.drop_active(now, peer);
        self.refuse_link(link, reason, text);
        self.tell_link(*peer, false, Some(text.to_owned()));
    }

    fn drop_active(&mut self, now: Now, peer: &PeerId) {
        let Some(link) = self.links.active.remove(peer) else { return };
        self.links.up.remove(&link);
        if let Some(kept) = self.links.kept.get_mut(peer) {
            kept.next = now.mono + jittered(&mut self.random, REDIAL_INITIAL.divided(4));
        }
        self.router.handle(now, router::Input::LinkDown { neighbour: *peer });
    }

    fn refuse_link(&mut self, link: LinkId, reason: CloseReason, text: &str) {
        self.out.effects.push(Effect::Close { link, reason, text: text.to_owned() });
    }

    pub(super) fn on_dial_failed(&mut self, now: Now, dial: DialId, failure: DialFailure) {
        let Some(dialling) = self.links.dials.remove(&dial) else { return };
        let address = &dialling.address;
        let text = failure_text(&failure, address);
        match &dialling.purpose {
            Purpose::Probe(caller) => {
                self.fail(caller.clone(), failure_of(&failure, text));
            }
            Purpose::Verify(peer) => self.on_connect_failed(now, *peer, dial, &failure, &text),
            Purpose::Keep(peer) => {
                let peer = *peer;
                self.links.last_errors.insert(peer, text.clone());
                if let Some(kept) = self.links.kept.get_mut(&peer) {
                    kept.dial = None;
                    kept.turn = kept.turn.wrapping_add(1);
                    let pause = REDIAL_INITIAL.times(1 << kept.failures.min(8)).min(REDIAL_MAX);
                    kept.failures = kept.failures.saturating_add(1);
                    kept.next = now.mono + jittered(&mut self.random, pause);
                }
                self.on_connect_failed(now, peer, dial, &failure, &text);
            }
            Purpose::Auto(peer) => {
                let until = now.mono + jittered(&mut self.random, AUTO_PAUSE);
                while self.links.auto_paused.len() >= AUTO_PAUSED_MAX {
                    self.links.auto_paused.pop_first();
                }
                self.links.auto_paused.insert(*peer, until);
            }
        }
    }

    /// A dial that a client waits for failed.
    fn on_connect_failed(
        &mut self,
        now: Now,
        peer: PeerId,
        dial: DialId,
        failure: &DialFailure,
        text: &str,
    ) {
        let at = self.links.connecting.iter().position(|connecting| connecting.dial == dial);
        let Some(at) = at else { return };
        let connecting = self.links.connecting.swap_remove(at);
        let mut reply = failure_of(failure, text.to_owned());
        if reply.code == ErrorCode::Unreachable {
            self.keep_unreached(now, &connecting);
            reply.message.push_str("; it is kept and dialled again until it answers");
        } else if self.peers.dial(&peer).is_none() {
            self.links.let_go(&peer);
        }
        reply.peer = Some(peer.to_string());
        self.fail(connecting.caller, reply);
    }

    fn keep_unreached(&mut self, now: Now, connecting: &Connecting) {
        let peer = connecting.peer;
        let mut known = self.peers.known(&peer).cloned().unwrap_or_default();
        known.alias = connecting.alias.clone().or(known.alias);
        known.dial = Some(connecting.address.clone());
        self.set_known(now, peer, known);
        self.links.keep(peer, now.mono);
    }

    pub(super) fn on_probed(
        &mut self,
        now: Now,
        dial: DialId,
        peer: PeerId,
        record: &bytes::Bytes,
    ) {
        let Some(dialling) = self.links.dials.remove(&dial) else { return };
        match dialling.purpose {
            Purpose::Probe(caller) => {
                let name = verified(peer, record).and_then(|record| record.name);
                let name = name.map(|name| name.to_string());
                self.reply(caller, Reply::Probed(Probed { peer: peer.to_string(), name }));
            }
            Purpose::Verify(peer) if self.links.link_of(&peer).is_some() => {
                self.on_linked(now, peer);
            }
            Purpose::Verify(_) => {
                // The link went down meanwhile: the kept peer is dialled again by itself.
            }
            Purpose::Keep(_) | Purpose::Auto(_) => {}
        }
    }

    pub(super) fn on_probe(&mut self, caller: Caller, request: &Probe) {
        match request.address.parse() {
            Ok(address) => {
                let (_, effect) = self.links.dial(Purpose::Probe(caller), address);
                self.out.effects.push(effect);
            }
            Err(error) => {
                let failure = Failure::new(ErrorCode::InvalidParams, format!("address: {error}"));
                self.fail(caller, failure);
            }
        }
    }

    pub(super) fn on_connect(&mut self, now: Now, caller: Caller, request: &Connect) {
        match self.parse_connect(request) {
            Ok((peer, address, alias)) => {
                let purpose = match self.links.link_of(&peer) {
                    Some(_) => Purpose::Verify(peer),
                    None => Purpose::Keep(peer),
                };
                let (dial, effect) = self.links.dial(purpose, address.clone());
                self.out.effects.push(effect);
                if let Some(kept) = self.links.kept.get_mut(&peer) {
                    kept.dial = Some(dial);
                }
                let deadline = now.mono + Span::from_millis(request.timeout_ms);
                let connecting = Connecting { caller, peer, address, alias, deadline, dial };
                self.links.connecting.push(connecting);
            }
            Err(failure) => self.fail(caller, failure),
        }
    }

    fn parse_connect(&self, request: &Connect) -> Result<(PeerId, Address, Option<Name>), Failure> {
        let invalid = |text: String| Failure::new(ErrorCode::InvalidParams, text);
        let peer: PeerId =
            request.peer.parse().map_err(|error| invalid(format!("peer ID: {error}")))?;
        if peer == self.me {
            return Err(invalid("that is this node itself; connect another peer".to_owned()));
        }
        let address =
            request.address.parse().map_err(|error| invalid(format!("address: {error}")))?;
        let alias = request.alias.as_deref().map(|alias| self.free_alias(alias, peer));
        Ok((peer, address, alias.transpose()?))
    }

    pub(super) fn on_disconnect(&mut self, now: Now, caller: Caller, request: &PeerRef) {
        let peer = match self.resolve(&request.peer) {
            Ok(peer) => peer,
            Err(failure) => return self.fail(caller, failure),
        };
        if self.links.link_of(&peer).is_none() && self.peers.dial(&peer).is_none() {
            let text = "there is no link to this peer and none is kept; see 'distmsgctl peers'";
            return self.fail(caller, Failure::new(ErrorCode::NoSuchPeer, text));
        }
        self.links.let_go(&peer);
        let known = self.peers.known(&peer).cloned().unwrap_or_default();
        self.set_known(now, peer, Known { dial: None, ..known });
        self.close_link(now, &peer, CloseReason::Operator, "disconnected by the operator");
        self.done_later(caller);
    }

    pub(super) fn tick_links(&mut self, now: Now) {
        self.expire_connecting(now);
        self.redial(now);
        if self.links.auto > 0 && self.links.auto_next <= now.mono {
            self.links.auto_next = now.mono + jittered(&mut self.random, AUTO_INTERVAL);
            self.dial_others(now);
        }
    }

    fn expire_connecting(&mut self, now: Now) {
        let late = |connecting: &Connecting| connecting.deadline <= now.mono;
        while let Some(at) = self.links.connecting.iter().position(late) {
            let connecting = self.links.connecting.swap_remove(at);
            self.keep_unreached(now, &connecting);
            let text = format!(
                "{} does not answer in time; it is kept and dialled again until it answers",
                connecting.address
            );
            let mut failure = Failure::new(ErrorCode::Unreachable, text);
            failure.peer = Some(connecting.peer.to_string());
            self.fail(connecting.caller, failure);
        }
    }

    fn redial(&mut self, now: Now) {
        let due: Vec<(PeerId, usize)> = self
            .links
            .kept
            .iter()
            .filter(|(peer, kept)| {
                kept.dial.is_none()
                    && kept.next <= now.mono
                    && !self.links.active.contains_key(peer)
            })
            .map(|(peer, kept)| (*peer, kept.turn))
            .collect();
        for (peer, turn) in due {
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

    /// Dials peers of our own choice while there are too few: of the table, at random, spread over
    /// address prefixes; at least half of such links are to be our own dials.
    fn dial_others(&mut self, now: Now) {
        let others: Vec<&LinkState> = self
            .links
            .active
            .iter()
            .filter(|(peer, _)| self.peers.dial(peer).is_none())
            .filter_map(|(_, link)| self.links.up.get(link))
            .collect();
        let dialling: BTreeSet<PeerId> = self
            .links
            .dials
            .values()
            .filter_map(|dialling| match dialling.purpose {
                Purpose::Auto(peer) => Some(peer),
                _ => None,
            })
            .collect();
        let outbound = others.iter().filter(|link| link.outbound).count() + dialling.len();
        let total = others.len() + dialling.len();
        let enough = total >= self.links.auto && outbound * 2 >= self.links.auto;
        if enough || dialling.len() >= AUTO_DIALS_MAX {
            return;
        }
        let prefixes: BTreeSet<Prefix> =
            self.links.up.values().filter_map(|link| prefix_of(&link.address)).collect();
        self.links.auto_paused.retain(|_, until| *until > now.mono);
        let start = PeerId::from_bytes(self.random.bytes());
        let mut candidates = self.router.records_after(Some(start), AUTO_SAMPLE);
        if candidates.len() < AUTO_SAMPLE {
            candidates.extend(self.router.records_after(None, AUTO_SAMPLE - candidates.len()));
        }
        let reachable = |record: &Record| -> Option<Address> {
            let peer = record.peer;
            let busy = peer == self.me
                || self.links.active.contains_key(&peer)
                || self.links.auto_paused.contains_key(&peer)
                || self.links.kept.contains_key(&peer)
                || dialling.contains(&peer);
            let usable = |address: &&Address| self.may_dial(address);
            record.addresses.iter().find(usable).filter(|_| !busy).cloned()
        };
        let found: Vec<(PeerId, Address)> = candidates
            .iter()
            .filter_map(|record| Some((record.record.peer, reachable(&record.record)?)))
            .collect();
        // A new prefix is preferred, an old one is better than none.
        let fresh = found.iter().find(|(_, address)| {
            prefix_of(address).is_none_or(|prefix| !prefixes.contains(&prefix))
        });
        let Some((peer, address)) = fresh.or(found.first()).cloned() else { return };
        let (_, effect) = self.links.dial(Purpose::Auto(peer), address);
        self.out.effects.push(effect);
    }

    /// Strangers' records may name any address: those of this machine itself are only dialled by a
    /// node that has no other itself.
    fn may_dial(&self, address: &Address) -> bool {
        !address.is_loopback() || self.record.advertised().iter().all(Address::is_loopback)
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

/// The part of an address that one operator is likely to own whole.
type Prefix = Vec<u8>;

fn prefix_of(address: &Address) -> Option<Prefix> {
    Some(match address.ip()? {
        IpAddr::V4(ip) => ip.octets().iter().take(2).copied().collect(),
        IpAddr::V6(ip) => ip.octets().iter().take(4).copied().collect(),
    })
}

/// The content of a record, if it is the peer's own.
pub(super) fn verified(peer: PeerId, bytes: &bytes::Bytes) -> Option<Record> {
    let parsed = decode_record(bytes.clone()).ok()?;
    let holds = parsed.record.peer == peer
        && verify(&peer, Domain::Record, &[&parsed.signed], &parsed.signature);
    holds.then_some(parsed.record)
}

fn failure_text(failure: &DialFailure, address: &Address) -> String {
    match failure {
        DialFailure::Identity { found } => format!(
            "the peer at {address} is {found}, not the one expected; check the ID with its operator"
        ),
        DialFailure::Refused { reason, text } => {
            format!("the peer at {address} refused: {reason} ({})", escaped(text))
        }
        DialFailure::Unreachable { reason } => format!("cannot reach {address}: {reason}"),
    }
}

fn failure_of(failure: &DialFailure, text: String) -> Failure {
    match failure {
        DialFailure::Identity { found } => {
            let mut failure = Failure::new(ErrorCode::IdentityMismatch, text);
            failure.peer = Some(found.to_string());
            failure
        }
        DialFailure::Refused { .. } => Failure::new(ErrorCode::Refused, text),
        DialFailure::Unreachable { .. } => Failure::new(ErrorCode::Unreachable, text),
    }
}
