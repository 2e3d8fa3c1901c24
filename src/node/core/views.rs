//! Core values as clients see them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::clients::{micros_as_ms, page_size};
use super::storage::WhichPage;
use super::{Core, Vitals};
use crate::control::protocol::{
    ErrorCode, Failure, GivenUpMessage, GivenUpReason, InboxPage, Link, Message, NextHop,
    OutboxPage, Page, Peer, PeersPage, QueuedMessage, Reply, Route, RoutesPage, Status,
};
use crate::courier::QueueState;
use crate::model::limits::CONTROL_BODY_BYTES_MAX;
use crate::model::{
    Cursor, GivenUp, Incoming, NetworkId, Now, PeerId, Timestamp, WhyGivenUp, excerpt,
};
use crate::store::op::{OutgoingHead, Stored};

impl Core {
    /// How it does, in short.
    pub fn vitals(&self) -> Vitals {
        Vitals {
            links: self.links.len(),
            outbox_messages: self.desk.messages(),
            outbox_bytes: self.desk.bytes(),
            is_full: self.storage.is_full(),
        }
    }

    pub(super) fn status(&self, now: Now) -> Reply {
        let about = self.clients.about();
        let mut warnings = about.warnings.clone();
        if self.storage.is_full() {
            let text = "there is no room on the disk or in the quota: nothing can be accepted";
            warnings.push(text.to_owned());
        }
        Reply::Status(Box::new(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: about.pid,
            peer: self.me.to_string(),
            name: self.record.name().map(ToString::to_string),
            network: match self.record.network() {
                NetworkId::OPEN => "open".to_owned(),
                _ => "closed".to_owned(),
            },
            uptime_s: now.mono.since(self.started.mono).as_millis() / 1000,
            state_dir: about.state_dir.clone(),
            listen: about.listen.clone(),
            interface: about.interface.clone(),
            advertise: self.record.advertised().iter().map(ToString::to_string).collect(),
            peers: self.router.records_len() as u64,
            links: self.links.len() as u64,
            outbox_messages: self.desk.messages(),
            outbox_bytes: self.desk.bytes(),
            given_up: self.desk.given_up(now.wall).count() as u64,
            last_given_up: self.desk.given_up(now.wall).next_back().map(|m| self.given_up_view(m)),
            inbox_messages: self.listeners.messages(),
            inbox_bytes: self.courier.inbox_bytes(),
            listeners: self.listeners.status(),
            warnings,
        }))
    }

    pub(super) fn peers_page(&self, now: Now, page: &Page) -> Result<Reply, Failure> {
        let after = parse_after(page)?;
        let size = page_size(page.limit);
        let records = self.router.records_after(after, size + 1);
        let mut ids: Vec<PeerId> = records.iter().map(|record| record.record.peer).collect();
        ids.extend(self.peers.ids_after(after).take(size + 1));
        ids.retain(|peer| *peer != self.me);
        ids.sort_unstable();
        ids.dedup();
        let next = (ids.len() > size).then(|| ids.get(size - 1).map(ToString::to_string)).flatten();
        let peers = ids.into_iter().take(size).map(|peer| self.peer_view(now, peer)).collect();
        Ok(Reply::Peers(PeersPage { peers, next }))
    }

    fn peer_view(&self, now: Now, peer: PeerId) -> Peer {
        let record = self.router.record(&peer).map(|record| &record.record);
        let known = self.peers.known(&peer);
        let dial = known.and_then(|known| known.dial.as_ref());
        let link = self.links.state_of(&peer).map(|link| Link {
            direction: if link.outbound { "outbound" } else { "inbound" }.to_owned(),
            address: link.address.to_string(),
            up_s: now.mono.since(link.since).as_millis() / 1000,
            rtt_ms: self.router.rtt(&peer).map(micros_as_ms),
        });
        Peer {
            peer: peer.to_string(),
            alias: self.alias_text(&peer),
            name: record.and_then(|record| record.name.as_ref()).map(ToString::to_string),
            addresses: record
                .map(|record| record.addresses.iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
            connected: dial.is_some(),
            dial: dial.map(ToString::to_string),
            last_error: match link {
                Some(_) => None,
                None => self.links.last_error(&peer).cloned(),
            },
            link,
            record_made: record.map(|record| time(Timestamp::from_millis(record.sequence))),
            record_expires: record.map(|record| time(record.expires)),
            queued: self.courier.queued(&peer),
        }
    }

    pub(super) fn routes_page(&self, now: Now, page: &Page) -> Result<Reply, Failure> {
        let after = parse_after(page)?;
        let size = page_size(page.limit);
        let mut found = self.router.routes_after(after, size + 1);
        let more = found.len() > size;
        found.truncate(size);
        let next = found.last().filter(|_| more).map(|route| route.destination.to_string());
        let routes = found
            .into_iter()
            .map(|route| Route {
                destination: route.destination.to_string(),
                alias: self.alias_text(&route.destination),
                next_hops: route
                    .next_hops
                    .into_iter()
                    .map(|hop| NextHop {
                        peer: hop.neighbour.to_string(),
                        alias: self.alias_text(&hop.neighbour),
                        hops: hop.hops,
                        score: hop.score,
                        receipts: hop.receipts,
                        age_s: now.mono.since(hop.confirmed).as_millis() / 1000,
                    })
                    .collect(),
            })
            .collect();
        Ok(Reply::Routes(RoutesPage { routes, next }))
    }

    fn alias_text(&self, peer: &PeerId) -> Option<String> {
        self.peers.alias(peer).map(ToString::to_string)
    }

    /// A message of the inbox; `whole` says whether its body is there.
    pub(super) fn view_of(&self, message: &Incoming, bytes: u64, whole: bool) -> Message {
        let fits = whole && message.body.len() <= CONTROL_BODY_BYTES_MAX;
        let text = if fits { std::str::from_utf8(&message.body).ok() } else { None };
        Message {
            cursor: message.cursor.0,
            id: message.id.to_string(),
            from: message.key.sender.to_string(),
            alias: self.alias_text(&message.key.sender),
            subject: message.subject.as_ref().map(ToString::to_string),
            sent: time(message.sent),
            received: time(message.received),
            bytes,
            body: text.map(ToOwned::to_owned),
            body_base64: (fits && text.is_none()).then(|| base64(&message.body)),
        }
    }

    pub(super) fn inbox_page(&self, messages: &[Stored], through: Cursor) -> Reply {
        let more = through < self.courier.last_cursor();
        let messages: Vec<_> =
            messages.iter().map(|s| self.view_of(&s.message, s.bytes, s.whole)).collect();
        Reply::Inbox(InboxPage { messages, next: more.then_some(through.0) })
    }

    pub(super) fn outbox_page(&self, now: Now, which: WhichPage, heads: &[OutgoingHead]) -> Reply {
        let given_up = match which {
            WhichPage::First => {
                self.desk.given_up(now.wall).map(|m| self.given_up_view(m)).collect()
            }
            WhichPage::Later => Vec::new(),
        };
        let next = heads.last().map(|head| head.message.row.0.to_string());
        let messages = heads
            .iter()
            .map(|OutgoingHead { message, bytes }| QueuedMessage {
                id: message.id.to_string(),
                to: message.recipient.to_string(),
                alias: self.alias_text(&message.recipient),
                subject: message.subject.as_ref().map(ToString::to_string),
                queued: time(message.queued),
                expires: time(message.expires),
                bytes: *bytes,
                state: match self.courier.queue_state(&message.recipient) {
                    QueueState::Waiting => "waiting",
                    QueueState::Finding => "finding",
                    QueueState::InFlight => "in flight",
                    QueueState::RecipientFull => "recipient full",
                }
                .to_owned(),
            })
            .collect();
        Reply::Outbox(OutboxPage { messages, next, given_up })
    }

    fn given_up_view(&self, message: &GivenUp) -> GivenUpMessage {
        GivenUpMessage {
            id: message.id.to_string(),
            to: message.recipient.to_string(),
            alias: self.alias_text(&message.recipient),
            subject: message.subject.as_ref().map(ToString::to_string),
            queued: time(message.queued),
            given_up: time(message.at),
            bytes: message.bytes,
            state: "given up".to_owned(),
            reason: match message.why {
                WhyGivenUp::Expired => GivenUpReason::Expired,
                WhyGivenUp::TooLarge => GivenUpReason::TooLarge,
            },
        }
    }
}

fn parse_after(page: &Page) -> Result<Option<PeerId>, Failure> {
    page.after.as_deref().map(str::parse).transpose().map_err(|error| {
        Failure::new(ErrorCode::InvalidParams, format!("after is no peer ID: {error}"))
    })
}

/// A time as RFC 3339 in UTC.
pub(super) fn time(at: Timestamp) -> String {
    let millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    // Peers may claim any time; what no calendar has is shown as its last day.
    jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// A time in RFC 3339.
pub(super) fn parse_time(text: &str) -> Result<Timestamp, Failure> {
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    match parsed.map(jiff::Timestamp::as_millisecond).map(u64::try_from) {
        Ok(Ok(millis)) => Ok(Timestamp::from_millis(millis)),
        _ => {
            let shown = excerpt(text, 40);
            let text = format!("'{shown}' is no time; write it like 2026-01-31T12:00:00Z");
            Err(Failure::new(ErrorCode::InvalidParams, text))
        }
    }
}

pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
