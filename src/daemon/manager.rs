//! The service manager: what it is told of the node, by sd_notify(3).
//!
//! All of it comes from the node's own loop. So the sign of life that a watchdog waits for stops
//! when the loop does, whatever else of the process still runs.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::task::AbortHandle;
use tracing::warn;

use crate::config::Environment;
use crate::node::{Caretaker, Stopped, Vitals};

/// Between two texts for `systemctl status`.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// Tells the service manager how the node does; without one it does nothing.
#[derive(Debug)]
pub(super) struct Manager {
    /// What is due, if there is anybody to tell.
    notices: Option<Notices>,
    /// That it could not be told was said.
    has_failed: bool,
    /// What accepts control clients: none is to be taken in that nobody will answer.
    pub(super) accepting: Option<AbortHandle>,
}

impl Manager {
    /// The one that started this process.
    pub(super) fn from(environment: &Environment) -> Self {
        let is_there = environment.var("NOTIFY_SOCKET").is_some();
        let notices = is_there.then(|| Notices::new(sd_notify::watchdog_enabled(), Instant::now()));
        Self { notices, has_failed: false, accepting: None }
    }

    fn tell(&mut self, states: &[NotifyState<'_>]) {
        if states.is_empty() {
            return;
        }
        match sd_notify::notify(states) {
            Ok(()) => self.has_failed = false,
            Err(error) if !self.has_failed => {
                self.has_failed = true;
                warn!(%error, "cannot tell the service manager: NOTIFY_SOCKET leads to nobody");
            }
            Err(_) => {}
        }
    }
}

/// The configuration is being read again. Followed by [`tell_reloaded`], whatever came of it.
pub(super) fn tell_reloading() {
    // systemd tells by the time which start and end belong together: sd_notify(3).
    if let Ok(time) = NotifyState::monotonic_usec_now() {
        let _ = sd_notify::notify(&[NotifyState::Reloading, time]);
    }
}

/// It was read again.
pub(super) fn tell_reloaded() {
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

impl Caretaker for Manager {
    fn on_round(&mut self, now: Instant, vitals: Vitals) -> Option<Instant> {
        let notices = self.notices.as_mut()?;
        let due = notices.on_round(now, vitals);
        let next = notices.deadline(now);
        let states: Vec<NotifyState<'_>> = due.iter().map(Notice::state).collect();
        self.tell(&states);
        next
    }

    fn on_remark(&mut self, remark: Option<&str>) {
        if let Some(notices) = &mut self.notices {
            notices.on_remark(remark.map(one_line));
        }
    }

    fn on_stopping(&mut self, stopped: &Stopped) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
        if self.notices.is_none() {
            return;
        }
        match stopped {
            Stopped::Asked => self.tell(&[NotifyState::Stopping]),
            Stopped::Failed(reason) => {
                self.tell(&[NotifyState::Stopping, NotifyState::Status(&one_line(reason))]);
            }
        }
    }
}

/// One thing to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Notice {
    /// Whoever waits for this service can go on.
    Ready,
    /// The loop is alive.
    Watchdog,
    /// For people.
    Status(String),
}

impl Notice {
    fn state(&self) -> NotifyState<'_> {
        match self {
            Self::Ready => NotifyState::Ready,
            Self::Watchdog => NotifyState::Watchdog,
            Self::Status(text) => NotifyState::Status(text),
        }
    }
}

/// What is to be told, and when.
#[derive(Debug)]
struct Notices {
    /// Between two signs of life: half of what the service manager allows, as sd_watchdog_enabled(3)
    /// recommends. None without a watchdog.
    beat: Option<Duration>,
    next_beat: Instant,
    is_ready: bool,
    /// What comes before all else that is told for people.
    remark: Option<String>,
    /// The text to tell.
    status: String,
    /// The text told last, and when.
    told: Option<(String, Instant)>,
}

impl Notices {
    fn new(watchdog: Option<Duration>, now: Instant) -> Self {
        let beat = watchdog.map(|watchdog| watchdog / 2);
        Self { beat, next_beat: now, is_ready: false, remark: None, status: String::new(), told: None }
    }

    /// What is due now.
    fn on_round(&mut self, now: Instant, vitals: Vitals) -> Vec<Notice> {
        let mut due = Vec::new();
        if !self.is_ready {
            self.is_ready = true;
            due.push(Notice::Ready);
        }
        if let Some(beat) = self.beat
            && self.next_beat <= now
        {
            self.next_beat = now + beat;
            due.push(Notice::Watchdog);
        }
        self.status = match &self.remark {
            Some(remark) => format!("{remark}; {}", describe(vitals)),
            None => describe(vitals),
        };
        if self.next_status(now).is_some_and(|next| next <= now) {
            self.told = Some((self.status.clone(), now));
            due.push(Notice::Status(self.status.clone()));
        }
        due
    }

    /// It is told at once: whoever caused it looks for it now.
    fn on_remark(&mut self, remark: Option<String>) {
        if self.remark != remark {
            self.remark = remark;
            self.told = None;
        }
    }

    /// When something is due although nothing happens.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        let beat = self.beat.map(|_| self.next_beat);
        beat.into_iter().chain(self.next_status(now)).min()
    }

    /// When the text may be told; never, if that one is known.
    fn next_status(&self, now: Instant) -> Option<Instant> {
        match &self.told {
            None => Some(now),
            Some((text, _)) if *text == self.status => None,
            Some((_, at)) => Some(*at + STATUS_INTERVAL),
        }
    }
}

/// How the node does, in a line.
fn describe(vitals: Vitals) -> String {
    let Vitals { links, outbox_messages, outbox_bytes, is_full } = vitals;
    let peers = if links == 1 { "peer" } else { "peers" };
    let mut text = format!("linked with {links} {peers}, ");
    let _ = match outbox_messages {
        0 => write!(text, "outbox empty"),
        1 => write!(text, "1 message in the outbox ({})", size(outbox_bytes)),
        messages => write!(text, "{messages} messages in the outbox ({})", size(outbox_bytes)),
    };
    if is_full {
        text.push_str("; no room on the disk or in the quota: nothing can be accepted");
    }
    text
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        bytes if bytes < 1024 * 1024 => format!("{} KiB", bytes / 1024),
        bytes => format!("{} MiB", bytes / (1024 * 1024)),
    }
}

/// The protocol knows no line breaks in a value.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], "; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Vitals =
        Vitals { links: 0, outbox_messages: 0, outbox_bytes: 0, is_full: false };
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_idle_node_is_woken_for_nothing_but_its_watchdog() {
        let start = Instant::now();
        let mut notices = Notices::new(Some(10 * SECOND), start);
        let status = Notice::Status("linked with 0 peers, outbox empty".to_owned());
        let first = notices.on_round(start, QUIET);
        assert_eq!(first, [Notice::Ready, Notice::Watchdog, status]);
        assert_eq!(notices.deadline(start), Some(start + 5 * SECOND));
        assert_eq!(notices.on_round(start + 4 * SECOND, QUIET), []);
        let beat = start + 6 * SECOND;
        assert_eq!(notices.on_round(beat, QUIET), [Notice::Watchdog]);
        assert_eq!(notices.deadline(beat), Some(beat + 5 * SECOND), "half of it after the last");
        let mut unwatched = Notices::new(None, start);
        assert_eq!(unwatched.on_round(start, QUIET).len(), 2);
        assert_eq!(unwatched.deadline(start), None);
    }

    #[test]
    fn what_changes_is_told_but_not_often() {
        let start = Instant::now();
        let mut notices = Notices::new(None, start);
        notices.on_round(start, QUIET);
        let busy = Vitals { links: 1, outbox_messages: 2, outbox_bytes: 2048, is_full: true };
        assert_eq!(notices.on_round(start + SECOND, busy), [], "the last text is too young");
        assert_eq!(notices.deadline(start + SECOND), Some(start + STATUS_INTERVAL));
        let told = notices.on_round(start + STATUS_INTERVAL, busy);
        let text = "linked with 1 peer, 2 messages in the outbox (2 KiB); no room on the disk or \
                    in the quota: nothing can be accepted";
        assert_eq!(told, [Notice::Status(text.to_owned())]);
        // What changed and changed back is not told at all.
        assert_eq!(notices.on_round(start + STATUS_INTERVAL + SECOND, QUIET), []);
        assert_eq!(notices.on_round(start + STATUS_INTERVAL + SECOND, busy), []);
        assert_eq!(notices.deadline(start + STATUS_INTERVAL + SECOND), None);
    }

    #[test]
    fn no_text_breaks_out_of_its_line() {
        assert_eq!(one_line("a\nREADY=1\rb"), "a; READY=1; b");
    }
}
