//! What is too old, and goes.

use std::collections::BTreeSet;

use super::{Inbound, Opened, Run};
use crate::courier::Change;
use crate::model::limits::{
    CLOCK_SKEW_MAX, MESSAGE_LIFETIME_MAX, PREKEY_LIFETIME, SESSION_LIFETIME,
};
use crate::model::{Monotonic, Now, PeerId, ReceivedKey, Sequence, SessionId, Span};
use crate::wire::{Header, Payload};

/// How often what is too old is looked for.
const CHORE_INTERVAL: Span = Span::from_secs(600);
/// While a batch is under way, nothing is looked for.
const CHORE_PAUSE: Span = Span::from_secs(1);
/// For so long after a window was last touched its gaps may still be filled: by a message queued
/// then, whose sender's clock is behind ours, and which is taken somewhat late.
const GAP_LIFETIME: Span =
    Span::from_micros(MESSAGE_LIFETIME_MAX.as_micros() + 2 * CLOCK_SKEW_MAX.as_micros());
/// A window outlives every prekey that its messages can have been sealed to.
const WINDOW_LIFETIME: Span = Span::from_micros(PREKEY_LIFETIME.as_micros() + 86_400_000_000);

/// What nothing received asked for: it goes with the next batch, and is due again if that is
/// refused.
#[derive(Debug, Default, Clone)]
pub(super) struct Chores {
    /// Sessions that are over.
    pub(super) sessions: BTreeSet<(PeerId, SessionId)>,
    /// Messages that will not be whole any more.
    pub(super) partials: BTreeSet<ReceivedKey>,
    /// Windows that may not be needed any more. They are so until the store said that they are
    /// gone.
    pub(super) windows: BTreeSet<Run>,
}

impl Chores {
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.partials.is_empty() && self.windows.is_empty()
    }

    /// What came up twice is done once.
    pub(super) fn append(&mut self, mut others: Self) {
        self.sessions.append(&mut others.sessions);
        self.partials.append(&mut others.partials);
        self.windows.append(&mut others.windows);
    }

    pub(super) fn changes(&self) -> Vec<Change> {
        let sessions = self.sessions.iter();
        let sessions = sessions.map(|&(sender, session)| Change::DropSession { sender, session });
        let partials = self.partials.iter().map(|key| Change::DropChunks(*key));
        let windows = self.windows.iter();
        let windows =
            windows.map(|&(sender, incarnation)| Change::DropWindow { sender, incarnation });
        sessions.chain(partials).chain(windows).collect()
    }
}

impl Inbound {
    pub(super) const fn chores_deadline(&self) -> Monotonic {
        self.next_chore
    }

    /// Looks for what is too old.
    pub(in crate::courier) fn tick(&mut self, now: Now) {
        if now.mono < self.next_chore {
            return;
        }
        if self.batch.is_some() {
            // Its windows and chunks may be about to change.
            self.next_chore = now.mono + CHORE_PAUSE;
            return;
        }
        self.next_chore = now.mono + CHORE_INTERVAL;
        let chores = &mut self.chores;
        let is_over = |created| now.wall >= created + SESSION_LIFETIME;
        let over = self.sessions.extract_if(.., |_, session| is_over(session.created));
        chores.sessions.extend(over.map(|(key, _)| key));
        let (mut dropped, mut reserved) = (0, 0);
        self.partials.retain(|key, partial| {
            let keep = now.wall < partial.expires + CLOCK_SKEW_MAX;
            if !keep {
                dropped += partial.bytes;
                reserved += partial.rest();
                chores.partials.insert(*key);
            }
            keep
        });
        self.inbox_bytes = self.inbox_bytes.saturating_sub(dropped);
        self.reserved_bytes = self.reserved_bytes.saturating_sub(reserved);
        let is_old = |touched| now.wall >= touched + WINDOW_LIFETIME;
        let old = self.windows.iter().filter(|(_, w)| w.is_in_order() && is_old(w.touched));
        chores.windows.extend(old.map(|(run, _)| *run));
        self.release_stale(now);
    }

    /// The chores of a batch are done.
    pub(super) fn on_chores_done(&mut self, now: Now, chores: &Chores, kept_windows: &[Run]) {
        for run in &chores.windows {
            if !kept_windows.contains(run) {
                self.windows.remove(run);
            } else if let Some(window) = self.windows.get_mut(run) {
                // It is asked about again when as much time has passed once more.
                window.touched = now.wall;
            }
        }
    }

    /// Messages held for others that have expired by now need not wait any longer. The gap is
    /// closed by an envelope of our own making, which goes the way of all others.
    fn release_stale(&mut self, now: Now) {
        for ((sender, incarnation), window) in &self.windows {
            if window.is_in_order() || now.wall < window.touched + GAP_LIFETIME {
                continue;
            }
            let mut skipped = window.clone();
            let floor = skipped.skip_all().last().map_or(Sequence::FIRST, |last| last.next());
            let payload = Payload { incarnation: *incarnation, floor, items: Vec::new() };
            let header = Header {
                source: *sender,
                destination: self.me,
                session: SessionId(0),
                counter: 0,
                commitment: [0; 32],
            };
            let receipt = [0; 32];
            self.waiting.push_back(Opened { header, receipt, payload, bytes: 0, vouched: true });
        }
    }
}
