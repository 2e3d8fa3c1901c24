//! What waits to be written to one link.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::event::LinkId;
use crate::wire::CloseReason;

/// The sending side of a link. Nothing here ever blocks; dropping it ends the link.
pub struct LinkHandle {
    link: LinkId,
    queue: Arc<Queue>,
}

impl LinkHandle {
    pub(super) const fn new(link: LinkId, queue: Arc<Queue>) -> Self {
        Self { link, queue }
    }

    /// Which link it is.
    pub const fn link(&self) -> LinkId {
        self.link
    }

    /// Queues frames (without length prefixes), in order. Frames for a link that is closing or
    /// down are dropped: `Down` says so. The caller bounds what waits by counting what it sends
    /// and what `Written` reports; if it does not, the link ends as congested.
    pub fn send(&self, frames: Vec<Bytes>) {
        self.queue.push(frames);
    }

    /// Ends the link: what is queued still goes out, then the reason. Within a second or two comes
    /// `Down`; frames may arrive until then. Only the first reason counts.
    pub fn close(&self, reason: CloseReason, text: impl Into<String>) {
        self.queue.close(reason, text.into());
    }
}

impl Drop for LinkHandle {
    fn drop(&mut self) {
        self.close(CloseReason::Stopping, "");
    }
}

impl fmt::Debug for LinkHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkHandle({})", self.link.0)
    }
}

/// Shared by the handle and the link's task.
pub(super) struct Queue {
    state: Mutex<State>,
    bytes_max: usize,
    /// Wakes the writer: there is something to write, or nothing will follow.
    work: Notify,
    /// Wakes whoever watches a writer that may be stuck.
    alarm: Notify,
}

#[derive(Default)]
struct State {
    frames: VecDeque<Bytes>,
    /// Bytes in `frames` and of what the writer took but has not written.
    bytes: usize,
    /// No more frames are taken, for this reason.
    closing: Option<(CloseReason, String)>,
    congested: bool,
    /// The link's task is over.
    over: bool,
}

/// What a writer has to do next.
pub(super) enum Work {
    /// Write the frames that were put into the given queue.
    Frames,
    /// Everything is written; say this and end.
    Close(CloseReason, String),
}

/// Why a stuck writer has to be given up.
pub(super) enum Alarm {
    /// Far too much waits.
    Congested,
    /// The link is to be closed, and the time for it begins now.
    Closing(CloseReason, String),
}

impl Queue {
    pub(super) fn new(bytes_max: usize) -> Self {
        let (work, alarm) = (Notify::new(), Notify::new());
        Self { state: Mutex::default(), bytes_max, work, alarm }
    }

    fn push(&self, frames: Vec<Bytes>) {
        let mut state = self.state();
        if state.over || state.congested || state.closing.is_some() || frames.is_empty() {
            return;
        }
        let bytes = frames.iter().map(Bytes::len).sum::<usize>();
        state.bytes = state.bytes.saturating_add(bytes);
        if state.bytes > self.bytes_max {
            state.congested = true;
            state.frames = VecDeque::new();
            drop(state);
            return self.alarm.notify_one();
        }
        state.frames.extend(frames);
        drop(state);
        self.work.notify_one();
    }

    fn close(&self, reason: CloseReason, text: String) {
        let mut state = self.state();
        if state.over || state.closing.is_some() {
            return;
        }
        state.closing = Some((reason, text));
        drop(state);
        self.work.notify_one();
        self.alarm.notify_one();
    }

    /// Moves everything that waits into `taken`, which must be empty; `None` if nothing does.
    pub(super) fn take(&self, taken: &mut VecDeque<Bytes>) -> Option<Work> {
        let mut state = self.state();
        if !state.frames.is_empty() {
            mem::swap(&mut state.frames, taken);
            return Some(Work::Frames);
        }
        let (reason, text) = state.closing.clone()?;
        Some(Work::Close(reason, text))
    }

    /// Waits until [`Self::take`] may have something.
    pub(super) async fn wait(&self) {
        self.work.notified().await;
    }

    /// Frames of so many bytes have left.
    pub(super) fn wrote(&self, bytes: usize) {
        let mut state = self.state();
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    /// Waits until the writer may not take all the time it wants.
    pub(super) async fn alarm(&self) -> Alarm {
        loop {
            self.alarm.notified().await;
            let state = self.state();
            if state.congested {
                return Alarm::Congested;
            }
            if let Some((reason, text)) = state.closing.clone() {
                return Alarm::Closing(reason, text);
            }
        }
    }

    /// The link is down: memory is given back, and nothing more is taken.
    pub(super) fn end(&self) {
        *self.state() = State { over: true, ..State::default() };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves this state whole: each change is complete before it can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
