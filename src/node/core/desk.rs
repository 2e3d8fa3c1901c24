//! The counter where messages are handed in: numbering, keys, and who waits for what.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::storage::Asked;
use super::{Caller, Core, Effect};
use crate::control::SendRequest;
use crate::control::protocol::{ErrorCode, Failure, Reply, Sent, Wait};
use crate::courier::{self, QueueState};
use crate::crypto::message_id;
use crate::model::limits::{GIVEN_UP_MAX, MESSAGE_LIFETIME_MAX, STORED_OVERHEAD_BYTES};
use crate::model::{
    GivenUp, Incarnation, Limits, MessageId, Monotonic, Now, Occupancy, Outgoing, PeerId, Row,
    Sequence, Span, Timestamp, Uid, WhyGivenUp,
};
use crate::store::op::{KeyRow, KeyState, Op, OutboxSummary, Question};

/// How long a send waits unless it says otherwise.
const TIMEOUT_DEFAULT: Span = Span::from_secs(10);

/// Peers that messages may be on their way to at once, and whose last number is remembered: each
/// has a queue and a session of its own.
const RECIPIENTS_MAX: usize = 16_384;

/// Sends with one key that wait for the first of them to be stored.
const KEY_WAITERS_MAX: usize = 64;

/// A message on its way to the disk.
#[derive(Debug)]
pub(super) struct Queueing {
    pub(super) message: Outgoing,
    pub(super) caller: Caller,
    wait: Wait,
    timeout: Span,
}

/// Somebody waits for a message to get somewhere.
#[derive(Debug)]
struct Waiter {
    caller: Caller,
    recipient: PeerId,
    wait: Wait,
    deadline: Monotonic,
    timeout: Span,
    id: MessageId,
    duplicate: bool,
}

/// Numbers and waiters of the outbox.
#[derive(Debug)]
pub(super) struct Desk {
    incarnation: Incarnation,
    last_row: Row,
    /// The last number given to each recipient in this run.
    sequences: BTreeMap<PeerId, Sequence>,
    /// [`RECIPIENTS_MAX`], unless a test wants fewer.
    pub(super) recipients_max: usize,
    /// The highest number that was given to anybody who is not among them.
    sequences_base: Sequence,
    messages: u64,
    bytes: u64,
    bytes_max: u64,
    message_bytes_max: usize,
    queueing: Vec<Queueing>,
    waiters: BTreeMap<Row, Vec<Waiter>>,
    deadlines: BTreeSet<(Monotonic, Row)>,
    /// Messages that were sent with a key: what becomes of them has to be kept.
    keys: BTreeMap<Row, Box<str>>,
    /// Keys that are being looked up or whose message is on its way to the disk.
    keys_busy: BTreeSet<Box<str>>,
    /// Sends with such a key: they are looked at again once that is known.
    keys_waiting: BTreeMap<Box<str>, Vec<(Caller, SendRequest)>>,
    /// What became of messages while their key was being looked up: the answer, written down
    /// before, does not know it, and whoever asked would wait for what has happened already.
    settled: BTreeMap<Box<str>, KeyState>,
    /// The newest messages that were given up, for people who did not wait for them.
    given_up: VecDeque<GivenUp>,
}

impl Desk {
    pub(super) fn new(
        incarnation: Incarnation,
        last_row: Row,
        outbox: &[OutboxSummary],
        given_up: Vec<GivenUp>,
        limits: &Limits,
    ) -> Self {
        let messages = outbox.iter().map(|row| row.messages).sum();
        let bytes: u64 = outbox.iter().map(|row| row.bytes).sum();
        Self {
            incarnation,
            last_row,
            sequences: BTreeMap::new(),
            recipients_max: RECIPIENTS_MAX,
            sequences_base: Sequence(0),
            messages,
            bytes: bytes.saturating_add(STORED_OVERHEAD_BYTES.saturating_mul(messages)),
            bytes_max: limits.outbox_bytes_max,
            message_bytes_max: limits.message_bytes_max,
            queueing: Vec::new(),
            waiters: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            keys: BTreeMap::new(),
            keys_busy: BTreeSet::new(),
            keys_waiting: BTreeMap::new(),
            settled: BTreeMap::new(),
            given_up: given_up.into(),
        }
    }

    pub(super) fn deadline(&self) -> Monotonic {
        self.deadlines.first().map_or(Monotonic::NEVER, |(when, _)| *when)
    }

    /// Keeps to these limits from now on; what is queued stays.
    pub(super) const fn adopt_limits(&mut self, limits: &Limits) {
        self.bytes_max = limits.outbox_bytes_max;
        self.message_bytes_max = limits.message_bytes_max;
    }

    pub(super) const fn messages(&self) -> u64 {
        self.messages
    }

    /// Bytes of the bodies.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.messages.saturating_mul(STORED_OVERHEAD_BYTES))
    }

    /// What is kept of messages is bounded by what the outbox holds.
    pub(super) fn occupancy(&self) -> [Occupancy; 6] {
        let messages = usize::try_from(self.messages).unwrap_or(usize::MAX);
        [
            Occupancy { table: "outbox bytes", used: self.bytes, limit: self.bytes_max },
            Occupancy::new("messages to queue", self.queueing.len(), 0),
            Occupancy::new("messages waited for", self.waiters.len(), messages),
            Occupancy::new("keys of messages", self.keys.len(), messages),
            Occupancy::new("keys settled early", self.settled.len(), self.keys_busy.len()),
            Occupancy::new("numbered recipients", self.sequences.len(), self.recipients_max),
        ]
    }

    /// The number of the next message to a recipient. When too many are remembered all are
    /// forgotten, and everybody's next number is above all that were given: no number is ever
    /// given twice, and whoever waits for those between is told that they will not come.
    fn next_sequence(&mut self, recipient: PeerId) -> Sequence {
        if self.sequences.len() >= self.recipients_max && !self.sequences.contains_key(&recipient) {
            let given = std::mem::take(&mut self.sequences).into_values();
            self.sequences_base = given.max().unwrap_or(self.sequences_base);
        }
        let last = self.sequences.entry(recipient).or_insert(self.sequences_base);
        *last = last.next();
        *last
    }

    pub(super) fn take_queueing(&mut self) -> Vec<Queueing> {
        std::mem::take(&mut self.queueing)
    }

    /// A message did not make it to the disk.
    pub(super) fn withdraw(&mut self, queued: &Queueing) {
        if let Some(key) = &queued.message.key {
            self.keys_busy.remove(key);
        }
        self.leave(1, queued.message.body.len() as u64);
    }

    /// Messages were read back from the outbox.
    pub(super) fn see(&mut self, messages: &[Outgoing]) {
        for message in messages {
            if let Some(key) = &message.key {
                self.keys.insert(message.row, key.clone());
            }
        }
    }

    /// What was given up as lately as a message may wait, the newest last.
    pub(super) fn given_up(&self, now: Timestamp) -> impl DoubleEndedIterator<Item = &GivenUp> {
        self.given_up.iter().filter(move |message| message.at + MESSAGE_LIFETIME_MAX > now)
    }

    fn leave(&mut self, messages: u64, bytes: u64) {
        self.messages = self.messages.saturating_sub(messages);
        let bytes = bytes.saturating_add(STORED_OVERHEAD_BYTES.saturating_mul(messages));
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn wait(&mut self, row: Row, waiter: Waiter) {
        self.deadlines.insert((waiter.deadline, row));
        self.waiters.entry(row).or_default().push(waiter);
    }

    /// Everybody who waits for a message.
    fn take_waiters(&mut self, row: Row) -> Vec<Waiter> {
        let waiters = self.waiters.remove(&row).unwrap_or_default();
        for waiter in &waiters {
            self.deadlines.remove(&(waiter.deadline, row));
        }
        waiters
    }
}

impl Core {
    pub(super) fn on_send(&mut self, now: Now, caller: Caller, request: SendRequest) {
        let recipient = match self.resolve(&request.peer) {
            Ok(peer) if peer == self.me => {
                let text = "that is this node itself; send to another peer";
                return self.fail(caller, Failure::new(ErrorCode::InvalidParams, text));
            }
            Ok(peer) => peer,
            Err(failure) => return self.fail(caller, failure),
        };
        if request.body.len() > self.desk.message_bytes_max {
            let text = format!(
                "a message has at most {} bytes, this has {}; send it in parts, or raise \
                 message_bytes_max at both ends",
                self.desk.message_bytes_max,
                request.body.len()
            );
            return self.fail(caller, Failure::new(ErrorCode::TooLarge, text));
        }
        match &request.key {
            None => self.queue(now, caller, request, recipient),
            Some(key) if self.desk.keys_busy.contains(key) => {
                let waiting = self.desk.keys_waiting.entry(key.clone()).or_default();
                if waiting.len() < KEY_WAITERS_MAX {
                    waiting.push((caller, request));
                } else {
                    let text = "many sends with this key wait for the first; try again";
                    self.fail(caller, Failure::new(ErrorCode::Busy, text));
                }
            }
            Some(key) => {
                let key = key.clone();
                self.desk.keys_busy.insert(key.clone());
                let (subject, body) = (request.subject.clone(), request.body.clone());
                let asked = Asked::Key(caller, Box::new(request), recipient);
                self.storage.ask(asked, Question::Key { key, subject, body });
            }
        }
    }

    /// Sends that waited for another one with the same key: its fate is known now.
    pub(super) fn resume_keys(&mut self, now: Now) {
        let desk = &mut self.desk;
        let free = desk.keys_waiting.keys().filter(|key| !desk.keys_busy.contains(*key));
        let free: Vec<_> = free.cloned().collect();
        for key in free {
            for (caller, request) in self.desk.keys_waiting.remove(&key).unwrap_or_default() {
                self.on_send(now, caller, request);
            }
        }
    }

    /// The store said whether a key was used before.
    pub(super) fn on_key(
        &mut self,
        now: Now,
        caller: Caller,
        request: SendRequest,
        recipient: PeerId,
        known: Option<KeyRow>,
    ) {
        let key = request.key.as_deref().unwrap_or_default();
        let settled = self.desk.settled.remove(key).or_else(|| self.storage.unwritten_state(key));
        let Some(known) = known else { return self.queue(now, caller, request, recipient) };
        self.desk.keys_busy.remove(key);
        let conflict = match known.is_same {
            _ if known.recipient != recipient => Some("for a message to another peer"),
            false => Some("with another subject or body"),
            true => None,
        };
        if let Some(how) = conflict {
            let text = format!("this key was used {how}, nothing is sent; use another key");
            let failure = Failure::new(ErrorCode::KeyConflict, text);
            return self.fail(caller, about(failure, known.id));
        }
        match settled.unwrap_or(known.state) {
            KeyState::Delivered => self.tell_sent(caller, known.id, Wait::Delivered, true),
            KeyState::Expired => {
                let text = "it was given up: it expired, or is too large for the recipient; use \
                            another key to send it again";
                self.fail(caller, about(Failure::new(ErrorCode::Expired, text), known.id));
            }
            KeyState::Queued if request.wait == Wait::Queued => {
                self.tell_sent(caller, known.id, Wait::Queued, true);
            }
            KeyState::Queued => {
                let timeout = timeout_of(&request);
                let waiter = Waiter {
                    caller,
                    recipient,
                    wait: request.wait,
                    deadline: now.mono + timeout,
                    timeout,
                    id: known.id,
                    duplicate: true,
                };
                self.desk.wait(known.row, waiter);
            }
        }
    }

    fn queue(&mut self, now: Now, caller: Caller, request: SendRequest, recipient: PeerId) {
        let timeout = timeout_of(&request);
        let desk = &mut self.desk;
        let bytes = request.body.len() as u64 + STORED_OVERHEAD_BYTES;
        let why_not = if desk.bytes.saturating_add(bytes) > desk.bytes_max {
            Some(
                "the outbox is full; wait until messages were delivered, or raise outbox_bytes_max"
                    .to_owned(),
            )
        } else if !self.courier.writes_to(&recipient)
            && self.courier.recipients() >= desk.recipients_max
        {
            let max = desk.recipients_max;
            Some(format!("messages wait for {max} peers; wait until some of them have theirs"))
        } else {
            None
        };
        if let Some(text) = why_not {
            if let Some(key) = &request.key {
                desk.keys_busy.remove(key);
            }
            return self.fail(caller, Failure::new(ErrorCode::OutboxFull, text));
        }
        desk.messages += 1;
        desk.bytes += bytes;
        desk.last_row = Row(desk.last_row.0 + 1);
        let (incarnation, sequence) = (desk.incarnation, desk.next_sequence(recipient));
        let uid = Uid { sender: self.me, recipient, incarnation, sequence };
        let message = Outgoing {
            row: desk.last_row,
            id: message_id(&uid),
            recipient,
            incarnation,
            sequence,
            queued: now.wall,
            expires: now.wall + MESSAGE_LIFETIME_MAX,
            subject: request.subject,
            key: request.key,
            body: request.body,
        };
        desk.queueing.push(Queueing { message, caller, wait: request.wait, timeout });
    }

    /// Messages are in the outbox, on disk.
    pub(super) fn on_queued(&mut self, now: Now, queueing: Vec<Queueing>) {
        let mut messages = Vec::with_capacity(queueing.len());
        for Queueing { message, caller, wait, timeout } in queueing {
            if let Some(key) = &message.key {
                self.desk.keys_busy.remove(key);
                self.desk.keys.insert(message.row, key.clone());
            }
            if wait == Wait::Queued {
                self.tell_sent(caller, message.id, Wait::Queued, false);
            } else {
                let deadline = now.mono + timeout;
                let (recipient, id, duplicate) = (message.recipient, message.id, false);
                let waiter = Waiter { caller, recipient, wait, deadline, timeout, id, duplicate };
                self.desk.wait(message.row, waiter);
            }
            messages.push(message);
        }
        self.courier.handle(now, courier::Input::Queued(messages));
    }

    pub(super) fn on_sent(&mut self, row: Row) {
        let Some(waiters) = self.desk.waiters.get(&row) else { return };
        if !waiters.iter().any(|waiter| waiter.wait == Wait::Sent) {
            return;
        }
        for waiter in self.desk.take_waiters(row) {
            if waiter.wait == Wait::Sent {
                self.tell_sent(waiter.caller, waiter.id, Wait::Sent, waiter.duplicate);
            } else {
                self.desk.wait(row, waiter);
            }
        }
    }

    /// The recipient has these messages. That is told at once: should it be forgotten with a crash,
    /// the recipient says it again.
    pub(super) fn on_delivered(&mut self, now: Now, rows: &[Row], bytes: u64) {
        self.desk.leave(rows.len() as u64, bytes);
        self.storage.in_company(Op::Unqueue { rows: rows.to_vec() });
        for row in rows {
            self.settle_key(now, *row, KeyState::Delivered);
            for waiter in self.desk.take_waiters(*row) {
                self.tell_sent(waiter.caller, waiter.id, Wait::Delivered, waiter.duplicate);
            }
        }
    }

    /// Who waits for them is told; for who does not, it is kept and logged.
    pub(super) fn on_given_up(&mut self, now: Now, messages: Vec<GivenUp>) {
        for message in &messages {
            self.desk.leave(1, message.bytes);
            self.storage.in_company(Op::GiveUp(Box::new(message.clone())));
            self.settle_key(now, message.row, KeyState::Expired);
            let (code, text) = match message.why {
                WhyGivenUp::Expired => {
                    (ErrorCode::Expired, "it expired before it was delivered, and was given up")
                }
                WhyGivenUp::TooLarge => (
                    ErrorCode::TooLarge,
                    "the recipient does not accept messages of this size; send it in parts",
                ),
            };
            for waiter in self.desk.take_waiters(message.row) {
                self.fail(waiter.caller, about(Failure::new(code, text), waiter.id));
            }
        }
        let given_up = &mut self.desk.given_up;
        given_up.extend(messages.iter().cloned());
        given_up.drain(..given_up.len().saturating_sub(GIVEN_UP_MAX as usize));
        self.out.effects.push(Effect::GivenUp(messages));
    }

    /// The daemon stops: nobody will hear what becomes of these.
    pub(super) fn dismiss_waiters(&mut self) {
        self.desk.deadlines.clear();
        for waiter in std::mem::take(&mut self.desk.waiters).into_values().flatten() {
            let text = "the daemon stops; the message stays queued and goes out when it runs again";
            let failure = Failure::new(ErrorCode::NotDelivered, text);
            self.fail(waiter.caller, about(failure, waiter.id));
        }
    }

    pub(super) fn tick_desk(&mut self, now: Now) {
        while let Some((when, row)) = self.desk.deadlines.first().copied()
            && when <= now.mono
        {
            for waiter in self.desk.take_waiters(row) {
                if waiter.deadline > now.mono {
                    self.desk.wait(row, waiter);
                    continue;
                }
                let why = match self.courier.queue_state(&waiter.recipient) {
                    QueueState::RecipientFull => {
                        ": the recipient's inbox is full; it stays queued and is tried again"
                    }
                    _ => "; it stays queued and goes out when there is a way",
                };
                let what = match waiter.wait {
                    Wait::Sent => "not handed to a link",
                    _ => "not delivered",
                };
                let text = format!("{what} within {}{why}", seconds(waiter.timeout));
                let failure = Failure::new(ErrorCode::NotDelivered, text);
                self.fail(waiter.caller, about(failure, waiter.id));
            }
        }
    }

    /// What became of a message, if it was sent with a key. From now on whoever sends it again is
    /// answered for as long as if it had been queued only now: when it was, the clock may have been
    /// wrong.
    fn settle_key(&mut self, now: Now, row: Row, state: KeyState) {
        if let Some(key) = self.desk.keys.remove(&row) {
            if self.desk.keys_busy.contains(&key) {
                self.desk.settled.insert(key.clone(), state);
            }
            let expires = now.wall + MESSAGE_LIFETIME_MAX;
            self.storage.in_company(Op::KeyState { key, state, expires });
        }
    }

    fn tell_sent(&mut self, caller: Caller, id: MessageId, state: Wait, duplicate: bool) {
        self.reply(caller, Reply::Sent(Sent { id: id.to_string(), state, duplicate }));
    }
}

fn timeout_of(request: &SendRequest) -> Span {
    request.timeout_ms.map_or(TIMEOUT_DEFAULT, Span::from_millis)
}

fn about(failure: Failure, id: MessageId) -> Failure {
    Failure { id: Some(id.to_string()), ..failure }
}

/// A span as people write it: `10 s`, `0.5 s`.
pub(super) fn seconds(span: Span) -> String {
    let millis = span.as_millis();
    match millis % 1000 {
        0 => format!("{} s", millis / 1000),
        rest => format!("{}.{} s", millis / 1000, format!("{rest:03}").trim_end_matches('0')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: usize) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        PeerId::from_bytes(bytes)
    }

    #[test]
    fn numbers_are_remembered_for_so_many_recipients_and_never_given_twice() {
        let (incarnation, limits) = (Incarnation(1), Limits::default());
        let mut desk = Desk::new(incarnation, Row(0), &[], Vec::new(), &limits);
        assert_eq!(desk.next_sequence(peer(0)), Sequence(1));
        assert_eq!(desk.next_sequence(peer(0)), Sequence(2));
        for number in 1..=RECIPIENTS_MAX {
            desk.next_sequence(peer(number));
        }
        let remembered = desk.sequences.len();
        assert!(remembered <= RECIPIENTS_MAX, "{remembered} recipients");
        assert_eq!(desk.next_sequence(peer(0)), Sequence(3), "above all that were given");
        assert_eq!(desk.next_sequence(peer(1)), Sequence(3), "above all that were given");
    }
}
