//! Those who have not authenticated yet: how many there may be, and how much is logged of them.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::model::{Bucket, Monotonic, source_of};

/// Connections that have not authenticated, in all. One source can open thousands in a second, and
/// a place must last until what a client says at once has come.
pub(super) const WAITING_MAX: usize = 256;
/// The same, of one source.
pub(super) const WAITING_PER_SOURCE_MAX: usize = 64;

/// Refusals of one kind that are logged at once, and in a second.
const LOGGED_BURST: u32 = 20;
const LOGGED_PER_SECOND: u32 = 1;

/// The places of those who have not authenticated. A newcomer always gets one: if there is none,
/// whoever has waited the longest gives it up, of its own source if that has its part, else of the
/// source that has the most. Whoever began to speak the protocol goes after those who did not. Who
/// means well speaks at once and needs a place for milliseconds, so that connections which say
/// nothing, however many and however fast, keep nobody out.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    last: u64,
    /// Oldest first; at most [`WAITING_MAX`].
    seats: VecDeque<Seat>,
}

#[derive(Debug)]
struct Seat {
    number: u64,
    source: IpAddr,
    /// It began to speak the protocol.
    speaks: bool,
    given_up: Arc<Notify>,
}

/// A place in a [`Gate`], until dropped.
#[derive(Debug)]
pub(super) struct Place {
    gate: Arc<Gate>,
    number: u64,
    /// Told when the place was given to somebody else: the connection is to end.
    pub(super) given_up: Arc<Notify>,
}

impl Inside {
    fn count(&self, source: IpAddr) -> usize {
        self.seats.iter().filter(|seat| seat.source == source).count()
    }

    /// Who has to go so that there is room for one more of this source: a place in `seats`.
    fn in_the_way_of(&self, source: IpAddr) -> Option<usize> {
        let crowded = if self.count(source) >= WAITING_PER_SOURCE_MAX {
            source
        } else if self.seats.len() >= WAITING_MAX {
            // The first of several that have as many is the one that has waited longest.
            let sources = self.seats.iter().rev().map(|seat| seat.source);
            sources.max_by_key(|source| self.count(*source))?
        } else {
            return None;
        };
        let of_them = |seat: &Seat| seat.source == crowded;
        let silent = self.seats.iter().position(|seat| of_them(seat) && !seat.speaks);
        silent.or_else(|| self.seats.iter().position(of_them))
    }
}

impl Gate {
    /// A place for somebody new.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Place {
        let source = source_of(address);
        let mut inside = self.inside();
        if let Some(at) = inside.in_the_way_of(source)
            && let Some(seat) = inside.seats.remove(at)
        {
            seat.given_up.notify_one();
        }
        inside.last += 1;
        let (number, given_up) = (inside.last, Arc::new(Notify::new()));
        inside.seats.push_back(Seat { number, source, speaks: false, given_up: given_up.clone() });
        Place { gate: Arc::clone(self), number, given_up }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whoever has it began to speak the protocol.
    pub(super) fn speaks(&self) {
        let mut inside = self.gate.inside();
        if let Some(seat) = inside.seats.iter_mut().find(|seat| seat.number == self.number) {
            seat.speaks = true;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.inside().seats.retain(|seat| seat.number != self.number);
    }
}

/// Keeps what strangers do from filling the log.
#[derive(Debug)]
pub(super) struct Noise {
    start: Instant,
    /// What may be logged, and what was not since something was.
    state: Mutex<(Bucket, u64)>,
}

impl Noise {
    pub(super) fn new() -> Self {
        let bucket = Bucket::new(LOGGED_PER_SECOND, LOGGED_BURST, Monotonic::START);
        Self { start: Instant::now(), state: Mutex::new((bucket, 0)) }
    }

    /// Whether one more may be logged, and how many before it were not, if any.
    pub(super) fn allow(&self) -> Option<Option<NonZeroU64>> {
        let elapsed = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (bucket, withheld) = &mut *state;
        if bucket.take(Monotonic::from_micros(elapsed)) {
            return Some(NonZeroU64::new(std::mem::take(withheld)));
        }
        *withheld += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn is_given_up(place: &Place) -> bool {
        let mut context = std::task::Context::from_waker(Waker::noop());
        std::pin::pin!(place.given_up.notified()).poll(&mut context).is_ready()
    }

    #[test]
    fn of_one_source_whoever_waits_longest_goes_first() {
        let gate = Arc::new(Gate::default());
        let other = gate.enter(ip("192.0.2.2"));
        let many: Vec<Place> =
            (0..WAITING_PER_SOURCE_MAX + 3).map(|_| gate.enter(ip("::ffff:192.0.2.1"))).collect();
        let gone: Vec<bool> = many.iter().map(is_given_up).collect();
        assert_eq!(gone.iter().filter(|gone| **gone).count(), 3);
        assert_eq!(gone[..4], [true, true, true, false]);
        assert!(!is_given_up(&other));
        assert_eq!(gate.inside().seats.len(), WAITING_PER_SOURCE_MAX + 1);
        drop((many, other));
        assert!(gate.inside().seats.is_empty());
    }

    #[test]
    fn whoever_speaks_goes_after_all_who_say_nothing() {
        let gate = Arc::new(Gate::default());
        let speaking = gate.enter(ip("127.0.0.1"));
        speaking.speaks();
        let storm: Vec<Place> = (0..1_000).map(|_| gate.enter(ip("127.0.0.1"))).collect();
        assert!(!is_given_up(&speaking));
        assert_eq!(
            storm.iter().filter(|place| is_given_up(place)).count(),
            1_001 - WAITING_PER_SOURCE_MAX
        );
        // Of those who speak it is as of those who do not: nobody has a place for ever.
        storm.iter().for_each(Place::speaks);
        let newcomer = gate.enter(ip("127.0.0.1"));
        assert!(is_given_up(&speaking) && !is_given_up(&newcomer));
    }

    #[test]
    fn of_all_sources_the_one_with_the_most_makes_room() {
        let gate = Arc::new(Gate::default());
        let few: Vec<Place> = (0..WAITING_MAX - WAITING_PER_SOURCE_MAX)
            .map(|n| gate.enter(ip(&format!("2001:db8:0:{n:x}::1"))))
            .collect();
        let many: Vec<Place> =
            (0..WAITING_PER_SOURCE_MAX).map(|n| gate.enter(ip(&format!("fe80::{n}")))).collect();
        let newcomer = gate.enter(ip("192.0.2.1"));
        assert_eq!(many.iter().position(is_given_up), Some(0));
        assert!(!few.iter().chain([&newcomer]).any(is_given_up));
        assert_eq!(gate.inside().seats.len(), WAITING_MAX);
        drop(many);
        // Of many with one each, whoever has been there the longest.
        let more: Vec<Place> = (0..WAITING_PER_SOURCE_MAX)
            .map(|n| gate.enter(ip(&format!("198.51.100.{n}"))))
            .collect();
        assert_eq!(few.iter().position(is_given_up), Some(0));
        assert!(!more.iter().any(is_given_up));
    }

    #[test]
    fn noise_is_withheld_and_counted() {
        let noise = Noise::new();
        assert!((0..LOGGED_BURST).all(|_| noise.allow() == Some(None)));
        assert_eq!(noise.allow(), None);
        assert_eq!(noise.allow(), None);
        noise.state.lock().expect("whole").0 = Bucket::new(1, 1, Monotonic::START);
        assert_eq!(noise.allow(), Some(NonZeroU64::new(2)));
    }
}
