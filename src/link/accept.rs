//! Those who dial us: bounded before anything is known of them.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::channel::{Channel, until};
use super::endpoint::Context;
use super::event::{Direction, Event};
use super::handshake::{Failure, describe_loss, greet_dialler};
use super::run::{Established, run};
use super::socket::Socket;
use super::tls::is_of_tls;
use crate::model::{PeerId, escaped, is_of_one_connection, source_of};
use crate::wire::CloseReason;

/// How long we wait when no connection can be accepted, at first and at most.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Refusals told (logged, and reported as events) at once, and how long one more takes to be
/// allowed.
const NOISE_BURST: u32 = 20;
const NOISE_INTERVAL: Duration = Duration::from_secs(1);

/// Accepts connections until the endpoint stops.
pub(super) async fn listen(context: Arc<Context>, listener: TcpListener) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let accepted = tokio::select! {
            biased;
            () = context.stopped() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, address)) => {
                backoff = BACKOFF_MIN;
                admit(&context, tcp, address);
            }
            // The connection was gone before we took it: that is its own problem.
            Err(error) if is_of_one_connection(&error) => {}
            // Out of descriptors or memory: trying at once would only spin, giving up would make
            // us deaf for good.
            Err(error) => {
                if backoff == BACKOFF_MIN {
                    warn!(
                        "cannot accept connections for now: {error}; raise LimitNOFILE if it lasts"
                    );
                }
                tokio::select! {
                    () = context.stopped() => return,
                    () = sleep(backoff) => {}
                }
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
}

/// Begins a handshake if there is room for one more; closes the connection at once if not.
fn admit(context: &Arc<Context>, tcp: TcpStream, address: SocketAddr) {
    let Some(place) = context.gate.enter(address.ip()) else {
        drop(tcp);
        return refused(context, address, None, "too many handshakes are in progress".to_owned());
    };
    let context = Arc::clone(context);
    let given_up = Arc::clone(&place.given_up);
    tokio::spawn(async move {
        let established = tokio::select! {
            biased;
            () = context.stopped() => None,
            () = given_up.notified() => {
                let reason = "it took long, and others want to begin a handshake".to_owned();
                refused(&context, address, None, reason);
                None
            }
            established = shake_hands(&context, tcp, address, place) => established,
        };
        if let Some(established) = established {
            run(context, established).await;
        }
    });
}

async fn shake_hands(
    context: &Context,
    tcp: TcpStream,
    address: SocketAddr,
    place: Place,
) -> Option<Established> {
    let deadline = Instant::now() + context.handshake_timeout;
    let too_slow = || format!("no handshake within {} ms", context.handshake_timeout.as_millis());
    let secured = match until(deadline, context.tls.accept(Socket::new(tcp))).await {
        Some(Ok(secured)) => secured,
        Some(Err(error)) => {
            refused(context, address, None, describe_tls_failure(&error));
            return None;
        }
        None => {
            refused(context, address, None, too_slow());
            return None;
        }
    };
    let (peer, exporter) = (secured.peer, secured.exporter);
    let mut channel = Channel::new(secured);
    // Ourselves: the dialling end says so to whoever dialled.
    if peer == context.peer {
        channel.close(CloseReason::Myself, "").await;
        return None;
    }
    let own = context.own(&exporter);
    let failure = match until(deadline, greet_dialler(&mut channel, &own)).await {
        Some(Ok(greeting)) => {
            let (direction, dial, place) = (Direction::Inbound, None, Some(place));
            return Some(Established { channel, peer, direction, dial, address, greeting, place });
        }
        Some(Err(failure)) => failure,
        None => Failure::Lost(too_slow()),
    };
    match failure {
        Failure::Refused(CloseReason::Probe, _) => {
            debug!(peer = %peer, %address, "probed");
        }
        failure => {
            refused(context, address, Some(peer), failure.describe());
            if let Failure::Refusing(reason, words) = failure {
                channel.close(reason, &words.theirs).await;
            }
        }
    }
    None
}

/// A failed TLS handshake in words.
fn describe_tls_failure(error: &io::Error) -> String {
    match is_of_tls(error) {
        // Parts of what the library says may come from the other end.
        true => format!("no distmsg: {}", escaped(&error.to_string())),
        false => describe_loss(error),
    }
}

/// Tells of a connection that did not become a link: to the log and to the receiver of events.
fn refused(context: &Context, address: SocketAddr, peer: Option<PeerId>, reason: String) {
    let Some(unreported) = context.noise.allow() else { return };
    let unlogged = NonZeroU64::new(unreported);
    match peer {
        Some(peer) => info!(peer = %peer, %address, unlogged, "refused: {reason}"),
        None => info!(%address, unlogged, "refused: {reason}"),
    }
    // Never waits: whoever is refused must not be able to hold anything up.
    let _ = context.events.try_send(Event::Refused { address, peer, reason, unreported });
}

/// Counts handshakes in progress, in all and of each source. When all places are taken, whoever has
/// the most gives one up for a newcomer that has fewer: connections that say nothing, from however
/// many addresses, do not keep others out.
pub(super) struct Gate {
    in_all_max: usize,
    per_source_max: usize,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    in_all: usize,
    last: u64,
    /// Of each source, oldest first; never none.
    per_source: HashMap<IpAddr, VecDeque<Seat>>,
}

/// A place as the gate sees it.
struct Seat {
    /// Counted from the gate's beginning: whoever came first has the lowest.
    number: u64,
    given_up: Arc<Notify>,
}

/// A place in a [`Gate`], until dropped.
pub(super) struct Place {
    gate: Arc<Gate>,
    source: IpAddr,
    number: u64,
    /// Told when the place was given to somebody else: the handshake is to end.
    given_up: Arc<Notify>,
}

impl Inside {
    fn count(&self, source: &IpAddr) -> usize {
        self.per_source.get(source).map_or(0, VecDeque::len)
    }

    /// Takes a place from whoever has the most, the longest there if several have; false if the
    /// newcomer would only change places with it.
    fn make_room(&mut self, newcomer: &IpAddr) -> bool {
        let rank = |seats: &VecDeque<Seat>| {
            (seats.len(), Reverse(seats.front().map_or(0, |seat| seat.number)))
        };
        let all = self.per_source.iter();
        let Some((source, seats)) = all.max_by_key(|(_, seats)| rank(seats)) else { return false };
        let held = self.count(newcomer);
        if held > 0 && held + 1 >= seats.len() {
            return false;
        }
        let (source, Some(oldest)) = (*source, seats.front()) else { return false };
        oldest.given_up.notify_one();
        self.remove(&source, oldest.number);
        true
    }

    /// Frees a place, if it was not given to somebody else before.
    fn remove(&mut self, source: &IpAddr, number: u64) {
        let Some(seats) = self.per_source.get_mut(source) else { return };
        let before = seats.len();
        seats.retain(|seat| seat.number != number);
        self.in_all = self.in_all.saturating_sub(before - seats.len());
        if seats.is_empty() {
            self.per_source.remove(source);
        }
    }
}

impl Gate {
    pub(super) fn new(in_all_max: usize, per_source_max: usize) -> Arc<Self> {
        Arc::new(Self { in_all_max, per_source_max, inside: Mutex::default() })
    }

    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let source = source_of(address);
        let mut inside = self.inside();
        if inside.count(&source) >= self.per_source_max
            || (inside.in_all >= self.in_all_max && !inside.make_room(&source))
        {
            return None;
        }
        inside.in_all += 1;
        inside.last += 1;
        let (number, given_up) = (inside.last, Arc::new(Notify::new()));
        let seat = Seat { number, given_up: Arc::clone(&given_up) };
        inside.per_source.entry(source).or_default().push_back(seat);
        Some(Place { gate: Arc::clone(self), source, number, given_up })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.inside().remove(&self.source, self.number);
    }
}

/// Keeps what strangers do from filling the log.
pub(super) struct Noise(Mutex<NoiseState>);

struct NoiseState {
    allowed: u32,
    since: Instant,
    withheld: u64,
}

impl Noise {
    pub(super) fn new() -> Self {
        let state = NoiseState { allowed: NOISE_BURST, since: Instant::now(), withheld: 0 };
        Self(Mutex::new(state))
    }

    /// Whether one more may be told, and how many were withheld before it.
    pub(super) fn allow(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while state.allowed < NOISE_BURST && state.since.elapsed() >= NOISE_INTERVAL {
            state.allowed += 1;
            state.since += NOISE_INTERVAL;
        }
        if state.allowed == NOISE_BURST {
            state.since = Instant::now();
        }
        if state.allowed == 0 {
            state.withheld += 1;
            return None;
        }
        state.allowed -= 1;
        Some(std::mem::take(&mut state.withheld))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn handshakes_are_bounded_in_all_and_per_source() {
        let gate = Gate::new(3, 2);
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let first = gate.enter(ip("192.0.2.1")).expect("room");
        let _second = gate.enter(ip("::ffff:192.0.2.1")).expect("room");
        assert!(gate.enter(ip("192.0.2.1")).is_none(), "the third of one source");
        let _other = gate.enter(ip("2001:db8::1")).expect("room");
        assert!(gate.enter(ip("2001:db8::2")).is_none(), "of two sources with two, a third");
        drop(first);
        let _neighbour = gate.enter(ip("2001:db8::2")).expect("room");
        drop(_other);
        drop(_neighbour);
        drop(_second);
        assert!(gate.inside().per_source.is_empty());
        assert_eq!(gate.inside().in_all, 0);
    }

    #[test]
    fn who_has_the_most_handshakes_gives_way_to_who_has_fewer() {
        let gate = Gate::new(4, 3);
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let is_given_up = |place: &Place| {
            let mut context = std::task::Context::from_waker(Waker::noop());
            std::pin::pin!(place.given_up.notified()).poll(&mut context).is_ready()
        };
        let enter = |text: &str| gate.enter(ip(text));
        let many: Vec<Place> = (0..3).map(|_| enter("192.0.2.1").expect("room")).collect();
        let lone = enter("192.0.2.2").expect("room");
        let newcomer = enter("192.0.2.3").expect("in place of the first of many");
        assert_eq!(gate.inside().in_all, 4);
        assert!(enter("192.0.2.3").is_none(), "it would have as many as the other had");
        assert_eq!(many.iter().map(is_given_up).collect::<Vec<_>>(), [true, false, false]);
        assert!(![&lone, &newcomer].into_iter().any(is_given_up));
        drop(many);
        assert_eq!(gate.inside().in_all, 2, "what was given up is not counted twice");
        drop((lone, newcomer));
        assert!(gate.inside().per_source.is_empty());
        assert_eq!(gate.inside().in_all, 0);
        // Of many with one each, whoever has been there the longest.
        let ones: Vec<Place> =
            (1..=4).map(|n| enter(&format!("192.0.2.{n}")).expect("room")).collect();
        let _fifth = enter("192.0.2.5").expect("in place of the first");
        assert_eq!(ones.iter().map(is_given_up).collect::<Vec<_>>(), [true, false, false, false]);
    }

    #[test]
    fn noise_is_withheld_and_counted() {
        let noise = Noise::new();
        assert!((0..NOISE_BURST).all(|_| noise.allow() == Some(0)));
        assert_eq!(noise.allow(), None);
        assert_eq!(noise.allow(), None);
        noise.0.lock().expect("whole").allowed = 1;
        assert_eq!(noise.allow(), Some(2));
    }
}
