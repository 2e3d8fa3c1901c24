//! The first frame on a link, in both directions.

use bytes::Bytes;

use super::frame::tag;
use super::reader::{Reader, WireError};
use crate::model::NetworkId;
use crate::model::limits::RECORD_BYTES_MAX;

/// What each end of a link says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The protocol version it speaks. It stands first and never moves, so that a node can tell
    /// another version from garbage.
    pub version: u8,
    /// Optional abilities, one bit each; none are defined yet, unknown ones are ignored.
    pub features: u32,
    /// A number drawn at the daemon's start: tells a peer that restarted from one that dials twice.
    pub instance: u64,
    /// The network it belongs to.
    pub network: NetworkId,
    /// For a closed network, the proof of having its key; zeros for the open one.
    pub proof: [u8; 32],
    /// Its record, as bytes. Empty from the dialler: it sends its record when the listener has
    /// proven itself.
    pub record: Bytes,
}

impl Hello {
    /// The frame.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(80 + self.record.len());
        out.push(tag::HELLO);
        out.push(self.version);
        out.extend_from_slice(&self.features.to_be_bytes());
        out.extend_from_slice(&self.instance.to_be_bytes());
        out.extend_from_slice(self.network.as_bytes());
        out.extend_from_slice(&self.proof);
        out.extend_from_slice(&self.record);
        out.into()
    }

    pub(super) fn decode(frame: &Bytes) -> Result<Self, WireError> {
        let mut reader = Reader::new(frame.slice(1..), "hello");
        reader.version()?;
        let features = reader.u32()?;
        let instance = reader.u64()?;
        let network = NetworkId::from_bytes(reader.array()?);
        let proof = reader.array()?;
        reader.bounded(reader.remaining(), RECORD_BYTES_MAX, "record")?;
        let record = reader.rest();
        Ok(Self { version: super::VERSION, features, instance, network, proof, record })
    }
}
