//! Dialling: every address of a name in turn, within one deadline.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::channel::Channel;
use super::endpoint::{Context, Purpose};
use super::event::{DialId, Direction, Event};
use super::handshake::{Failure, Greeting, Own, Words, confirm, describe_loss, greet_listener};
use super::run::{Established, run};
use super::socket::Socket;
use super::tls::is_of_tls;
use crate::model::{Address, PeerId, escaped};
use crate::wire::CloseReason;

/// Addresses of one name that are tried.
const TARGETS_MAX: usize = 8;

/// Why a dial came to nothing. Texts from the other end are escaped: they are safe to print.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DialError {
    /// The name has no address, or nobody knows it.
    #[error("the name cannot be resolved ({0}); check its spelling, or give an IP address")]
    Resolve(String),
    /// Nobody listens there, or the network does not lead there.
    #[error("{0}; check the address and whether distmsg runs there")]
    Connect(String),
    /// There was no answer in time.
    #[error("no answer in time; check the address and any firewall between")]
    Timeout,
    /// Somebody answers, but not as distmsg does.
    #[error("what answers there is not distmsg ({0}); check the port")]
    NotDistmsg(String),
    /// Somebody else answers than was expected.
    #[error("another peer answers there: {found}")]
    Identity {
        /// Who.
        found: PeerId,
    },
    /// One of the two does not want the link; both know why.
    #[error("refused: {reason}{}{text}", if text.is_empty() { "" } else { ": " })]
    Refused {
        /// Who answered.
        peer: PeerId,
        /// The kind of reason.
        reason: CloseReason,
        /// More about it; may be empty.
        text: String,
    },
    /// The connection broke during the handshake.
    #[error("{0} during the handshake; try again")]
    Lost(String),
}

impl DialError {
    /// How much it says about the peer: of several addresses' errors the most telling is reported.
    const fn telling(&self) -> u8 {
        match self {
            Self::Refused { .. } => 6,
            Self::Identity { .. } => 5,
            Self::Lost(_) => 4,
            Self::NotDistmsg(_) => 3,
            Self::Connect(_) => 2,
            Self::Timeout => 1,
            Self::Resolve(_) => 0,
        }
    }
}

/// What is dialled.
pub(super) struct Dial {
    pub(super) id: DialId,
    pub(super) address: Address,
    pub(super) expected: Option<PeerId>,
    pub(super) purpose: Purpose,
}

/// Dials, and reports what came of it.
pub(super) async fn dial(context: Arc<Context>, dial: Dial) {
    let Dial { id, address, .. } = &dial;
    match reach(&context, &dial).await {
        Ok(Reached { channel, peer, address, greeting }) => {
            let (id, direction) = (*id, Direction::Outbound);
            if dial.purpose == Purpose::Probe {
                let probed = Event::Probed { dial: id, peer, address, record: greeting.record };
                context.forget_dial(id);
                let _ = context.events.send(probed).await;
                return channel.close(CloseReason::Probe, "").await;
            }
            let (dial, place) = (Some(id), None);
            let established =
                Established { channel, peer, direction, dial, address, greeting, place };
            // A task of its own: from here on it is a link, and no longer a dial to be cancelled.
            tokio::spawn(run(Arc::clone(&context), established));
            context.forget_dial(id);
        }
        Err(error) => {
            let peer = dial.expected.map(tracing::field::display);
            debug!(dial = id.0, peer, %address, "dial failed: {error}");
            context.forget_dial(*id);
            let _ = context.events.send(Event::DialFailed { dial: *id, error }).await;
        }
    }
}

/// A peer that answered and is of our network.
struct Reached {
    channel: Channel,
    peer: PeerId,
    address: SocketAddr,
    greeting: Greeting,
}

async fn reach(context: &Context, dial: &Dial) -> Result<Reached, DialError> {
    let deadline = Instant::now() + context.handshake_timeout;
    let targets = timeout(context.handshake_timeout, resolve(&dial.address));
    let targets = targets.await.map_err(|_| DialError::Timeout)??;
    let mut worst = DialError::Timeout;
    for (at, target) in targets.iter().enumerate() {
        let share = share_of(deadline, targets.len() - at);
        let error = match timeout(share, attempt(context, dial, *target)).await {
            Ok(Ok(reached)) => return Ok(reached),
            Ok(Err(error)) => error,
            Err(_) => DialError::Timeout,
        };
        debug!(dial = dial.id.0, %target, "{error}");
        if error.telling() > worst.telling() {
            worst = error;
        }
    }
    Err(worst)
}

/// The time that is left, shared fairly by the addresses that are left.
fn share_of(deadline: Instant, addresses: usize) -> Duration {
    let left = deadline.saturating_duration_since(Instant::now());
    left / u32::try_from(addresses).unwrap_or(u32::MAX).max(1)
}

async fn resolve(address: &Address) -> Result<Vec<SocketAddr>, DialError> {
    if let Some(ip) = address.ip() {
        return Ok(vec![SocketAddr::new(ip, address.port())]);
    }
    let found = lookup_host((address.host(), address.port())).await;
    let found = found.map_err(|error| DialError::Resolve(error.to_string()))?;
    let targets = alternate(found.take(TARGETS_MAX * 4));
    if targets.is_empty() {
        return Err(DialError::Resolve("no address".to_owned()));
    }
    Ok(targets)
}

/// Both families in turn, beginning with the resolver's first choice, so that one that leads
/// nowhere does not use up all the time (after RFC 8305 section 4).
fn alternate(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let found: Vec<SocketAddr> = found.collect();
    let first_is_ipv6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| address.is_ipv6() == first_is_ipv6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut targets = Vec::new();
    while targets.len() < TARGETS_MAX {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            break;
        }
        targets.extend(pair.into_iter().flatten());
    }
    targets.truncate(TARGETS_MAX);
    targets
}

/// One address, from TCP to where both ends are satisfied.
async fn attempt(
    context: &Context,
    dial: &Dial,
    address: SocketAddr,
) -> Result<Reached, DialError> {
    let connected = TcpStream::connect(address).await;
    let tcp = connected.map_err(|error| DialError::Connect(describe_connect(&error)))?;
    let secured = context.tls.connect(Socket::new(tcp)).await;
    let secured = secured.map_err(|error| match is_of_tls(&error) {
        true => DialError::NotDistmsg(escaped(&error.to_string())),
        false => DialError::Lost(describe_loss(&error)),
    })?;
    let (peer, exporter) = (secured.peer, secured.exporter);
    // Before a single word: whoever is there, it is not whom we want to talk to.
    if dial.expected.is_some_and(|expected| expected != peer) {
        return Err(DialError::Identity { found: peer });
    }
    let mut channel = Channel::new(secured);
    if peer == context.peer {
        return Err(refuse(channel, peer, CloseReason::Myself, Words::default()));
    }
    let own = context.own(&exporter);
    match greet(&mut channel, &own, dial.purpose).await {
        Ok(greeting) => Ok(Reached { channel, peer, address, greeting }),
        Err(Failure::Refusing(reason, words)) => Err(refuse(channel, peer, reason, words)),
        Err(Failure::Refused(reason, text)) => Err(DialError::Refused { peer, reason, text }),
        Err(Failure::Lost(why)) => Err(DialError::Lost(why)),
    }
}

async fn greet(
    channel: &mut Channel,
    own: &Own<'_>,
    purpose: Purpose,
) -> Result<Greeting, Failure> {
    let greeting = greet_listener(channel, own).await?;
    if purpose == Purpose::Link {
        confirm(channel, own).await?;
    }
    Ok(greeting)
}

/// Tells the other end why, without keeping the dial waiting for it.
fn refuse(channel: Channel, peer: PeerId, reason: CloseReason, words: Words) -> DialError {
    let Words { ours: text, theirs } = words;
    tokio::spawn(async move { channel.close(reason, &theirs).await });
    DialError::Refused { peer, reason, text }
}

fn describe_connect(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        io::ErrorKind::TimedOut => "connection timed out".to_owned(),
        _ => error.to_string(),
    }
}

impl Context {
    /// What this end says of itself on one connection.
    pub(super) fn own<'a>(&'a self, exporter: &'a [u8; 32]) -> Own<'a> {
        let record: Bytes = self.record();
        Own { membership: &self.network, instance: self.instance, record, exporter }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_their_number_is_bounded() {
        let parse = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let six = (0..20).map(|n| parse(&format!("[2001:db8::{n}]:1")));
        let four = [parse("192.0.2.1:1"), parse("192.0.2.2:1")];
        let targets = alternate(six.chain(four));
        assert_eq!(targets.len(), TARGETS_MAX);
        assert_eq!(targets[1], four[0]);
        assert_eq!(targets[3], four[1]);
        assert!(targets.iter().filter(|target| target.is_ipv6()).count() == TARGETS_MAX - 2);
        assert_eq!(alternate(four.into_iter()), four);
    }

    #[test]
    fn errors_name_the_remedy_and_the_reason() {
        let peer = PeerId::from_bytes([1; 32]);
        let refused = DialError::Refused {
            peer,
            reason: CloseReason::Network,
            text: "the two are in different closed networks".to_owned(),
        };
        assert_eq!(
            refused.to_string(),
            "refused: the peer is in another network: the two are in different closed networks"
        );
        let myself = DialError::Refused { peer, reason: CloseReason::Myself, text: String::new() };
        assert_eq!(myself.to_string(), "refused: that is this node itself");
    }
}
