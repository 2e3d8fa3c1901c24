//! Peer records as bytes.

use bytes::Bytes;

use super::reader::{Reader, WireError, as_text};
use crate::model::limits::{RECORD_ADDRESSES_MAX, RECORD_BYTES_MAX, RECORD_PREKEYS_MAX};
use crate::model::{Address, NetworkId, Prekey, PrekeyId, Record, Timestamp};

const SIGNATURE_LEN: usize = 64;

/// A record that has the right form; whether its signature holds is not known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedRecord {
    /// What it says.
    pub record: Record,
    /// The bytes that were signed.
    pub signed: Bytes,
    /// The signature.
    pub signature: [u8; SIGNATURE_LEN],
    /// All of it, as received.
    pub bytes: Bytes,
}

/// The bytes of a record that its peer signs.
pub fn encode_record(record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(2048);
    out.push(super::VERSION);
    out.extend_from_slice(record.network.as_bytes());
    out.extend_from_slice(record.peer.as_bytes());
    out.extend_from_slice(&record.sequence.to_be_bytes());
    out.extend_from_slice(&record.expires.as_millis().to_be_bytes());
    put_short_text(&mut out, record.name.as_ref().map_or("", |name| name.as_str()));
    let addresses = record.addresses.get(..RECORD_ADDRESSES_MAX).unwrap_or(&record.addresses);
    put_count(&mut out, addresses.len());
    for address in addresses {
        put_short_text(&mut out, address.host());
        out.extend_from_slice(&address.port().to_be_bytes());
    }
    let prekeys = record.prekeys.get(..RECORD_PREKEYS_MAX).unwrap_or(&record.prekeys);
    put_count(&mut out, prekeys.len());
    for prekey in prekeys {
        out.extend_from_slice(&prekey.id.0.to_be_bytes());
        out.extend_from_slice(&prekey.expires.as_millis().to_be_bytes());
        out.extend_from_slice(&prekey.public);
    }
    out
}

/// The record's bytes with their signature: what is stored and passed on.
pub fn record_with_signature(mut signed: Vec<u8>, signature: &[u8; SIGNATURE_LEN]) -> Bytes {
    signed.extend_from_slice(signature);
    signed.into()
}

/// Reads a record.
///
/// # Errors
/// When the bytes are no record.
pub fn decode_record(bytes: Bytes) -> Result<ParsedRecord, WireError> {
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(WireError::TooLarge("record"));
    }
    let content = bytes.len().checked_sub(SIGNATURE_LEN).ok_or(WireError::Truncated("record"))?;
    let signed = bytes.slice(..content);
    let signature = Reader::new(bytes.slice(content..), "record").array()?;
    let mut reader = Reader::new(signed.clone(), "record");
    reader.version()?;
    let record = Record {
        network: NetworkId::from_bytes(reader.array()?),
        peer: reader.peer()?,
        sequence: reader.u64()?,
        expires: Timestamp::from_millis(reader.u64()?),
        name: match reader.short_text()? {
            name if name.is_empty() => None,
            name => Some(as_text(&name).parse().map_err(|_| WireError::Invalid("name"))?),
        },
        addresses: read_addresses(&mut reader)?,
        prekeys: read_prekeys(&mut reader)?,
    };
    reader.finish()?;
    Ok(ParsedRecord { record, signed, signature, bytes })
}

fn read_addresses(reader: &mut Reader) -> Result<Vec<Address>, WireError> {
    let count = usize::from(reader.u8()?);
    let count = reader.bounded(count, RECORD_ADDRESSES_MAX, "number of addresses")?;
    (0..count)
        .map(|_| {
            let host = reader.short_text()?;
            let address = Address::new(as_text(&host), reader.u16()?);
            let address = address.map_err(|_| WireError::Invalid("address"))?;
            // One form only: what is encoded again must be what was signed.
            if address.host() == as_text(&host) && address.port() != 0 {
                Ok(address)
            } else {
                Err(WireError::Invalid("address"))
            }
        })
        .collect()
}

fn read_prekeys(reader: &mut Reader) -> Result<Vec<Prekey>, WireError> {
    let count = usize::from(reader.u8()?);
    let count = reader.bounded(count, RECORD_PREKEYS_MAX, "number of prekeys")?;
    (0..count)
        .map(|_| {
            Ok(Prekey {
                id: PrekeyId(reader.u32()?),
                expires: Timestamp::from_millis(reader.u64()?),
                public: reader.bytes(Prekey::PUBLIC_LEN)?,
            })
        })
        .collect()
}

/// Appends text that is known to be shorter than 256 bytes, after its length.
pub(super) fn put_short_text(out: &mut Vec<u8>, text: &str) {
    let length = u8::try_from(text.len()).unwrap_or(0);
    out.push(length);
    out.extend_from_slice(text.as_bytes().get(..usize::from(length)).unwrap_or_default());
}

/// Appends a count that is known to be below 256.
fn put_count(out: &mut Vec<u8>, count: usize) {
    out.push(u8::try_from(count).unwrap_or(u8::MAX));
}
