//! What happens on links, as values.

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;

use super::dial::DialError;
use super::listeners::ListenError;
use super::queue::LinkHandle;
use crate::model::PeerId;
use crate::wire::{CloseReason, Frame};

/// Names a link. Never used twice by one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Names an attempt to dial; whoever dials chooses it, and never uses it twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub u64);

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The other end.
    Inbound,
    /// This node.
    Outbound,
}

/// What happens. Of one link come, in this order: `Up`; any number of `Frames` and `Written`;
/// `Down`, the last.
#[derive(Debug)]
pub enum Event {
    /// A link is authenticated, and both ends are in the same network.
    Up {
        /// Which link.
        link: LinkId,
        /// Who is at the other end.
        peer: PeerId,
        /// Who dialled.
        direction: Direction,
        /// Our dial that led to it, if we dialled.
        dial: Option<DialId>,
        /// The other end's address.
        address: SocketAddr,
        /// The number that the other daemon drew at its start.
        instance: u64,
        /// The other end's record, as bytes; not verified, possibly empty.
        record: Bytes,
        /// What sends on it. Dropping it ends the link.
        handle: LinkHandle,
    },
    /// Frames came, all of one read; never `Hello` nor `Close`.
    Frames {
        /// On which link.
        link: LinkId,
        /// The frames, in the order they were sent; at least one.
        frames: Vec<Frame>,
    },
    /// Frames left: the kernel has taken them.
    Written {
        /// On which link.
        link: LinkId,
        /// Bytes of those frames, length prefixes not counted.
        bytes: usize,
    },
    /// A link ended. What was not written is lost, and no `Written` comes for it.
    Down {
        /// Which link.
        link: LinkId,
        /// Why.
        ended: Ended,
    },
    /// A probe found somebody who belongs to our network.
    Probed {
        /// Which dial.
        dial: DialId,
        /// Who answered.
        peer: PeerId,
        /// Where.
        address: SocketAddr,
        /// Its record, as bytes; not verified, possibly empty.
        record: Bytes,
    },
    /// A dial came to nothing.
    DialFailed {
        /// Which dial.
        dial: DialId,
        /// Why.
        error: DialError,
    },
    /// What became of listening elsewhere: done, or all is as before.
    Listening(Result<(), ListenError>),
    /// Somebody dialled us, and it did not become a link. At most a few a second are reported, and
    /// none while the receiver of events has no room.
    Refused {
        /// Where it came from.
        address: SocketAddr,
        /// Who it was, if it got so far.
        peer: Option<PeerId>,
        /// Why, for the log; safe to print.
        reason: String,
        /// How many before it were not reported.
        unreported: u64,
    },
}

/// Why a link ended. Texts from the other end are escaped: they are safe to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// We ended it, and told the other end if it listened.
    ByUs {
        /// The kind of reason.
        reason: CloseReason,
        /// More about it; may be empty.
        text: String,
    },
    /// The other end ended it and said why.
    ByPeer {
        /// The kind of reason.
        reason: CloseReason,
        /// More about it; may be empty.
        text: String,
    },
    /// The connection broke, stalled or was ended without a word.
    Lost(String),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByUs { reason, text } => {
                f.write_str("closed by this node")?;
                write_if_any(f, our_words(*reason))?;
                write_if_any(f, text)
            }
            Self::ByPeer { reason, text } => {
                write!(f, "closed by the peer: {reason}")?;
                write_if_any(f, text)
            }
            Self::Lost(why) => f.write_str(why),
        }
    }
}

fn write_if_any(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    if text.is_empty() { Ok(()) } else { write!(f, ": {text}") }
}

/// A close reason as its sender would put it: `CloseReason` speaks to the receiver.
const fn our_words(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Stopping => "this node is stopping",
        CloseReason::Duplicate => "another link is in use",
        CloseReason::Network => "the peer is in another network",
        CloseReason::Version => "the peer speaks another version",
        CloseReason::Protocol => "protocol violation by the peer",
        CloseReason::Busy => "this node has too many links",
        CloseReason::Operator => "disconnected by the operator",
        CloseReason::Myself => "that is this node itself",
        CloseReason::Silent => "nothing was heard for too long",
        CloseReason::Probe => "it was only a probe",
    }
}
