//! What tests of very many at once have in common: somebody honest meanwhile, and how much the
//! daemon takes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::hostile::{GROWTH_KB_MAX, resident_kb};

/// What a daemon may take, whatever is done to it.
pub(crate) const RESIDENT_KB_MAX: u64 = 256 * 1024;
/// How long an honest message may take at most; later, it counts as not delivered.
pub(crate) const HONEST_MAX: Duration = Duration::from_secs(20);

/// Somebody honest who sends one message after the other, over one control connection.
pub(crate) struct Honest {
    stream: BufReader<UnixStream>,
    to: String,
    sent: usize,
    /// How long each took that was delivered.
    times: Vec<Duration>,
}

impl Honest {
    pub(crate) fn new(from: &Daemon, to: &Daemon) -> Self {
        let stream = UnixStream::connect(from.socket()).expect("connected");
        stream.set_read_timeout(Some(HONEST_MAX * 2)).expect("set");
        let (stream, to) = (BufReader::new(stream), to.peer.clone());
        Self { stream, to, sent: 0, times: Vec::new() }
    }

    pub(crate) fn send(&mut self, count: usize) {
        for _ in 0..count {
            self.sent += 1;
            let params = serde_json::json!({
                "peer": self.to,
                "body": "honest",
                "wait": "delivered",
                "timeout_ms": u64::try_from(HONEST_MAX.as_millis()).expect("small"),
            });
            let request = serde_json::json!({
                "jsonrpc": "2.0", "id": self.sent, "method": "send", "params": params,
            });
            let began = Instant::now();
            self.stream.get_mut().write_all(format!("{request}\n").as_bytes()).expect("written");
            let mut reply = String::new();
            self.stream.read_line(&mut reply).expect("a reply");
            if reply.contains("\"result\"") {
                self.times.push(began.elapsed());
            } else {
                eprintln!("not delivered: {}", reply.trim());
            }
        }
    }

    /// Adds what another has sent.
    pub(crate) fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.times.extend(other.times);
    }

    pub(crate) fn percentile(&mut self, part: usize) -> Duration {
        self.times.sort_unstable();
        let at = self.times.len() * part / 100;
        self.times.get(at.min(self.times.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    pub(crate) fn report(&mut self, what: &str) {
        let (median, most) = (self.percentile(50), self.percentile(99));
        let (times, sent) = (self.times.len(), self.sent);
        eprintln!("{what}: {times} of {sent} delivered, p50 {median:?}, p99 {most:?}");
    }

    pub(crate) fn assert_delivered(&self) {
        let (times, sent) = (self.times.len(), self.sent);
        assert!(times * 100 >= sent * 99, "{times} of {sent} delivered");
    }
}

/// What a process takes as time goes by.
#[derive(Default)]
pub(crate) struct Sizes(Vec<u64>);

impl Sizes {
    pub(crate) fn look(&mut self, daemon: &Daemon) -> u64 {
        let resident = resident_kb(daemon);
        self.add(resident);
        resident
    }

    pub(crate) fn add(&mut self, kb: u64) {
        self.0.push(kb);
    }

    pub(crate) fn looks(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn most(&self) -> u64 {
        self.0.iter().copied().max().unwrap_or(0)
    }

    /// The median of one of four equal spans of time, counted from 0.
    fn quarter(&self, number: usize) -> u64 {
        let length = self.0.len();
        let mut part = self.0[length * number / 4..length * (number + 1) / 4].to_vec();
        part.sort_unstable();
        part.get(part.len() / 2).copied().unwrap_or(0)
    }

    /// Fails if it is too much.
    pub(crate) fn assert_small(&self) {
        assert!(self.most() < RESIDENT_KB_MAX, "{} kB", self.most());
    }

    /// Fails if it grows.
    pub(crate) fn assert_steady(&self) {
        let (early, late) = (self.quarter(1), self.quarter(3));
        assert!(late < early + GROWTH_KB_MAX, "grown from {early} kB to {late} kB");
    }

    pub(crate) fn report(&self) {
        let quarters: Vec<u64> = (0..4).map(|number| self.quarter(number)).collect();
        eprintln!("it takes {} kB at most; medians of four quarters: {quarters:?}", self.most());
    }
}
