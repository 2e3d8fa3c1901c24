//! What clients ask about links: who answers, connect, disconnect.

use super::{Purpose, verified};
use crate::control::protocol::{
    Connect, Connected, Disconnected, ErrorCode, Failure, PeerRef, Probe, Probed, Reply,
};
use crate::model::{Address, Monotonic, Name, Now, PeerId, Span, escaped};
use crate::node::core::peers::Known;
use crate::node::core::{Caller, Core, DialFailure, DialId};
use crate::wire::CloseReason;

/// Dials that clients wait for, of all clients: each takes a file descriptor.
pub(super) const ASKED_FOR_MAX: usize = 64;

/// A client that waits for a link.
#[derive(Debug)]
pub(super) struct Connecting {
    pub(super) caller: Caller,
    pub(super) peer: PeerId,
    pub(super) address: Address,
    pub(super) alias: Option<Name>,
    pub(super) deadline: Monotonic,
    pub(super) dial: DialId,
}

impl Core {
    pub(super) fn on_connected(&mut self, now: Now, connecting: Connecting) {
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

    /// A dial that a client waits for failed.
    pub(super) fn on_connect_failed(
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
        // What may pass by itself is waited for; a peer that does not want us is not pestered.
        let may_pass =
            matches!(failure, DialFailure::Unreachable { .. } | DialFailure::Unacceptable { .. });
        if may_pass {
            reply.message.push_str(self.keep_unreached(now, &connecting));
        } else if self.peers.dial(&peer).is_none() {
            self.links.let_go(&peer);
        }
        reply.peer = Some(peer.to_string());
        self.fail(connecting.caller, reply);
    }

    /// Keeps a peer that did not answer; what happens now, for people.
    fn keep_unreached(&mut self, now: Now, connecting: &Connecting) -> &'static str {
        let peer = connecting.peer;
        let mut known = self.peers.known(&peer).cloned().unwrap_or_default();
        known.alias = connecting.alias.clone().or(known.alias);
        // An address that works is not given up for one that did not answer.
        let works = self.links.link_of(&peer).is_some() && known.dial.is_some();
        if !works {
            known.dial = Some(connecting.address.clone());
        }
        self.set_known(now, peer, known);
        self.links.keep(peer, now.mono);
        match works {
            true => "; the link that is there stays, with its address",
            false => "; it is kept and dialled again until it answers",
        }
    }

    pub(in crate::node::core) fn on_probed(
        &mut self,
        now: Now,
        dial: DialId,
        peer: PeerId,
        record: &bytes::Bytes,
    ) {
        let Some(dialling) = self.links.end_dial(dial) else { return };
        match dialling.purpose {
            Purpose::Probe(caller) => {
                let name = verified(peer, record).and_then(|record| record.name);
                let name = name.map(|name| name.to_string());
                self.reply(caller, Reply::Probed(Probed { peer: peer.to_string(), name }));
            }
            Purpose::Verify(peer) if self.links.link_of(&peer).is_some() => {
                self.on_linked(now, peer, None);
            }
            Purpose::Verify(_) => {
                // The link went down meanwhile: the kept peer is dialled again by itself.
            }
            Purpose::Keep(_) | Purpose::Auto(_) => {}
        }
    }

    pub(in crate::node::core) fn on_probe(&mut self, caller: Caller, request: &Probe) {
        if self.links.asked_for() >= ASKED_FOR_MAX {
            return self.fail(caller, too_many_dials());
        }
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

    pub(in crate::node::core) fn on_connect(
        &mut self,
        now: Now,
        caller: Caller,
        request: &Connect,
    ) {
        if self.links.asked_for() >= ASKED_FOR_MAX {
            return self.fail(caller, too_many_dials());
        }
        match self.parse_connect(request) {
            Ok((peer, address, alias)) => {
                let linked = self.links.link_of(&peer).is_some();
                let purpose = if linked { Purpose::Verify(peer) } else { Purpose::Keep(peer) };
                let (dial, effect) = self.links.dial(purpose, address.clone());
                self.out.effects.push(effect);
                if let Some(kept) = self.links.kept.get_mut(&peer)
                    && !linked
                {
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
        self.room_for_known(&peer)?;
        let address =
            request.address.parse().map_err(|error| invalid(format!("address: {error}")))?;
        let alias = request.alias.as_deref().map(|alias| self.free_alias(alias, peer));
        Ok((peer, address, alias.transpose()?))
    }

    pub(in crate::node::core) fn on_disconnect(
        &mut self,
        now: Now,
        caller: Caller,
        request: &PeerRef,
    ) {
        let peer = match self.resolve(&request.peer) {
            Ok(peer) => peer,
            Err(failure) => return self.fail(caller, failure),
        };
        if self.links.link_of(&peer).is_none() && self.peers.dial(&peer).is_none() {
            let text = "there is no link to this peer and none is kept; see 'distmsgctl peers'";
            return self.fail(caller, Failure::new(ErrorCode::NoSuchPeer, text));
        }
        self.links.let_go(&peer);
        self.links.shun(peer);
        let known = self.peers.known(&peer).cloned().unwrap_or_default();
        self.set_known(now, peer, Known { dial: None, ..known });
        let dialled_by_peer = self.links.state_of(&peer).is_some_and(|link| link.peer_dials);
        self.close_link(now, &peer, CloseReason::Operator, "");
        let reply = Reply::Disconnected(Disconnected { dialled_by_peer });
        self.storage.reply_later(caller, reply);
    }

    pub(super) fn expire_connecting(&mut self, now: Now) {
        let late = |connecting: &Connecting| connecting.deadline <= now.mono;
        while let Some(at) = self.links.connecting.iter().position(late) {
            let connecting = self.links.connecting.swap_remove(at);
            let then = self.keep_unreached(now, &connecting);
            let text = format!("{} does not answer in time{then}", connecting.address);
            let mut failure = Failure::new(ErrorCode::Unreachable, text);
            failure.peer = Some(connecting.peer.to_string());
            self.fail(connecting.caller, failure);
        }
    }
}

fn too_many_dials() -> Failure {
    Failure::new(ErrorCode::Busy, "many dials are under way already; try again")
}

pub(super) fn failure_text(failure: &DialFailure, address: &Address) -> String {
    match failure {
        DialFailure::Identity { found } => format!(
            "the peer at {address} is {found}, not the one expected; check the ID with its operator"
        ),
        DialFailure::Refused { reason, text } if text.is_empty() => {
            format!("the peer at {address} refused: {reason}")
        }
        DialFailure::Refused { reason, text } => {
            format!("the peer at {address} refused: {reason} ({})", escaped(text))
        }
        DialFailure::Unreachable { reason } => format!("cannot reach {address}: {reason}"),
        DialFailure::Unacceptable { reason } => {
            format!("cannot take a link to the peer at {address}: {reason}")
        }
    }
}

pub(super) fn failure_of(failure: &DialFailure, text: String) -> Failure {
    match failure {
        DialFailure::Identity { found } => {
            let mut failure = Failure::new(ErrorCode::IdentityMismatch, text);
            failure.peer = Some(found.to_string());
            failure
        }
        DialFailure::Refused { .. } => Failure::new(ErrorCode::Refused, text),
        // It is us who refused, and we go on dialling.
        DialFailure::Unacceptable { .. } | DialFailure::Unreachable { .. } => {
            Failure::new(ErrorCode::Unreachable, text)
        }
    }
}
