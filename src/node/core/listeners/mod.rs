//! Named listeners: each gets every message, one leaseholder at a time, until it acknowledges.

mod listener;
mod recent;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use self::listener::{Attached, Listener};
use self::recent::{Recent, bytes_of};
use super::clients::{SUBSCRIPTIONS_MAX, too_many_subscriptions};
use super::storage::Asked;
use super::{Caller, ClientId, Core, views};
use crate::control::Outgoing as ToClient;
use crate::control::protocol::{
    Ack, ErrorCode, Event, Failure, Listen, ListenerRef, ListenerStatus, Message, MessageEvent,
    Reply, Subscribed,
};
use crate::courier::Arrival;
use crate::model::limits::{
    CONTROL_BODY_BYTES_MAX, KEY_BYTES_MAX, MESSAGE_LIFETIME_MAX, stored_bytes,
};
use crate::model::{
    Cursor, Incoming, Monotonic, Now, Occupancy, SettledClock, Span, Timestamp, excerpt,
};
use crate::store::op::{ListenerRow, Op, Question, Stored};

/// Messages that may be leased to one client at once.
const WINDOW_MAX: u32 = 1_024;
/// Bytes of bodies read from the inbox at once.
const READ_BYTES_MAX: usize = 1024 * 1024;
/// Named listeners.
const LISTENERS_MAX: usize = 256;
/// Messages offered to one client before the next client of the same listener.
const TURN: usize = 16;
/// Bytes of messages offered before they are handed over: only then it shows who does not read.
const OFFERED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Reads of the inbox under way for listeners; the others wait for their turn.
const READS_MAX: usize = 8;
/// How often what everybody acknowledged is pruned.
const PRUNE_INTERVAL: Span = Span::from_secs(3600);
/// The same when space is short and something can go.
const PRUNE_PAUSE: Span = Span::from_secs(1);

/// A listening of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Listening {
    pub(super) client: ClientId,
    pub(super) subscription: u64,
}

/// Who a question about the inbox was asked for.
#[derive(Debug)]
pub(super) enum AskedBy {
    /// A listening that catches up.
    Listening(Listening),
    /// A listing.
    Page(Caller),
    /// Subscribers, of a message that has to be read from disk.
    Subscribers,
}

/// All listeners.
#[derive(Debug)]
pub(super) struct Listeners {
    listeners: BTreeMap<Box<str>, Listener>,
    attached: BTreeMap<Listening, Attached>,
    /// The newest messages, up to `last`.
    recent: Recent,
    last: Cursor,
    messages: u64,
    /// Acknowledged since the last commit, and who waits for that.
    acks: BTreeMap<Box<str>, Vec<(Cursor, Cursor)>>,
    ack_callers: Vec<Caller>,
    /// Listeners that have something to do.
    dirty: BTreeSet<Box<str>>,
    /// Whether some of them have to wait until what was offered is handed over.
    paused: bool,
    /// Bytes offered since they were last looked at.
    offered_bytes: usize,
    /// Reads of the inbox under way, and who waits for one.
    reads: usize,
    readers: VecDeque<Listening>,
    next_prune: Monotonic,
    clock: SettledClock,
    /// What everybody had acknowledged when it was last pruned: before somebody acknowledges more,
    /// nothing more can go.
    pruned_through: Cursor,
}

impl Listeners {
    pub(super) fn new(rows: &[ListenerRow], last: Cursor, messages: u64) -> Self {
        let listeners = rows.iter().map(|row| {
            let acknowledged = row.acknowledged.iter().copied().collect();
            let listener = Listener { position: row.position, acknowledged, ..Listener::default() };
            (row.name.clone(), listener)
        });
        Self {
            listeners: listeners.collect(),
            attached: BTreeMap::new(),
            recent: Recent::default(),
            last,
            messages,
            acks: BTreeMap::new(),
            ack_callers: Vec::new(),
            dirty: BTreeSet::new(),
            paused: false,
            offered_bytes: 0,
            reads: 0,
            readers: VecDeque::new(),
            next_prune: Monotonic::START,
            clock: SettledClock::default(),
            pruned_through: Cursor(0),
        }
    }

    pub(super) const fn deadline(&self) -> Monotonic {
        if self.paused { Monotonic::START } else { self.next_prune }
    }

    /// With so many clients at most.
    pub(super) fn occupancy(&self, clients_max: usize) -> [Occupancy; 5] {
        let attached_max = clients_max.saturating_mul(SUBSCRIPTIONS_MAX);
        let leased = self.attached.values().map(|attached| attached.leased.len()).max();
        let acknowledged = self.listeners.values().map(|listener| listener.acknowledged.len());
        let messages = usize::try_from(self.last.0).unwrap_or(usize::MAX);
        [
            Occupancy::new("listeners", self.listeners.len(), LISTENERS_MAX),
            Occupancy::new("clients that listen", self.attached.len(), attached_max),
            Occupancy::new("leases of a client", leased.unwrap_or(0), WINDOW_MAX as usize),
            Occupancy::new("acknowledged ranges", acknowledged.max().unwrap_or(0), messages),
            self.recent.occupancy(),
        ]
    }

    pub(super) const fn messages(&self) -> u64 {
        self.messages
    }

    /// The last message that every listener has acknowledged, with all before it.
    fn everybody_has(&self) -> Cursor {
        let positions = self.listeners.values().map(|listener| listener.position);
        positions.min().unwrap_or(Cursor(0))
    }

    pub(super) fn on_pruned(&mut self, now: Monotonic, messages: u64) {
        self.messages = self.messages.saturating_sub(messages);
        // There may be more: one transaction removes only so many.
        self.pruned_through = Cursor(0);
        self.next_prune = self.next_prune.min(now + PRUNE_PAUSE);
    }

    fn listenings_of(&self, client: ClientId) -> impl Iterator<Item = Listening> + '_ {
        let from = Listening { client, subscription: 0 };
        let to = Listening { client, subscription: u64::MAX };
        self.attached.range(from..=to).map(|(listening, _)| *listening)
    }

    pub(super) fn status(&self) -> Vec<ListenerStatus> {
        let first_kept = self.last.0.saturating_sub(self.messages);
        self.listeners
            .iter()
            .map(|(name, listener)| {
                let read: u64 = listener
                    .acknowledged
                    .iter()
                    .map(|(first, last)| last.0.saturating_sub(first.0) + 1)
                    .sum();
                let position = listener.position.0.max(first_kept);
                ListenerStatus {
                    name: name.to_string(),
                    unread: self.last.0.saturating_sub(position).saturating_sub(read),
                    position: listener.position.0,
                    leased: listener.leased.len() as u64,
                    clients: listener.clients.len() as u64,
                    last_seen: listener
                        .left
                        .filter(|_| listener.clients.is_empty())
                        .map(views::time),
                }
            })
            .collect()
    }

    fn release(&mut self, now: Timestamp, listening: Listening) {
        let Some(attached) = self.attached.remove(&listening) else { return };
        let Some(listener) = self.listeners.get_mut(&attached.name) else { return };
        listener.left = Some(now);
        listener.clients.retain(|client| *client != listening);
        self.readers.retain(|reader| *reader != listening);
        for cursor in &attached.leased {
            listener.leased.remove(cursor);
        }
        // What it did not acknowledge is for the others.
        if let Some(first) = attached.leased.first() {
            for other in &listener.clients {
                if let Some(other) = self.attached.get_mut(other) {
                    other.scan = other.scan.min(Cursor(first.0.saturating_sub(1)));
                }
            }
        }
        self.dirty.insert(attached.name);
    }
}

impl Core {
    pub(super) fn on_listen(&mut self, caller: Caller, request: &Listen) {
        let listening =
            Listening { client: caller.client, subscription: self.clients.next_subscription() };
        match self.attach(listening, request) {
            Ok(()) => {
                let subscription = listening.subscription;
                self.reply(caller, Reply::Subscribed(Subscribed { subscription }));
            }
            Err(failure) => self.fail(caller, failure),
        }
    }

    fn attach(&mut self, listening: Listening, request: &Listen) -> Result<(), Failure> {
        if self.listeners.listenings_of(listening.client).count() >= SUBSCRIPTIONS_MAX {
            return Err(too_many_subscriptions());
        }
        let invalid = |text: String| Failure::new(ErrorCode::InvalidParams, text);
        let name: Box<str> = request.name.as_str().into();
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > KEY_BYTES_MAX || !name.chars().all(plain) {
            let shown = excerpt(&name, 40);
            return Err(invalid(format!(
                "'{shown}' is no listener name: use 1 to {KEY_BYTES_MAX} bytes of letters, \
                 digits, '.', '_' and '-'"
            )));
        }
        if !(1..=WINDOW_MAX).contains(&request.window) {
            return Err(invalid(format!("window must be from 1 to {WINDOW_MAX}")));
        }
        let from = request.from.as_deref().map(|from| self.resolve(from)).transpose()?;
        let since = request.since.as_deref().map(views::parse_time).transpose()?;
        let listeners = &mut self.listeners;
        if !listeners.listeners.contains_key(&name) {
            if listeners.listeners.len() >= LISTENERS_MAX {
                let text = format!(
                    "there are {LISTENERS_MAX} listeners already; use one of them, or remove one \
                     with 'distmsgctl listeners --remove NAME'"
                );
                return Err(Failure::new(ErrorCode::Busy, text));
            }
            let position = Cursor(0);
            self.storage.later(Op::Listener { name: name.clone(), position });
        }
        let listener = listeners.listeners.entry(name.clone()).or_default();
        listener.clients.push_back(listening);
        let attached = Attached {
            name: name.clone(),
            from,
            since,
            window: usize::try_from(request.window).unwrap_or(1),
            leased: BTreeSet::new(),
            scan: listener.position,
            asking: false,
        };
        listeners.attached.insert(listening, attached);
        listeners.dirty.insert(name);
        Ok(())
    }

    pub(super) fn detach(&mut self, now: Now, listening: Listening) -> bool {
        let known = self.listeners.attached.contains_key(&listening);
        self.listeners.release(now.wall, listening);
        known
    }

    pub(super) fn detach_all(&mut self, now: Now, client: ClientId) {
        let mine: Vec<_> = self.listeners.listenings_of(client).collect();
        for listening in mine {
            self.listeners.release(now.wall, listening);
        }
    }

    /// What only this listener kept may go from now on, see [`Listeners::everybody_has`].
    pub(super) fn on_remove_listener(&mut self, caller: Caller, request: ListenerRef) {
        let name: Box<str> = request.name.into();
        let listeners = &mut self.listeners;
        match listeners.listeners.get(&name).map(|listener| listener.clients.len()) {
            None => {
                let text = "no listener has this name; see 'distmsgctl listeners'";
                self.fail(caller, Failure::new(ErrorCode::NoSuchListener, text));
            }
            Some(0) => {
                listeners.listeners.remove(&name);
                listeners.acks.remove(&name);
                self.storage.later(Op::DropListener { name });
                self.done_later(caller);
            }
            Some(_) => {
                let text = "somebody listens by this name; end that first";
                self.fail(caller, Failure::new(ErrorCode::ListenerInUse, text));
            }
        }
    }

    pub(super) fn on_ack(&mut self, caller: Caller, request: &Ack) {
        let listening = Listening { client: caller.client, subscription: request.subscription };
        let listeners = &mut self.listeners;
        let Some(attached) = listeners.attached.get_mut(&listening) else {
            let text = "there is no such listening on this connection";
            return self.fail(caller, Failure::new(ErrorCode::InvalidParams, text));
        };
        let Some(listener) = listeners.listeners.get_mut(&attached.name) else { return };
        let acks = listeners.acks.entry(attached.name.clone()).or_default();
        for cursor in request.cursors.iter().map(|cursor| Cursor(*cursor)) {
            // Only what it was given: nobody acknowledges for others.
            if !attached.leased.remove(&cursor) {
                continue;
            }
            listener.leased.remove(&cursor);
            listener.acknowledge(cursor);
            match acks.last_mut() {
                Some((_, last)) if last.0 + 1 == cursor.0 => *last = cursor,
                _ => acks.push((cursor, cursor)),
            }
        }
        listeners.dirty.insert(attached.name.clone());
        listeners.ack_callers.push(caller);
    }

    /// Hands acknowledgements to the store: where a listener's position moved, that says it all.
    pub(super) fn commit_acknowledgements(&mut self) {
        for (name, ranges) in std::mem::take(&mut self.listeners.acks) {
            let Some(listener) = self.listeners.listeners.get(&name) else { continue };
            let position = listener.position;
            if ranges.iter().any(|(first, _)| *first <= position) {
                self.storage.later(Op::Listener { name: name.clone(), position });
            }
            for (first, last) in ranges {
                if last > position {
                    let first = first.max(Cursor(position.0 + 1));
                    self.storage.later(Op::Acknowledge { name: name.clone(), first, last });
                }
            }
        }
        for caller in std::mem::take(&mut self.listeners.ack_callers) {
            self.done_later(caller);
        }
    }

    /// Messages are in the inbox, on disk.
    pub(super) fn on_arrived(&mut self, _now: Now, arrivals: Vec<Arrival>) {
        let subscribers = self.clients.message_watchers();
        let mut views = Vec::new();
        for arrival in arrivals {
            self.listeners.last = self.listeners.last.max(arrival.cursor);
            self.listeners.messages += 1;
            match arrival.message {
                Some(message) => {
                    if !subscribers.is_empty() {
                        views.push(self.view_of(&message, message.body.len() as u64, true));
                    }
                    self.listeners.recent.remember(message);
                }
                None => {
                    self.listeners.recent.forget();
                    if !subscribers.is_empty() {
                        let after = Cursor(arrival.cursor.0 - 1);
                        self.ask_inbox(AskedBy::Subscribers, (after, arrival.cursor), 1);
                    }
                }
            }
        }
        self.tell_subscribers(&subscribers, views);
        let names: Vec<_> = self.listeners.listeners.keys().cloned().collect();
        self.listeners.dirty.extend(names);
    }

    fn tell_subscribers(&mut self, subscribers: &[Listening], messages: Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        let messages: Arc<[Message]> = messages.into();
        for Listening { client, subscription } in subscribers {
            let (subscription, messages) = (*subscription, Arc::clone(&messages));
            self.out.tell(*client, ToClient::Messages { subscription, messages });
        }
    }

    fn ask_inbox(&mut self, by: AskedBy, (after, through): (Cursor, Cursor), max: usize) {
        let question = Question::Inbox {
            after,
            through,
            from: None,
            since: None,
            messages_max: max,
            bytes_max: READ_BYTES_MAX,
            body_bytes_max: CONTROL_BODY_BYTES_MAX,
        };
        self.storage.ask(Asked::Inbox(by), question);
    }

    /// Offers every listener with something to do what there is, a few messages to each client in
    /// turn.
    pub(super) fn pump_listeners(&mut self, now: Now) {
        self.hurry_prune(now);
        self.listeners.offered_bytes = 0;
        while let Some(name) = self.listeners.dirty.pop_first() {
            let Some(listener) = self.listeners.listeners.get(&name) else { continue };
            let mut idle = 0;
            let clients = listener.clients.len();
            while idle < clients {
                if self.listeners.offered_bytes > OFFERED_BYTES_MAX {
                    self.listeners.paused = true;
                    self.listeners.dirty.insert(name);
                    return;
                }
                let Some(listener) = self.listeners.listeners.get_mut(&name) else { break };
                let Some(listening) = listener.clients.pop_front() else { break };
                listener.clients.push_back(listening);
                idle = if self.offer(listening) { 0 } else { idle + 1 };
            }
        }
    }

    /// Offers one client a few messages; false if there was nothing to offer.
    fn offer(&mut self, listening: Listening) -> bool {
        let mut offered = false;
        for _ in 0..TURN {
            let listeners = &mut self.listeners;
            let Some(attached) = listeners.attached.get(&listening) else { return false };
            if attached.room() == 0 || attached.asking || attached.scan >= listeners.last {
                return offered;
            }
            let scan = attached.scan;
            let Some(message) = listeners.recent.after(scan).cloned() else {
                if let Some(attached) = listeners.attached.get_mut(&listening) {
                    attached.asking = true;
                    listeners.readers.push_back(listening);
                }
                self.read_on();
                return offered;
            };
            let wanted = attached.from.is_none_or(|from| from == message.key.sender)
                && attached.since.is_none_or(|since| message.received >= since);
            if let Some(attached) = self.listeners.attached.get_mut(&listening) {
                attached.scan = message.cursor;
            }
            if wanted {
                let bytes = message.body.len() as u64;
                offered |= self.lease(listening, &message, bytes, true);
            }
        }
        true
    }

    /// Reads on from where clients are, for as many as may read.
    fn read_on(&mut self) {
        while self.listeners.reads < READS_MAX
            && let Some(listening) = self.listeners.readers.pop_front()
        {
            let Some(attached) = self.listeners.attached.get(&listening) else { continue };
            let question = Question::Inbox {
                after: attached.scan,
                through: self.listeners.last,
                from: attached.from,
                since: attached.since,
                messages_max: attached.room(),
                bytes_max: READ_BYTES_MAX,
                body_bytes_max: CONTROL_BODY_BYTES_MAX,
            };
            self.listeners.reads += 1;
            self.storage.ask(Asked::Inbox(AskedBy::Listening(listening)), question);
        }
    }

    pub(super) fn on_inbox(&mut self, by: AskedBy, messages: Vec<Stored>, through: Cursor) {
        match by {
            AskedBy::Page(caller) => {
                let reply = self.inbox_page(&messages, through);
                self.reply(caller, reply);
            }
            AskedBy::Subscribers => {
                let views = messages.iter().map(|s| self.view_of(&s.message, s.bytes, s.whole));
                let views = views.collect();
                self.tell_subscribers(&self.clients.message_watchers(), views);
            }
            AskedBy::Listening(listening) => {
                self.listeners.reads -= 1;
                self.read_on();
                let Some(attached) = self.listeners.attached.get_mut(&listening) else { return };
                attached.asking = false;
                attached.scan = attached.scan.max(through);
                let name = attached.name.clone();
                for stored in messages {
                    self.lease(listening, &stored.message, stored.bytes, stored.whole);
                }
                self.listeners.dirty.insert(name);
            }
        }
    }

    /// Gives a client a message, unless another has it or the listener is done with it.
    fn lease(&mut self, listening: Listening, message: &Incoming, bytes: u64, whole: bool) -> bool {
        let listeners = &mut self.listeners;
        let Some(attached) = listeners.attached.get_mut(&listening) else { return false };
        let Some(listener) = listeners.listeners.get_mut(&attached.name) else { return false };
        if listener.has(message.cursor) || !listener.leased.insert(message.cursor) {
            return false;
        }
        attached.leased.insert(message.cursor);
        listeners.offered_bytes += bytes_of(message);
        let Listening { client, subscription } = listening;
        let message = self.view_of(message, bytes, whole);
        let event = Event::Message(MessageEvent { subscription, message });
        self.out.tell(client, ToClient::Event(event));
        true
    }

    /// Does not wait for the next pruning when space is short and something can go.
    fn hurry_prune(&mut self, now: Now) {
        // So full that the next large message of somebody unknown may find no room.
        let largest = stored_bytes(self.limits.message_bytes_max as u64);
        let (bytes, most) = (self.courier.inbox_bytes(), self.limits.strangers_bytes_max());
        let crowded = bytes > most / 10 * 9 || bytes.saturating_add(largest) > most;
        let listeners = &mut self.listeners;
        if crowded && listeners.everybody_has() > listeners.pruned_through {
            listeners.next_prune = listeners.next_prune.min(now.mono + PRUNE_PAUSE);
        }
    }

    /// What the inbox is pruned to when space is short: so that a large message finds room again.
    fn inbox_goal(&self) -> u64 {
        let largest = stored_bytes(self.limits.message_bytes_max as u64);
        let most = self.limits.strangers_bytes_max();
        (most / 4 * 3).min(most.saturating_sub(largest))
    }

    /// Removes what every listener acknowledged and is old, or sooner if space is short. Without
    /// any listener nothing was acknowledged.
    pub(super) fn tick_listeners(&mut self, now: Now) {
        self.listeners.paused = false;
        let settled = self.listeners.clock.look(now);
        if self.listeners.next_prune > now.mono {
            return;
        }
        self.listeners.next_prune = now.mono + PRUNE_INTERVAL;
        if let Some(settled) = settled {
            // A key stays good for as long again as its message could have waited.
            let expired_before = settled - MESSAGE_LIFETIME_MAX;
            self.storage.later(Op::PruneKeys { expired_before });
        }
        let through = self.listeners.everybody_has();
        if through > Cursor(0) {
            self.listeners.pruned_through = through;
            let received_before = self.retained_from(settled);
            let bytes_max = self.inbox_goal();
            self.storage.later(Op::Prune { through, received_before, bytes_max });
        }
    }

    /// What was received before this need not be kept any longer. As long as it is not known what
    /// time it is, only a want of space makes anything go.
    fn retained_from(&self, settled: Option<Timestamp>) -> Timestamp {
        match (self.limits.inbox_retention, settled) {
            (Span::ZERO, _) => Timestamp::from_millis(u64::MAX),
            (retention, Some(settled)) => settled - retention,
            (_, None) => Timestamp::default(),
        }
    }
}
