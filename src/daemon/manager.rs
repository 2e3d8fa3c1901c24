//! The service manager, what it is told of the node by sd_notify(3), and what else looks after the
//! node's process.
//!
//! What is told of the node comes from its own loop. So the sign of life that a watchdog waits for
//! stops when the loop does, whatever else of the process still runs.

use std::fmt::Write as _;
use std::io;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::task::AbortHandle;
use tracing::{info, warn};

use super::logging::Verbosity;
use super::outlet::Outlet;
use crate::config::Environment;
use crate::model::Level;
use crate::node::{Caretaker, Stopped, Vitals};

/// Between two texts for `systemctl status`.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// What waits to be told at most. A service manager that does not read for so long misses some.
const WAITING_MAX: usize = 64;

/// Tells the service manager how the node does, if there is one.
#[derive(Debug)]
pub(super) struct Manager {
    verbosity: Verbosity,
    /// Where it is told, and what is due.
    told: Option<(Line, Notices)>,
    /// What accepts control clients: none is to be taken in that nobody will answer.
    pub(super) accepting: Option<AbortHandle>,
}

impl Manager {
    /// The one that started this process.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(super) fn from(environment: &Environment, verbosity: Verbosity) -> io::Result<Self> {
        let told = match environment.var("NOTIFY_SOCKET") {
            Some(_) => {
                let notices = Notices::new(sd_notify::watchdog_enabled(), Instant::now());
                Some((Line::start()?, notices))
            }
            None => None,
        };
        Ok(Self { verbosity, told, accepting: None })
    }

    /// What tells it that the configuration is being read.
    pub(super) fn line(&self) -> Option<Line> {
        self.told.as_ref().map(|(line, _)| line.clone())
    }

    /// Waits until all is told, but not for long.
    pub(super) fn finish(self) {
        if let Some((line, _)) = self.told {
            line.0.finish();
        }
    }
}

impl Caretaker for Manager {
    fn on_round(&mut self, now: Instant, vitals: Vitals) -> Option<Instant> {
        let (line, notices) = self.told.as_mut()?;
        line.tell(notices.on_round(now, vitals));
        notices.deadline(now)
    }

    fn on_reloaded(&mut self, refusal: Option<&str>) {
        if let Some((line, notices)) = &mut self.told {
            line.tell(notices.on_reloaded(Instant::now(), refusal.map(one_line)));
        }
    }

    fn log(&mut self, level: Option<Level>) -> String {
        if let Some(level) = level {
            self.verbosity.set(level);
            info!(%level, "logging from this level on");
        }
        self.verbosity.current()
    }

    fn on_stopping(&mut self, stopped: &Stopped) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
        if let Some((line, _)) = &self.told {
            line.tell(match stopped {
                Stopped::Asked => vec![Notice::Stopping],
                Stopped::Failed(reason) => {
                    vec![Notice::Stopping, Notice::Status(one_line(reason))]
                }
            });
        }
    }
}

/// The way to the service manager. What it passes on is only what it was given, all of one time
/// together.
#[derive(Debug, Clone)]
pub(super) struct Line(Outlet<Vec<Notice>>);

impl Line {
    fn start() -> io::Result<Self> {
        let mut has_failed = false;
        // Where nobody reads, nobody misses what is lost.
        let outlet = Outlet::start("notify", WAITING_MAX, move |notices: Vec<Notice>, _lost| {
            let states: Vec<NotifyState<'_>> = notices.iter().flat_map(Notice::states).collect();
            match sd_notify::notify(&states) {
                Ok(()) => has_failed = false,
                Err(error) if !has_failed => {
                    has_failed = true;
                    warn!(%error, "cannot tell the service manager: NOTIFY_SOCKET leads to nobody");
                }
                Err(_) => {}
            }
        })?;
        Ok(Self(outlet))
    }

    fn tell(&self, notices: Vec<Notice>) {
        if !notices.is_empty() {
            self.0.say(notices);
        }
    }

    /// The configuration is being read again. [`Caretaker::on_reloaded`] is to follow.
    pub(super) fn tell_reloading(&self) {
        // systemd tells by the time which beginning and end belong together: sd_notify(3).
        if let Ok(NotifyState::MonotonicUsec(time)) = NotifyState::monotonic_usec_now() {
            self.tell(vec![Notice::Reloading(time)]);
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
    /// The configuration is being read, since this time.
    Reloading(i128),
    /// The end has begun.
    Stopping,
}

impl Notice {
    fn states(&self) -> Vec<NotifyState<'_>> {
        match self {
            Self::Ready => vec![NotifyState::Ready],
            Self::Watchdog => vec![NotifyState::Watchdog],
            Self::Status(text) => vec![NotifyState::Status(text)],
            Self::Reloading(time) => {
                vec![NotifyState::Reloading, NotifyState::MonotonicUsec(*time)]
            }
            Self::Stopping => vec![NotifyState::Stopping],
        }
    }
}

/// What is to be told, and when.
#[derive(Debug)]
struct Notices {
    /// Between two signs of life: half of what the service manager allows, as
    /// sd_watchdog_enabled(3) recommends. None without a watchdog.
    beat: Option<Duration>,
    next_beat: Instant,
    is_ready: bool,
    /// Why the last configuration was refused. It comes before all else that is told for people.
    refusal: Option<String>,
    vitals: Vitals,
    /// The text to tell.
    status: String,
    /// The text told last, and when.
    told: Option<(String, Instant)>,
}

impl Notices {
    fn new(watchdog: Option<Duration>, now: Instant) -> Self {
        let beat = watchdog.map(|watchdog| watchdog / 2);
        Self {
            beat,
            next_beat: now,
            is_ready: false,
            refusal: None,
            vitals: Vitals::default(),
            status: String::new(),
            told: None,
        }
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
        self.vitals = vitals;
        self.describe();
        if self.next_status(now).is_some_and(|next| next <= now) {
            self.told = Some((self.status.clone(), now));
            due.push(Notice::Status(self.status.clone()));
        }
        due
    }

    /// What is due after the configuration was read. How that went is told at once: whoever caused
    /// it looks for it now.
    fn on_reloaded(&mut self, now: Instant, refusal: Option<String>) -> Vec<Notice> {
        self.refusal = refusal;
        self.describe();
        self.told = Some((self.status.clone(), now));
        vec![Notice::Status(self.status.clone()), Notice::Ready]
    }

    fn describe(&mut self) {
        self.status = match &self.refusal {
            Some(refusal) => format!("{refusal}; {}", describe(self.vitals)),
            None => describe(self.vitals),
        };
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
    use std::sync::mpsc;

    use super::*;

    const QUIET: Vitals = Vitals { links: 0, outbox_messages: 0, outbox_bytes: 0, is_full: false };
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
    fn how_a_reload_went_is_told_at_once_and_before_its_end() {
        let start = Instant::now();
        let mut notices = Notices::new(None, start);
        notices.on_round(start, QUIET);
        let refused = notices.on_reloaded(start, Some("refused".to_owned()));
        let text = "refused; linked with 0 peers, outbox empty".to_owned();
        assert_eq!(refused, [Notice::Status(text), Notice::Ready]);
        assert_eq!(notices.on_round(start, QUIET), []);
        let text = "linked with 0 peers, outbox empty".to_owned();
        let mended = notices.on_reloaded(start, None);
        assert_eq!(mended, [Notice::Status(text), Notice::Ready]);
    }

    #[test]
    fn a_manager_that_does_not_read_holds_up_nobody() {
        let (open, gate) = mpsc::channel::<()>();
        let outlet = Outlet::start("notify", 1, move |_, _| _ = gate.recv()).expect("a thread");
        let line = Line(outlet);
        (0..3).for_each(|_| line.tell(vec![Notice::Watchdog]));
        line.0.finish();
        drop(open);
    }

    #[test]
    fn no_text_breaks_out_of_its_line() {
        assert_eq!(one_line("a\nREADY=1\rb"), "a; READY=1; b");
    }
}
