//! What is too old, and goes.

use std::collections::{BTreeMap, BTreeSet};

use super::{Inbound, Run};
use crate::courier::Change;
use crate::courier::window::Window;
use crate::model::limits::{
    CLOCK_SKEW_MAX, MESSAGE_LIFETIME_MAX, PREKEY_LIFETIME, SESSION_LIFETIME,
};
use crate::model::{Monotonic, Now, PeerId, Sequence, SessionId, Span};

/// How often what is too old is looked for.
const CHORE_INTERVAL: Span = Span::from_secs(600);
/// While a batch is under way, nothing is looked for; and what was refused is not tried again.
const CHORE_PAUSE: Span = Span::from_secs(1);
/// Windows asked about at once: for each the store looks into the inbox.
const WINDOWS_PER_LOOK: usize = 4_096;
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
    /// Numbers below which nothing is waited for any more.
    pub(super) skips: BTreeMap<Run, Sequence>,
    /// Windows that may not be needed any more. They are so until the store said that they are
    /// gone.
    pub(super) windows: BTreeSet<Run>,
}

impl Chores {
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.skips.is_empty() && self.windows.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len() + self.skips.len() + self.windows.len()
    }

    /// What came up twice is done once.
    pub(super) fn append(&mut self, mut others: Self) {
        self.sessions.append(&mut others.sessions);
        for (run, floor) in others.skips {
            self.skip(run, floor);
        }
        self.windows.append(&mut others.windows);
    }

    fn skip(&mut self, run: Run, floor: Sequence) {
        let known = self.skips.entry(run).or_insert(floor);
        *known = floor.max(*known);
    }

    /// Those that are changes as they are.
    pub(super) fn changes(&self) -> Vec<Change> {
        let sessions = self.sessions.iter();
        let sessions = sessions.map(|&(sender, session)| Change::DropSession { sender, session });
        let windows = self.windows.iter();
        let windows =
            windows.map(|&(sender, incarnation)| Change::DropWindow { sender, incarnation });
        sessions.chain(windows).collect()
    }
}

impl Inbound {
    pub(super) fn chores_deadline(&self) -> Monotonic {
        match self.batch.is_some() || self.chores.is_empty() {
            true => self.next_chore,
            false => self.next_chore.min(self.chores_from),
        }
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
        chores.sessions.extend(over.filter(|(_, session)| session.stored).map(|(key, _)| key));
        let Some(settled) = self.clock.look(now) else { return };
        for (key, partial) in &self.partials {
            if settled >= partial.expires + CLOCK_SKEW_MAX {
                // What its sender queued before it has expired as well.
                chores.skip((key.sender, key.incarnation), key.sequence.next());
            }
        }
        for (run, window) in &self.windows {
            // Messages held for others that have expired by now need not wait any longer.
            match window.last_held() {
                Some(last) if settled >= window.touched + GAP_LIFETIME => {
                    chores.skip(*run, last.next());
                }
                None if settled >= window.touched + WINDOW_LIFETIME
                    && chores.windows.len() < WINDOWS_PER_LOOK =>
                {
                    chores.windows.insert(*run);
                }
                _ => {}
            }
        }
    }

    /// Takes the chores that are still to be done: those that were refused before are old, and
    /// what they were about may have come back to life.
    pub(super) fn take_chores(&mut self, now: Now) -> Chores {
        let mut chores = std::mem::take(&mut self.chores);
        let sessions = &self.sessions;
        chores.sessions.retain(|key| sessions.get(key).is_none_or(|session| !session.stored));
        let is_over = |window: &Window| {
            window.last_held().is_none() && now.wall >= window.touched + WINDOW_LIFETIME
        };
        chores.windows.retain(|run| self.windows.get(run).is_some_and(is_over));
        chores
    }

    /// There was no room for the chores of a batch.
    pub(super) fn on_chores_refused(&mut self, now: Now, chores: Chores) {
        if !chores.is_empty() {
            self.chores_from = now.mono + CHORE_PAUSE;
            self.chores.append(chores);
        }
    }

    /// The chores of a batch are done.
    pub(super) fn on_chores_done(&mut self, now: Now, chores: &Chores, kept_windows: &[Run]) {
        let kept: BTreeSet<&Run> = kept_windows.iter().collect();
        for run in &chores.windows {
            if !kept.contains(run) {
                self.windows.remove(run);
            } else if let Some(window) = self.windows.get_mut(run) {
                // It is asked about again when as much time has passed once more.
                window.touched = now.wall;
            }
        }
    }
}
