//! Sessions that others open with us.

use super::Inbound;
use super::batch::Batch;
use crate::courier::Delivery;
use crate::courier::prekeys::Prekeys;
use crate::courier::session::opening_holds;
use crate::crypto::{SealingKeys, SessionContext, SessionSecret};
use crate::model::{Now, PeerId, SessionId, Timestamp};
use crate::wire::{NoticeKind, Opening};

/// Sessions one sender may have with us: more, and its own oldest goes.
const SESSIONS_PER_SENDER_MAX: usize = 8;

/// A session another opened with us.
pub(super) struct InSession {
    pub(super) secret: SessionSecret,
    pub(super) keys: SealingKeys,
    pub(super) created: Timestamp,
    /// Whether it is on disk.
    pub(super) stored: bool,
    /// Whether the operator knows its sender: strangers' sessions go first when there are too
    /// many. Not stored; the next envelope says it again.
    pub(super) vouched: bool,
}

impl Inbound {
    /// Checks an opening and accepts its session; else what to answer, if anything.
    pub(super) fn accept(
        &mut self,
        now: Now,
        delivery: &Delivery,
        opening: Option<&Opening>,
        prekeys: &Prekeys,
    ) -> Result<InSession, Option<NoticeKind>> {
        let opening = opening.ok_or(Some(NoticeKind::Reset))?;
        let Some(prekey) = prekeys.secret(opening.prekey, now) else {
            return Err(Some(NoticeKind::Reset));
        };
        let header = &delivery.envelope.header;
        let openings = match delivery.via_vouched {
            true => &mut self.vouched_openings,
            false => &mut self.openings,
        };
        if !openings.signatures.take(delivery.via, now.mono) {
            return Err(None);
        }
        let context = SessionContext {
            sender: header.source,
            recipient: self.me,
            session: header.session,
            prekey: opening.prekey,
        };
        if !opening_holds(&context, opening) || !openings.sessions.take(delivery.via, now.mono) {
            return Err(None);
        }
        let secret = SessionSecret::accept(prekey, &opening.encapsulation, &context);
        let secret = secret.map_err(|_| None)?;
        let keys = secret.keys();
        let vouched = delivery.vouched;
        Ok(InSession { secret, keys, created: now.wall, stored: false, vouched })
    }

    pub(super) fn insert_session(&mut self, key: (PeerId, SessionId), session: InSession) {
        let own = (key.0, SessionId(0))..=(key.0, SessionId(u64::MAX));
        let own_oldest = self.sessions.range(own.clone()).min_by_key(|(_, s)| s.created);
        let evicted = if self.sessions.range(own).count() >= SESSIONS_PER_SENDER_MAX {
            own_oldest.map(|(key, _)| *key)
        } else if self.sessions.len() >= self.sessions_max {
            self.most_dispensable_session()
        } else {
            None
        };
        if let Some(key) = evicted {
            self.remove_session(key);
        }
        self.sessions.insert(key, session);
    }

    /// The oldest of those whose senders the operator does not know, if there are any.
    pub(super) fn most_dispensable_session(&self) -> Option<(PeerId, SessionId)> {
        let sessions = self.sessions.iter();
        sessions.min_by_key(|(_, s)| (s.vouched, s.created)).map(|(key, _)| *key)
    }

    pub(super) fn remove_session(&mut self, key: (PeerId, SessionId)) {
        let Some(old) = self.sessions.remove(&key) else { return };
        // What was never written needs no removal. While there is no room on disk nothing is
        // written, and whoever opens sessions all the same leaves nothing behind.
        let is_being_written = |batch: &Batch| batch.sessions.contains(&key);
        if old.stored || self.batch.as_deref().is_some_and(is_being_written) {
            self.chores.sessions.insert(key);
        }
    }
}
