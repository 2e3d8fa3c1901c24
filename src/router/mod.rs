//! PURE. Who our neighbours are and how to reach everybody else through them.
//!
//! The router knows envelopes, not messages; a relay needs nothing else. It has no clock, no socket
//! and no randomness of its own: [`Router::handle`] takes what happened and when, and
//! [`Router::poll_output`] says what to do about it.
//!
//! The contract: after every call of `handle` or `tick`, drain `poll_output` until it returns
//! `None`; then read `deadline` and call `tick` when it has come. Nothing is lost if `tick` is
//! late.

use bytes::Bytes;

use crate::model::{PeerId, SignedRecord};
use crate::wire::{CloseReason, Envelope, EnvelopeKey, Frame, Header, NoticeKind, RejectReason};

/// What happens to a router.
#[derive(Debug)]
pub enum Input {
    /// Our own record was made or renewed. The first input of all.
    OwnRecord(SignedRecord),
    /// A record from our own store, at start: trusted, not announced.
    StoredRecord(SignedRecord),
    /// How the operator stands to a peer, or that we exchanged messages: such peers' records are
    /// never evicted, their floods are verified first.
    Standing {
        /// The peer.
        peer: PeerId,
        /// Whether the operator connected it, named it, or a receipt of it was seen.
        known: bool,
    },
    /// The operator forgot a peer: its record and routes go.
    Forget(PeerId),
    /// A link to a neighbour is up, authenticated, and the only one to it.
    LinkUp {
        /// Who.
        neighbour: PeerId,
        /// The record in its hello, as bytes; not verified.
        record: Bytes,
    },
    /// The link to a neighbour is down.
    LinkDown {
        /// Who.
        neighbour: PeerId,
    },
    /// A neighbour said something.
    Frame {
        /// Who.
        from: PeerId,
        /// What.
        frame: Frame,
    },
    /// Bytes that were handed to a link have left it: there is room again.
    Written {
        /// On whose link.
        neighbour: PeerId,
        /// How many, frame prefixes not counted.
        bytes: usize,
    },
    /// The courier wants to write to a peer: it needs a fresh record and a way.
    Locate {
        /// Whom.
        peer: PeerId,
        /// What we know did not work: ask the target itself anew.
        anew: bool,
    },
    /// The courier's envelope, for a learned route.
    Send {
        /// The envelope.
        envelope: Envelope,
        /// Prefer another first hop than the last attempt of this envelope took.
        elsewhere: bool,
    },
    /// The courier's envelope, for everybody: routes failed. Paced by the origin's limit.
    Flood {
        /// The envelope.
        envelope: Envelope,
    },
    /// The courier gave an envelope up, or has its receipt: whatever is left to do for it is void.
    Settled {
        /// Its commitment.
        commitment: [u8; 32],
    },
    /// The courier stored an envelope's content: its receipt goes back every way the envelope came.
    Reveal {
        /// The receipt.
        preimage: [u8; 32],
    },
    /// The courier could not take an envelope: a notice goes back the way it came.
    Notify {
        /// What is the matter.
        kind: NoticeKind,
        /// The envelope's header.
        header: Header,
    },
    /// Compare tables with all neighbours now.
    Discover,
    /// Whether to output [`Output::Traffic`].
    Observe(bool),
}

/// What a router wants done, in order.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Hand a frame to a neighbour's link. The router has counted its bytes against the queue.
    Send {
        /// Whose link.
        neighbour: PeerId,
        /// The frame, without its length prefix.
        frame: Bytes,
    },
    /// End a link.
    Disconnect {
        /// Whose.
        neighbour: PeerId,
        /// Why.
        reason: CloseReason,
        /// For both operators.
        text: String,
    },
    /// An envelope for us, whole: for the courier.
    Deliver {
        /// The envelope; fragments have been put together.
        envelope: Envelope,
    },
    /// A fragment or attempt of ours left on at least one link: what `--wait sent` waits for.
    Departed {
        /// Which envelope.
        key: EnvelopeKey,
    },
    /// A receipt for one of our envelopes, checked against its commitment.
    Receipt {
        /// The envelope's commitment.
        commitment: [u8; 32],
    },
    /// Nobody took this envelope of ours: every next hop rejected it, or there is none.
    Rejected {
        /// Which envelope.
        key: EnvelopeKey,
        /// The last reason.
        reason: RejectReason,
    },
    /// A destination's notice on one of our envelopes, its signature verified.
    Notice {
        /// The envelope's commitment.
        commitment: [u8; 32],
        /// What is the matter.
        kind: NoticeKind,
    },
    /// There is a fresh record of the peer and a way to it: the answer to [`Input::Locate`].
    Located {
        /// The peer.
        peer: PeerId,
    },
    /// Nobody answered for the peer in time: the other answer to [`Input::Locate`].
    NotFound {
        /// The peer.
        peer: PeerId,
    },
    /// A record was learned and verified: store it. It is in the table already.
    Learned {
        /// The record.
        record: SignedRecord,
        /// The neighbour it came from.
        via: PeerId,
        /// Whether the peer was not known before.
        new: bool,
        /// Whether a running discover brought it.
        discovered: bool,
    },
    /// A record was dropped: expired, or evicted.
    Dropped {
        /// Whose.
        peer: PeerId,
    },
    /// Others have a newer record of ours than we do: our clock went back. Make one with a higher
    /// sequence.
    OwnRecordAhead {
        /// The sequence they have.
        sequence: u64,
    },
    /// A discover is over.
    Discovered(DiscoverOutcome),
    /// An envelope passed; only while observed.
    Traffic(Traffic),
}

/// What a discover brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiscoverOutcome {
    /// Neighbours asked.
    pub asked: u64,
    /// Neighbours whose table was merged completely.
    pub answered: u64,
    /// Peers not known before.
    pub new: u64,
    /// Peers whose record was replaced by a newer one.
    pub updated: u64,
}

/// An envelope that passed, as a relay sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    /// What was done with it.
    pub action: Action,
    /// Who sealed it.
    pub source: PeerId,
    /// Who can open it.
    pub destination: PeerId,
    /// The neighbour it came from; none if it began here.
    pub previous: Option<PeerId>,
    /// The neighbours it went to.
    pub next: Vec<PeerId>,
    /// Bytes of the frame.
    pub bytes: usize,
    /// Which attempt of its source this is.
    pub attempt: u16,
}

/// What a node did with an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Sent by this node.
    Originated,
    /// Passed on to a next hop.
    Forwarded,
    /// Passed on to all neighbours.
    Flooded,
    /// It is for this node.
    Delivered,
    /// Sent back.
    Rejected,
}
