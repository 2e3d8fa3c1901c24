//! Control clients: what they ask, and who is told of what.

use std::collections::{BTreeMap, BTreeSet};

use super::desk::seconds;
use super::listeners::{AskedBy, Listening};
use super::storage::{Asked, WhichPage};
use super::{About, Caller, ClientId, Core, Effect};
use crate::control::Call;
use crate::control::protocol::{
    BodyPiece, ErrorCode, Failure, InboxQuery, Page, Ping, Pong, Read, Reply, Request, SetLog,
    Subscribe, Subscribed, Topic, Unsubscribe,
};
use crate::courier;
use crate::model::limits::CONTROL_BODY_BYTES_MAX;
use crate::model::{Cursor, Level, Monotonic, Now, Occupancy, PeerId, Row, Span};
use crate::router;
use crate::store::op::Question;

/// Entries of a page at most.
pub(super) const PAGE_MAX: u32 = 500;
/// Bytes of bodies in a page at most: it has to fit a line.
const PAGE_BYTES_MAX: usize = 256 * 1024;
/// Bodies longer than this are left out of pages.
const PAGE_BODY_BYTES_MAX: usize = 64 * 1024;

/// Subscriptions and listenings of one client.
pub(super) const SUBSCRIPTIONS_MAX: usize = 64;

/// Pings of one client that wait for their pong.
const PINGS_OF_CLIENT_MAX: usize = 64;
/// Pings of all clients.
const PINGS_MAX: usize = 1_024;

/// A ping that waits for its pong.
#[derive(Debug)]
struct Pinging {
    caller: Caller,
    recipient: PeerId,
    deadline: Monotonic,
    timeout: Span,
}

/// What clients wait for.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) about: About,
    last_subscription: u64,
    subscriptions: BTreeMap<Listening, BTreeSet<Topic>>,
    last_ping: u64,
    pings: BTreeMap<u64, Pinging>,
}

impl Clients {
    pub(super) const fn new(about: About) -> Self {
        Self {
            about,
            last_subscription: 0,
            subscriptions: BTreeMap::new(),
            last_ping: 0,
            pings: BTreeMap::new(),
        }
    }

    pub(super) const fn about(&self) -> &About {
        &self.about
    }

    pub(super) fn deadline(&self) -> Monotonic {
        self.pings.values().map(|ping| ping.deadline).min().unwrap_or(Monotonic::NEVER)
    }

    /// With so many clients at most.
    pub(super) fn occupancy(&self, clients_max: usize) -> [Occupancy; 2] {
        let limit = clients_max.saturating_mul(SUBSCRIPTIONS_MAX);
        [
            Occupancy::new("subscriptions", self.subscriptions.len(), limit),
            Occupancy::new("pings", self.pings.len(), PINGS_MAX),
        ]
    }

    pub(super) const fn next_subscription(&mut self) -> u64 {
        self.last_subscription += 1;
        self.last_subscription
    }

    fn subscriptions_of(&self, client: ClientId) -> usize {
        let mine = |listening: &&Listening| listening.client == client;
        self.subscriptions.keys().filter(mine).count()
    }

    pub(super) fn message_watchers(&self) -> Vec<Listening> {
        self.watchers(Topic::Messages).collect()
    }

    pub(super) fn link_watchers(&self) -> BTreeSet<ClientId> {
        self.watchers(Topic::Links).map(|listening| listening.client).collect()
    }

    pub(super) fn observers(&self) -> BTreeSet<ClientId> {
        self.watchers(Topic::Traffic).map(|listening| listening.client).collect()
    }

    fn watchers(&self, topic: Topic) -> impl Iterator<Item = Listening> + '_ {
        let wants = move |topics: &BTreeSet<Topic>| topics.contains(&topic);
        self.subscriptions.iter().filter(move |(_, t)| wants(t)).map(|(listening, _)| *listening)
    }
}

impl Core {
    pub(super) fn on_call(&mut self, now: Now, caller: Caller, call: Call) {
        match call {
            Call::Send(request) => self.on_send(now, caller, request),
            Call::Other(request) => self.on_request(now, caller, request),
        }
    }

    fn on_request(&mut self, now: Now, caller: Caller, request: Request) {
        match request {
            Request::Status {} => {
                let reply = self.status(now);
                self.reply(caller, reply);
            }
            Request::Probe(request) => self.on_probe(caller, &request),
            Request::Connect(request) => self.on_connect(now, caller, &request),
            Request::Disconnect(request) => self.on_disconnect(now, caller, &request),
            Request::Forget(request) => self.on_forget(now, caller, &request),
            Request::Alias(request) => self.on_alias(now, caller, request),
            Request::Peers(page) => self.answer(caller, |core| core.peers_page(now, &page)),
            Request::Routes(page) => self.answer(caller, |core| core.routes_page(now, &page)),
            Request::Ping(request) => self.on_ping(now, caller, &request),
            Request::Discover(request) => self.on_discover(now, caller, &request),
            Request::Listen(request) => self.on_listen(caller, &request),
            Request::RemoveListener(request) => self.on_remove_listener(caller, request),
            Request::Ack(request) => self.on_ack(caller, &request),
            Request::Subscribe(request) => self.on_subscribe(now, caller, &request),
            Request::Unsubscribe(subscribed) => self.on_unsubscribe(now, caller, subscribed),
            Request::Inbox(query) => self.on_inbox_query(caller, &query),
            Request::Outbox(page) => self.on_outbox_query(caller, &page),
            Request::Read(read) => self.on_read(caller, read),
            Request::Log(request) => self.on_log(caller, request),
            Request::Authenticate(_)
            | Request::Send(_)
            | Request::UploadBegin(_)
            | Request::UploadChunk(_) => {
                let text = "this is taken care of at the connection; it cannot come here";
                self.fail(caller, Failure::new(ErrorCode::InvalidRequest, text));
            }
        }
    }

    fn answer(&mut self, caller: Caller, make: impl FnOnce(&Self) -> Result<Reply, Failure>) {
        match make(self) {
            Ok(reply) => self.reply(caller, reply),
            Err(failure) => self.fail(caller, failure),
        }
    }

    fn on_ping(&mut self, now: Now, caller: Caller, request: &Ping) {
        let recipient = match self.resolve(&request.peer) {
            Ok(peer) if peer == self.me => {
                let text = "that is this node itself; ping another peer";
                return self.fail(caller, Failure::new(ErrorCode::InvalidParams, text));
            }
            Ok(peer) => peer,
            Err(failure) => return self.fail(caller, failure),
        };
        let own = self.clients.pings.values().filter(|ping| ping.caller.client == caller.client);
        if self.clients.pings.len() >= PINGS_MAX || own.count() >= PINGS_OF_CLIENT_MAX {
            let text = "many pings wait for their answer already; try again";
            return self.fail(caller, Failure::new(ErrorCode::Busy, text));
        }
        self.clients.last_ping += 1;
        let ping = self.clients.last_ping;
        let timeout = Span::from_millis(request.timeout_ms);
        let deadline = now.mono + timeout;
        self.clients.pings.insert(ping, Pinging { caller, recipient, deadline, timeout });
        self.courier.handle(now, courier::Input::Ping { recipient, ping });
    }

    /// Nobody waits for this ping any more.
    fn forget_ping(&mut self, now: Now, ping: u64) -> Option<Pinging> {
        let pinging = self.clients.pings.remove(&ping)?;
        let recipient = pinging.recipient;
        self.courier.handle(now, courier::Input::CancelPing { recipient, ping });
        Some(pinging)
    }

    pub(super) fn on_pong(&mut self, ping: u64, rtt: Span, attempts: u16) {
        let Some(pinging) = self.clients.pings.remove(&ping) else { return };
        let rtt_ms = micros_as_ms(rtt);
        let (peer, attempts) = (pinging.recipient.to_string(), u32::from(attempts));
        self.reply(pinging.caller, Reply::Pong(Pong { peer, rtt_ms, attempts }));
    }

    pub(super) fn tick_clients(&mut self, now: Now) {
        if self.clients.deadline() > now.mono {
            return;
        }
        let late: Vec<u64> = self
            .clients
            .pings
            .iter()
            .filter(|(_, ping)| ping.deadline <= now.mono)
            .map(|(number, _)| *number)
            .collect();
        for ping in late {
            let Some(pinging) = self.forget_ping(now, ping) else { continue };
            let text = format!("no answer within {}", seconds(pinging.timeout));
            let mut failure = Failure::new(ErrorCode::Timeout, text);
            failure.peer = Some(pinging.recipient.to_string());
            self.fail(pinging.caller, failure);
        }
    }

    fn on_subscribe(&mut self, now: Now, caller: Caller, request: &Subscribe) {
        if self.clients.subscriptions_of(caller.client) >= SUBSCRIPTIONS_MAX {
            return self.fail(caller, too_many_subscriptions());
        }
        let subscription = self.clients.next_subscription();
        let listening = Listening { client: caller.client, subscription };
        let topics = request.topics.iter().copied().collect();
        self.clients.subscriptions.insert(listening, topics);
        self.observe(now);
        self.reply(caller, Reply::Subscribed(Subscribed { subscription }));
    }

    fn on_unsubscribe(&mut self, now: Now, caller: Caller, subscribed: Unsubscribe) {
        let listening = Listening { client: caller.client, subscription: subscribed.subscription };
        let known = self.clients.subscriptions.remove(&listening).is_some();
        if known | self.detach(now, listening) {
            self.observe(now);
            self.done_later(caller);
        } else {
            let text = "there is no such subscription on this connection";
            self.fail(caller, Failure::new(ErrorCode::InvalidParams, text));
        }
    }

    fn observe(&mut self, now: Now) {
        let observed = !self.clients.observers().is_empty();
        self.router.handle(now, router::Input::Observe(observed));
    }

    pub(super) fn on_client_gone(&mut self, now: Now, client: ClientId) {
        self.detach_all(now, client);
        let mine = |ping: &&Pinging| ping.caller.client == client;
        let pings = self.clients.pings.iter().filter(|(_, ping)| mine(ping));
        let pings: Vec<u64> = pings.map(|(number, _)| *number).collect();
        for ping in pings {
            self.forget_ping(now, ping);
        }
        self.clients.subscriptions.retain(|listening, _| listening.client != client);
        self.forget_discoverer(client);
        self.observe(now);
    }

    fn on_inbox_query(&mut self, caller: Caller, query: &InboxQuery) {
        let from = match query.from.as_deref().map(|from| self.resolve(from)).transpose() {
            Ok(from) => from,
            Err(failure) => return self.fail(caller, failure),
        };
        let question = Question::Inbox {
            after: Cursor(query.after.unwrap_or(0)),
            through: Cursor(u64::MAX),
            from,
            since: None,
            messages_max: page_size(query.limit),
            bytes_max: PAGE_BYTES_MAX,
            body_bytes_max: PAGE_BODY_BYTES_MAX,
        };
        self.storage.ask(Asked::Inbox(AskedBy::Page(caller)), question);
    }

    fn on_outbox_query(&mut self, caller: Caller, page: &Page) {
        match page.after.as_deref().unwrap_or("0").parse() {
            Ok(after) => {
                let messages_max = page_size(page.limit);
                let question = Question::Outbox { after: Row(after), messages_max };
                let which = if after == 0 { WhichPage::First } else { WhichPage::Later };
                self.storage.ask(Asked::OutboxPage(caller, which), question);
            }
            Err(_) => {
                let text = "after must be the 'next' of the page before";
                self.fail(caller, Failure::new(ErrorCode::InvalidParams, text));
            }
        }
    }

    fn on_log(&mut self, caller: Caller, request: SetLog) {
        match request.level.map(|level| level.parse::<Level>()).transpose() {
            Ok(level) => self.out.effects.push(Effect::Log { caller, level }),
            Err(error) => {
                let text = format!("the level is none: {error}");
                self.fail(caller, Failure::new(ErrorCode::InvalidParams, text));
            }
        }
    }

    fn on_read(&mut self, caller: Caller, read: Read) {
        let question = Question::Body {
            cursor: Cursor(read.cursor),
            offset: read.offset,
            bytes_max: usize::try_from(read.bytes).unwrap_or(0).min(CONTROL_BODY_BYTES_MAX),
        };
        self.storage.ask(Asked::Body(caller), question);
    }

    pub(super) fn on_body(&mut self, caller: Caller, body: Option<bytes::Bytes>) {
        match body {
            Some(body) => {
                let data_base64 = super::views::base64(&body);
                self.reply(caller, Reply::Body(BodyPiece { data_base64 }));
            }
            None => {
                let text = "there is no message with this cursor in the inbox";
                self.fail(caller, Failure::new(ErrorCode::NoSuchMessage, text));
            }
        }
    }
}

/// A client has too many subscriptions or listenings.
pub(super) fn too_many_subscriptions() -> Failure {
    let text = format!("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions; end one");
    Failure::new(ErrorCode::Busy, text)
}

/// How many entries a page may have.
pub(super) fn page_size(limit: Option<u32>) -> usize {
    usize::try_from(limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX)).unwrap_or(1)
}

/// A span in milliseconds, with the microseconds behind the point.
#[expect(clippy::cast_precision_loss, reason = "a round trip of centuries may lose microseconds")]
pub(super) fn micros_as_ms(span: Span) -> f64 {
    span.as_micros() as f64 / 1000.0
}
