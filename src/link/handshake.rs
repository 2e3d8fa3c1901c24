//! Hello: do the two belong together? The order of words is explained in the room's front page.

use std::io;

use bytes::Bytes;

use super::channel::{Channel, ReadEnd};
use crate::crypto::{NetworkKey, ProofRole};
use crate::model::{NetworkId, escaped};
use crate::wire::{CloseReason, Frame, Hello, VERSION, WireError};

/// The network that a node belongs to.
#[derive(Debug, Clone)]
pub enum Membership {
    /// The open network: anybody may link.
    Open,
    /// A closed network: whoever links has its key.
    Closed(NetworkKey),
}

/// What the operator reads whose node is in the open network. Such texts travel, and have at most
/// [`REASON_BYTES_MAX`] bytes.
///
/// [`REASON_BYTES_MAX`]: crate::model::limits::REASON_BYTES_MAX
const JOIN: &str = "this node is in the open network, the peer in a closed network; to join it, \
                    write network = \"closed\" and put a copy of its network.key in place";
/// What the operator reads whose node is in the closed one.
const LET_IN: &str = "this node is in a closed network, the peer in the open one; only who \
                      has a copy of its network.key can link with it";
/// What both read where the keys are not the same.
const DIFFERENT: &str = "the two are in different closed networks; to join the peer's, put a copy \
                         of its network.key in place of this node's";

/// What one end says of itself, and where.
pub(super) struct Own<'a> {
    pub(super) membership: &'a Membership,
    pub(super) instance: u64,
    pub(super) record: Bytes,
    /// What only the two ends of this connection know.
    pub(super) exporter: &'a [u8; 32],
}

/// What the other end said of itself.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) instance: u64,
    pub(super) record: Bytes,
}

/// Why no link came of it.
#[derive(Debug)]
pub(super) enum Failure {
    /// We do not want it, and the other end has yet to be told.
    Refusing(CloseReason, Words),
    /// The other end does not want it; its text is escaped.
    Refused(CloseReason, String),
    /// The connection broke, or ended without a word.
    Lost(String),
}

/// The same for the operators of both ends, each of whom reads "this node" and "the peer".
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Words {
    /// For ours.
    pub(super) ours: String,
    /// For the other end's.
    pub(super) theirs: String,
}

impl Words {
    /// What is true of both ends alike.
    fn alike(text: &str) -> Self {
        Self { ours: text.to_owned(), theirs: text.to_owned() }
    }
}

impl Failure {
    /// For the log: who did what.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Refusing(reason, words) => format!("{reason}: {}", words.ours),
            Self::Refused(reason, text) if text.is_empty() => {
                format!("it closed the connection: {reason}")
            }
            Self::Refused(reason, text) => format!("it closed the connection: {reason}: {text}"),
            Self::Lost(why) => why.clone(),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Lost(describe_loss(&error))
    }
}

/// The dialler's part up to where both are satisfied. A dial that wants a link then calls
/// [`confirm`].
pub(super) async fn greet_listener(
    channel: &mut Channel,
    own: &Own<'_>,
) -> Result<Greeting, Failure> {
    channel.writer.write(&own.hello(ProofRole::Dialler, Bytes::new())).await?;
    let hello = read_hello(channel).await?;
    own.check(ProofRole::Listener, &hello)?;
    Ok(Greeting { instance: hello.instance, record: own_memory(&hello.record) })
}

/// The dialler's last word: its record. The listener may take the link as up.
pub(super) async fn confirm(channel: &mut Channel, own: &Own<'_>) -> Result<(), Failure> {
    let records = vec![own.record.clone()];
    Ok(channel.writer.write(&Frame::Records { records }).await?)
}

/// The listener's part, to the end.
pub(super) async fn greet_dialler(
    channel: &mut Channel,
    own: &Own<'_>,
) -> Result<Greeting, Failure> {
    let hello = read_hello(channel).await?;
    own.check(ProofRole::Dialler, &hello)?;
    channel.writer.write(&own.hello(ProofRole::Listener, own.record.clone())).await?;
    match read_frame(channel).await? {
        Frame::Records { records } => match records.as_slice() {
            [record] => Ok(Greeting { instance: hello.instance, record: own_memory(record) }),
            _ => Err(violation("not one record after hello")),
        },
        _ => Err(violation("not a record after hello")),
    }
}

impl Own<'_> {
    fn hello(&self, role: ProofRole, record: Bytes) -> Frame {
        let proof = match self.membership {
            Membership::Open => [0; 32],
            Membership::Closed(key) => key.prove(role, self.exporter),
        };
        let network = self.membership.network();
        Frame::Hello(Hello {
            version: VERSION,
            features: 0,
            instance: self.instance,
            network,
            proof,
            record,
        })
    }

    /// Whether the other end, in its role, is of our network.
    fn check(&self, role: ProofRole, hello: &Hello) -> Result<(), Failure> {
        let (ours, theirs) = (self.membership.network(), hello.network);
        let words = match self.membership {
            _ if ours != theirs && ours == NetworkId::OPEN => {
                Words { ours: JOIN.to_owned(), theirs: LET_IN.to_owned() }
            }
            _ if ours != theirs && theirs == NetworkId::OPEN => {
                Words { ours: LET_IN.to_owned(), theirs: JOIN.to_owned() }
            }
            _ if ours != theirs => Words::alike(DIFFERENT),
            Membership::Closed(key) if !key.verify(role, self.exporter, &hello.proof) => {
                let without = |who| format!("{who} did not prove that it has the network's key");
                Words { ours: without("the peer"), theirs: without("this node") }
            }
            _ => return Ok(()),
        };
        Err(Failure::Refusing(CloseReason::Network, words))
    }
}

impl Membership {
    /// The public name of the network.
    pub fn network(&self) -> NetworkId {
        match self {
            Self::Open => NetworkId::OPEN,
            Self::Closed(key) => key.network(),
        }
    }
}

async fn read_hello(channel: &mut Channel) -> Result<Hello, Failure> {
    match channel.reader.read_handshake_frame().await {
        Ok(Frame::Hello(hello)) => Ok(hello),
        // The version stands first in a hello and never moves; no other frame may come here.
        Err(ReadEnd::Malformed(WireError::Version(version))) => {
            let words = |ours, theirs| {
                format!("this node speaks version {ours}, the peer version {theirs}")
            };
            let words = Words { ours: words(VERSION, version), theirs: words(version, VERSION) };
            Err(Failure::Refusing(CloseReason::Version, words))
        }
        other => {
            frame_or_failure(other)?;
            Err(violation("not a hello as first frame"))
        }
    }
}

async fn read_frame(channel: &mut Channel) -> Result<Frame, Failure> {
    frame_or_failure(channel.reader.read_handshake_frame().await)
}

fn frame_or_failure(read: Result<Frame, ReadEnd>) -> Result<Frame, Failure> {
    match read {
        Ok(Frame::Close { reason, text }) | Err(ReadEnd::Close(reason, text)) => {
            Err(Failure::Refused(reason, escaped(&text)))
        }
        Ok(frame) => Ok(frame),
        Err(ReadEnd::Malformed(error)) => Err(violation(&error.to_string())),
        Err(ReadEnd::Eof) => Err(Failure::Lost("the other end hung up without a word".to_owned())),
        Err(ReadEnd::Lost(error)) => Err(error.into()),
    }
}

fn violation(what: &str) -> Failure {
    Failure::Refusing(CloseReason::Protocol, Words::alike(what))
}

/// A copy: a slice would keep the buffer that the frame was read into alive.
fn own_memory(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// A broken connection in words.
pub(super) fn describe_loss(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => "connection lost".to_owned(),
        _ => format!("connection lost: {error}"),
    }
}
