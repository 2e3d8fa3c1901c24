//! What waits for the store, and what to do when it answers.

use std::collections::{BTreeMap, BTreeSet};

use super::desk::Queueing;
use super::listeners::AskedBy;
use super::{Caller, Core, Effect};
use crate::control::SendRequest;
use crate::control::protocol::{Done, ErrorCode, Failure, Reply};
use crate::courier::{self, Change};
use crate::model::{Incarnation, Monotonic, Now, Occupancy, Outgoing, PeerId, Row, Span};
use crate::store::op::{
    Answer, Completion, KeyState, Op, OutboxSummary, Pruned, Query, Question, Transaction,
};

/// Between two tries to store what there was no room for.
const RETRY_INTERVAL: Span = Span::from_secs(1);
/// How long what became of sent messages waits for another transaction to go with. A sync of its
/// own would make the next message, which often comes at once, wait for it.
const COMPANY_INTERVAL: Span = Span::from_millis(5);
/// Messages loaded from the outbox at once.
const LOAD_MESSAGES_MAX: usize = 1_024;
/// Changes that wait for the store: what the operator and what was delivered asked for.
const LATER_MAX: usize = 65_536;
/// Transactions under way: one for each batch of sends while the disk is busy, and few others.
const TRANSACTIONS_MAX: usize = 65_536;
/// Records of peers stored at once: what waits behind them waits for no more.
const RECORDS_AT_ONCE: usize = 256;

/// What to do when a transaction is on disk.
#[derive(Debug)]
enum Then {
    /// Tell the courier.
    Received,
    /// New messages are in the outbox.
    Queued(Vec<Queueing>),
    /// Tell who waits. If there was no room, the same again later.
    Later(Later),
}

/// Changes that nothing has to wait for, and who waits for them all the same.
#[derive(Debug, Default)]
struct Later {
    ops: Vec<Op>,
    /// Peers whose records changed, and are written after `ops`.
    records: Vec<PeerId>,
    waiting: Vec<(Caller, Reply)>,
}

/// Peers whose rows on disk are not what is known of them, because their records changed. What they
/// should be is looked up when it is written: at most one change for each, however long that takes.
#[derive(Debug, Default)]
struct ChangedRecords {
    /// Those with a row on disk, or on its way there.
    rows: BTreeSet<PeerId>,
    /// Those with a newer record. They can be learned again, and wait while there is no room.
    learned: BTreeSet<PeerId>,
    /// Those that lost their record and have a row: writing that down makes room.
    dropped: BTreeSet<PeerId>,
}

impl ChangedRecords {
    fn learn(&mut self, peer: PeerId) {
        self.dropped.remove(&peer);
        self.learned.insert(peer);
    }

    fn drop(&mut self, peer: PeerId) {
        self.learned.remove(&peer);
        if self.rows.contains(&peer) {
            self.dropped.insert(peer);
        }
    }

    fn is_empty(&self, full: bool) -> bool {
        self.dropped.is_empty() && (full || self.learned.is_empty())
    }

    /// Those to be written now, at most so many.
    fn take(&mut self, full: bool, most: usize) -> Vec<PeerId> {
        let mut taken = Vec::new();
        let all = [(&mut self.dropped, true), (&mut self.learned, !full)];
        for peers in all.into_iter().filter_map(|(peers, now)| now.then_some(peers)) {
            while taken.len() < most
                && let Some(peer) = peers.pop_first()
            {
                taken.push(peer);
            }
        }
        taken
    }

    /// Notes what rows there will be.
    fn note(&mut self, ops: &[Op]) {
        for op in ops {
            match op {
                Op::Peer(row) => self.rows.insert(row.peer),
                Op::DropPeer(peer) => self.rows.remove(peer),
                _ => false,
            };
        }
    }
}

/// What a question was for.
#[derive(Debug)]
pub(super) enum Asked {
    /// The courier wants more messages for a recipient, of so many bytes.
    Outbox(PeerId, usize),
    /// A listing of the outbox.
    OutboxPage(Caller, WhichPage),
    /// Something about the inbox.
    Inbox(AskedBy),
    /// A piece of a body.
    Body(Caller),
    /// Whether a key was used before.
    Key(Caller, Box<SendRequest>, PeerId),
}

/// Which page of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhichPage {
    First,
    Later,
}

/// What is on its way to the store.
#[derive(Debug, Default)]
pub(super) struct Storage {
    token: u64,
    /// What the courier wants stored.
    received: Option<Vec<Change>>,
    /// Changes that nothing has to wait for.
    later: Vec<Op>,
    /// Who waits for them all the same.
    waiting: Vec<(Caller, Reply)>,
    /// Records of peers that changed.
    records: ChangedRecords,
    /// Whether some of `later` should not wait for company.
    urgent: bool,
    /// Until when the rest of it does.
    company_until: Option<Monotonic>,
    /// Whether some of `later` is on its way. One such transaction at a time: were the first of two
    /// refused, it would come again after the second, and what is older would overwrite what is
    /// newer.
    later_on_its_way: bool,
    /// Nothing waits for anything any more.
    ending: bool,
    then: BTreeMap<u64, Then>,
    asked: BTreeMap<u64, Asked>,
    asking: Vec<Query>,
    /// Since when there is no room.
    full: bool,
    retry_at: Option<Monotonic>,
}

impl Storage {
    pub(super) fn receive(&mut self, changes: Vec<Change>) {
        self.received = Some(changes);
    }

    pub(super) fn later(&mut self, op: Op) {
        self.urgent = true;
        self.later.push(op);
    }

    /// What clients asked for is bounded by the requests that they may have without a reply.
    /// There are so many records at most.
    pub(super) fn occupancy(&self, records_max: usize) -> [Occupancy; 4] {
        let records = self.records.learned.len() + self.records.dropped.len();
        let records_max = records_max.saturating_add(self.records.rows.len());
        [
            Occupancy::new("records to store", records, records_max),
            Occupancy::new("changes to store", self.later.len(), LATER_MAX),
            Occupancy::new("transactions under way", self.then.len(), TRANSACTIONS_MAX),
            Occupancy::new("questions to ask", self.asking.len(), 0),
        ]
    }

    pub(super) fn later_all(&mut self, changes: Vec<Change>) {
        self.urgent = true;
        self.later.extend(changes.into_iter().map(op_of));
    }

    /// A peer has a newer record than the one on disk.
    pub(super) fn record_learned(&mut self, peer: PeerId) {
        self.urgent = true;
        self.records.learn(peer);
    }

    /// A peer has no record any more.
    pub(super) fn record_dropped(&mut self, peer: PeerId) {
        self.urgent = true;
        self.records.drop(peer);
    }

    /// A peer has a row on disk.
    pub(super) fn note_row(&mut self, peer: PeerId) {
        self.records.rows.insert(peer);
    }

    /// A change that waits for company: should it be lost with a crash, it will be made again.
    pub(super) fn in_company(&mut self, op: Op) {
        self.later.push(op);
    }

    /// Nothing waits for company any more, nor for what is on its way.
    pub(super) const fn hurry(&mut self) {
        self.urgent = true;
        self.company_until = None;
        self.ending = true;
    }

    /// Replies once everything asked for so far is on disk.
    pub(super) fn reply_later(&mut self, caller: Caller, reply: Reply) {
        self.waiting.push((caller, reply));
    }

    pub(super) fn ask(&mut self, asked: Asked, what: Question) {
        self.token += 1;
        self.asked.insert(self.token, asked);
        self.asking.push(Query { token: self.token, what });
    }

    /// Whether the last thing the store said was that there is no room.
    pub(super) const fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn deadline(&self) -> Monotonic {
        self.retry_at.or(self.company_until).unwrap_or(Monotonic::NEVER)
    }

    /// What became of a key's message, if there was no room yet to write that down.
    pub(super) fn unwritten_state(&self, key: &str) -> Option<KeyState> {
        self.later.iter().rev().find_map(|op| match op {
            Op::KeyState { key: other, state, .. } if **other == *key => Some(*state),
            _ => None,
        })
    }

    /// Messages that left the outbox, if that is not written yet.
    fn unwritten_rows(&self) -> BTreeSet<Row> {
        let rows = self.later.iter().flat_map(|op| match op {
            Op::Unqueue { rows } => rows.as_slice(),
            Op::GiveUp(message) => std::slice::from_ref(&message.row),
            _ => &[],
        });
        rows.copied().collect()
    }

    fn transact(&mut self, ops: Vec<Op>, then: Then) -> Effect {
        self.token += 1;
        self.then.insert(self.token, then);
        Effect::Transact(Transaction { token: self.token, ops })
    }
}

impl Core {
    /// Hands everything that waits to the store. Questions go last: they see what was stored
    /// before.
    pub(super) fn commit(&mut self, now: Now) {
        let queueing = self.desk.take_queueing();
        let company = !queueing.is_empty()
            || self.storage.received.is_some()
            || !self.storage.asking.is_empty();
        if !queueing.is_empty() {
            let ops = queueing.iter().map(|q| Op::Queue(Box::new(q.message.clone()))).collect();
            let effect = self.storage.transact(ops, Then::Queued(queueing));
            self.out.effects.push(effect);
        }
        if let Some(changes) = self.storage.received.take() {
            let ops = changes.into_iter().map(op_of).collect();
            let effect = self.storage.transact(ops, Then::Received);
            self.out.effects.push(effect);
        }
        self.commit_acknowledgements();
        self.commit_later(now, company);
        let asking = std::mem::take(&mut self.storage.asking);
        self.out.effects.extend(asking.into_iter().map(Effect::Ask));
    }

    fn commit_later(&mut self, now: Now, company: bool) {
        let storage = &mut self.storage;
        let idle = storage.later.is_empty()
            && storage.waiting.is_empty()
            && storage.records.is_empty(storage.full);
        let on_its_way = storage.later_on_its_way && !storage.ending;
        if idle || on_its_way || storage.retry_at.is_some() {
            return;
        }
        if !company && !storage.urgent && storage.waiting.is_empty() {
            storage.company_until.get_or_insert(now.mono + COMPANY_INTERVAL);
            return;
        }
        (storage.urgent, storage.company_until) = (false, None);
        storage.later_on_its_way = true;
        let most = if storage.ending { usize::MAX } else { RECORDS_AT_ONCE };
        let later = Later {
            ops: std::mem::take(&mut storage.later),
            records: storage.records.take(storage.full, most),
            waiting: std::mem::take(&mut storage.waiting),
        };
        let mut ops = later.ops.clone();
        ops.extend(later.records.iter().map(|peer| self.peer_op(*peer)));
        self.storage.records.note(&ops);
        let effect = self.storage.transact(ops, Then::Later(later));
        self.out.effects.push(effect);
    }

    pub(super) fn tick_storage(&mut self, now: Now) {
        if self.storage.retry_at.is_some_and(|at| at <= now.mono) {
            self.storage.retry_at = None;
            self.storage.urgent = true;
        }
        if self.storage.company_until.is_some_and(|until| until <= now.mono) {
            self.storage.urgent = true;
            self.storage.company_until = None;
        }
    }

    pub(super) fn on_completion(&mut self, now: Now, completion: Completion) {
        match completion {
            Completion::Committed { token, pruned, kept_windows } => {
                self.storage.full = false;
                if pruned != Pruned::default() {
                    self.listeners.on_pruned(now.mono, pruned.messages);
                    self.courier.handle(now, courier::Input::Pruned { bytes: pruned.bytes });
                }
                if let Some(then) = self.storage.then.remove(&token) {
                    self.on_committed(now, then, kept_windows);
                }
            }
            Completion::Full { token } => {
                self.storage.full = true;
                if let Some(then) = self.storage.then.remove(&token) {
                    self.on_full(now, then);
                }
            }
            Completion::Answered { token, answer } => {
                if let Some(asked) = self.storage.asked.remove(&token) {
                    self.on_answer(now, asked, answer);
                }
            }
            Completion::Failed { reason } => self.out.effects.push(Effect::Stop { reason }),
        }
    }

    fn on_committed(&mut self, now: Now, then: Then, kept_windows: Vec<(PeerId, Incarnation)>) {
        match then {
            Then::Received => {
                self.courier.handle(now, courier::Input::Stored { kept_windows });
                // The next batch should not wait for the rest of the inputs.
                self.carry(now);
            }
            Then::Queued(queueing) => self.on_queued(now, queueing),
            Then::Later(later) => {
                self.storage.later_on_its_way = false;
                for (caller, reply) in later.waiting {
                    self.reply(caller, reply);
                }
            }
        }
    }

    fn on_full(&mut self, now: Now, then: Then) {
        match then {
            Then::Received => self.courier.handle(now, courier::Input::StoreFull),
            Then::Queued(queueing) => {
                for queued in queueing {
                    self.desk.withdraw(&queued);
                    let text = "there is no room on the daemon's disk or in its quota; free some \
                                and send again";
                    self.fail(queued.caller, Failure::new(ErrorCode::StorageFull, text));
                }
            }
            Then::Later(later) => {
                let Later { mut ops, records, mut waiting } = later;
                for peer in records {
                    self.on_record_unwritten(peer);
                }
                let storage = &mut self.storage;
                storage.later_on_its_way = false;
                ops.append(&mut storage.later);
                waiting.append(&mut storage.waiting);
                storage.later = ops;
                storage.waiting = waiting;
                storage.retry_at = Some(now.mono + RETRY_INTERVAL);
            }
        }
    }

    /// There was no room for what became of a peer's record.
    fn on_record_unwritten(&mut self, peer: PeerId) {
        if self.router.record(&peer).is_some() {
            self.storage.record_learned(peer);
        } else {
            // Perhaps the row to be removed is there.
            self.storage.note_row(peer);
            self.storage.record_dropped(peer);
        }
    }

    fn on_answer(&mut self, now: Now, asked: Asked, answer: Answer) {
        match (asked, answer) {
            (Asked::Outbox(recipient, bytes_max), Answer::OutboxOf(messages)) => {
                self.on_outbox(now, recipient, bytes_max, messages);
            }
            (Asked::OutboxPage(caller, which), Answer::Outbox(heads)) => {
                let reply = self.outbox_page(now, which, &heads);
                self.reply(caller, reply);
            }
            (Asked::Inbox(by), Answer::Inbox { messages, through }) => {
                self.on_inbox(by, messages, through);
            }
            (Asked::Body(caller), Answer::Body(body)) => self.on_body(caller, body),
            (Asked::Key(caller, request, recipient), Answer::Key(known)) => {
                self.on_key(now, caller, *request, recipient, known);
            }
            // The store answers the question that was asked.
            (asked, _) => debug_assert!(false, "wrong answer to {asked:?}"),
        }
    }

    /// Messages were read back from the outbox. Some may have left it, but that is not written yet.
    fn on_outbox(
        &mut self,
        now: Now,
        recipient: PeerId,
        bytes_max: usize,
        mut messages: Vec<Outgoing>,
    ) {
        let last = messages.last().map(|message| message.row);
        let left = self.storage.unwritten_rows();
        messages.retain(|message| !left.contains(&message.row));
        if let (true, Some(last)) = (messages.is_empty(), last) {
            return self.load_outbox(recipient, last, bytes_max);
        }
        self.desk.see(&messages);
        self.courier.handle(now, courier::Input::Loaded { recipient, messages });
    }

    pub(super) fn load_outbox(&mut self, recipient: PeerId, after: Row, bytes_max: usize) {
        self.storage.ask(
            Asked::Outbox(recipient, bytes_max),
            Question::OutboxOf { recipient, after, messages_max: LOAD_MESSAGES_MAX, bytes_max },
        );
    }

    /// The reply to a request that is done once it is on disk.
    pub(super) fn done_later(&mut self, caller: Caller) {
        self.storage.reply_later(caller, Reply::Done(Done {}));
    }
}

/// What waits for a recipient, in the courier's words.
pub(super) const fn waiting_of(row: &OutboxSummary) -> courier::Waiting {
    let OutboxSummary { recipient, messages, expires, .. } = *row;
    courier::Waiting { recipient, messages, expires }
}

/// What the courier wants kept, in the store's words.
fn op_of(change: Change) -> Op {
    match change {
        Change::Deliver(message) => Op::Deliver(message),
        Change::Hold(message) => Op::Hold(message),
        Change::Release { key, cursor } => Op::Release { key, cursor },
        Change::Chunk(chunk) => Op::Chunk(chunk),
        Change::Assemble { key, id, cursor, received } => {
            Op::Assemble { key, id, cursor, received }
        }
        Change::DropChunks(key) => Op::DropChunks(key),
        Change::Window(row) => Op::Window(row),
        Change::DropWindow { sender, incarnation } => Op::DropWindow { sender, incarnation },
        Change::Session(row) => Op::Session(row),
        Change::DropSession { sender, session } => Op::DropSession { sender, session },
        Change::Prekey(row) => Op::Prekey(row),
        Change::DropPrekey(id) => Op::DropPrekey(id),
    }
}
