//! Whether there is room for an envelope, and whether its sender is well-behaved.

use super::batch::Batch;
use super::{Inbound, Opened};
use crate::courier::window::Place;
use crate::model::limits::{CLOCK_SKEW_MAX, MESSAGE_LIFETIME_MAX, WINDOW, stored_bytes};
use crate::model::{Incarnation, Now, PeerId, ReceivedKey, Sequence};
use crate::wire::{Item, NoticeKind};

/// Windows one sender may have with us: as many restarts in nine days, with undelivered messages
/// each time. A window is never dropped to make room: it is what stands between a message that is
/// sent again and a second copy in the inbox.
const WINDOWS_PER_SENDER_MAX: usize = 256;
/// The same of senders that the operator knows: one that is started once a minute, by a timer, for
/// as long.
const VOUCHED_WINDOWS_PER_SENDER_MAX: usize = 16_384;
/// Windows of senders that the operator does not know, in all.
pub(super) const WINDOWS_MAX: usize = 100_000;
/// Messages one sender may have begun and not finished: several times what an honest one keeps on
/// the way at once.
const PARTIALS_PER_SENDER_MAX: usize = 256;
/// Messages that senders the operator does not know have begun and not finished, in all.
pub(super) const PARTIALS_MAX: usize = 10_000;
/// The part of the inbox that one sender the operator does not know may take for messages it has
/// begun, if it has begun more than one. One alone may take half of it, with all that is begun.
const BEGUN_SHARE: u64 = 16;
/// The part that all together may, for somebody to begin a second one.
const BEGUN_SHARE_ALL: u64 = 4;

/// How an envelope is refused.
pub(super) enum Refusal {
    /// Its source is told.
    Notice(NoticeKind),
    /// Its source will notice by itself, or is not well-behaved.
    Silence,
}

/// What an envelope needs.
#[derive(Default)]
struct Needs {
    /// Room in the inbox: a message that begins needs all of its room, so that it can end.
    bytes: u64,
    /// Messages that begin, and their part of the room.
    begun: usize,
    begun_bytes: u64,
    /// Whether anything is news.
    any: bool,
}

impl Inbound {
    /// The room that an envelope needs, or why it cannot be taken: it is taken whole or not at all.
    pub(super) fn assess(&self, now: Now, batch: &Batch, opened: &Opened) -> Result<u64, Refusal> {
        let full = Refusal::Notice(NoticeKind::Full);
        let needs = self.needs(now, batch, opened)?;
        let (sender, vouched) = (opened.header.source, opened.vouched);
        let run = (sender, opened.payload.incarnation);
        if needs.any
            && self.known(batch, &run).is_none()
            && !self.has_room_for_window(batch, &sender, vouched)
        {
            return Err(full);
        }
        if needs.begun > 0 && !self.has_room_for_partials(batch, &sender, &needs, vouched) {
            return Err(full);
        }
        let taken = self.inbox_bytes.saturating_add(self.reserved_bytes);
        let taken = taken.saturating_add(batch.reserved).saturating_add(needs.bytes);
        let room = if vouched { self.inbox_bytes_max } else { self.strangers_bytes_max };
        if needs.bytes > 0 && taken > room {
            return Err(full);
        }
        Ok(needs.bytes)
    }

    fn needs(&self, now: Now, batch: &Batch, opened: &Opened) -> Result<Needs, Refusal> {
        let (sender, incarnation) = (opened.header.source, opened.payload.incarnation);
        let window = self.known(batch, &(sender, incarnation));
        let mut needs = Needs::default();
        let mut begun = None;
        for item in &opened.payload.items {
            let (sequence, expires, total) = match item {
                Item::Ping => continue,
                Item::Message { sequence, expires, body, .. } => {
                    (*sequence, *expires, body.len() as u64)
                }
                Item::Chunk { sequence, expires, total, .. } => (*sequence, *expires, *total),
            };
            let key = ReceivedKey { sender, incarnation, sequence };
            // What was begun under another limit may be finished.
            if usize::try_from(total).unwrap_or(usize::MAX) > self.message_bytes_max
                && !self.is_begun(batch, &key)
            {
                return Err(Refusal::Notice(NoticeKind::TooLarge));
            }
            match window.map(|window| window.place(sequence)) {
                Some(Place::Past) => continue,
                Some(Place::GivenUp) => return Err(Refusal::Silence),
                _ => {}
            }
            let unborn = expires > now.wall + MESSAGE_LIFETIME_MAX + CLOCK_SKEW_MAX;
            // A floor moves the window before the items are placed, so only what is beyond even
            // then is refused: the sender's own floor bounds how far ahead it may be.
            let ahead = sequence.0.saturating_sub(opened.payload.floor.0) >= WINDOW;
            if expires + CLOCK_SKEW_MAX < now.wall || unborn || ahead {
                return Err(Refusal::Silence);
            }
            needs.any = true;
            let is_chunk = matches!(item, Item::Chunk { .. });
            if !is_chunk {
                needs.bytes = needs.bytes.saturating_add(stored_bytes(total));
            } else if begun != Some(sequence) && !self.is_begun(batch, &key) {
                begun = Some(sequence);
                needs.begun += 1;
                needs.begun_bytes = needs.begun_bytes.saturating_add(stored_bytes(total));
                needs.bytes = needs.bytes.saturating_add(stored_bytes(total));
            }
        }
        Ok(needs)
    }

    fn is_begun(&self, batch: &Batch, key: &ReceivedKey) -> bool {
        batch.partials.contains_key(key) || self.partials.contains_key(key)
    }

    fn has_room_for_window(&self, batch: &Batch, sender: &PeerId, vouched: bool) -> bool {
        let own = (*sender, Incarnation(0))..=(*sender, Incarnation(u64::MAX));
        let own_new = batch.new_windows.get(sender).copied().unwrap_or(0);
        let new: usize = batch.new_windows.values().sum();
        let own = self.windows.range(own).count() + own_new;
        match vouched {
            true => own < VOUCHED_WINDOWS_PER_SENDER_MAX,
            false => own < WINDOWS_PER_SENDER_MAX && self.windows.len() + new < WINDOWS_MAX,
        }
    }

    /// Whether a sender may begin messages. What was receipted in part cannot be dropped before it
    /// expires, so nobody may begin so much that nobody else can. Those that a batch ends count as
    /// long as it is not on disk.
    fn has_room_for_partials(
        &self,
        batch: &Batch,
        sender: &PeerId,
        needs: &Needs,
        vouched: bool,
    ) -> bool {
        let key = |incarnation, sequence| ReceivedKey { sender: *sender, incarnation, sequence };
        let own = key(Incarnation(0), Sequence(0))..=key(Incarnation(u64::MAX), Sequence(u64::MAX));
        let staged = batch.partials.range(own.clone()).filter_map(|(_, partial)| partial.as_ref());
        let own = self.partials.range(own).map(|(_, partial)| partial).chain(staged);
        let (count, bytes) =
            own.fold((needs.begun, needs.begun_bytes), |(count, bytes), partial| {
                (count + 1, bytes.saturating_add(stored_bytes(partial.total)))
            });
        let in_all = self.partials.len() + batch.partials.len() + needs.begun;
        let reserved = self.reserved_bytes.saturating_add(batch.reserved);
        let reserved = reserved.saturating_add(needs.begun_bytes);
        let is_within = match count == needs.begun {
            // Its first one: whatever its size, if nobody else has begun any.
            true => reserved == needs.begun_bytes || reserved <= self.inbox_bytes_max / 2,
            false => {
                bytes <= self.inbox_bytes_max / BEGUN_SHARE
                    && reserved <= self.inbox_bytes_max / BEGUN_SHARE_ALL
            }
        };
        count <= PARTIALS_PER_SENDER_MAX && (vouched || (in_all <= PARTIALS_MAX && is_within))
    }
}
