//! Peer records as bytes.

use bytes::Bytes;

use super::reader::{Reader, WireError, as_text};
use crate::model::limits::{
    HOST_BYTES_MAX, NAME_BYTES_MAX, RECORD_ADDRESSES_MAX, RECORD_BYTES_MAX, RECORD_PREKEYS_MAX,
};
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

/// Bytes of a record with its signature, but without name, addresses and prekeys.
const BARE_LEN: usize = 1 + 16 + 32 + 8 + 8 + 1 + 1 + 1 + SIGNATURE_LEN;
/// Bytes of a prekey.
const PREKEY_LEN: usize = 4 + 8 + Prekey::PUBLIC_LEN;
/// Bytes of an address beside its host.
const ADDRESS_BARE_LEN: usize = 1 + 2;

/// Addresses that fit in any case, however long their hosts, the name and however many prekeys.
const ADDRESSES_MIN: usize = 4;

const _: () = assert!(
    BARE_LEN
        + NAME_BYTES_MAX
        + RECORD_PREKEYS_MAX * PREKEY_LEN
        + ADDRESSES_MIN * (ADDRESS_BARE_LEN + HOST_BYTES_MAX)
        <= RECORD_BYTES_MAX
);

/// Drops from a record what would make others refuse it: prekeys after the second, addresses that
/// nobody can dial (port 0), and those that are too many or for which no room is left. The earlier
/// an address stands, the surer it stays.
///
/// Call it on a record before signing, so that it says what its bytes say.
pub fn fit_record(record: &mut Record) {
    record.prekeys.truncate(RECORD_PREKEYS_MAX);
    let name_len = record.name.as_ref().map_or(0, |name| name.as_str().len());
    let mut length = BARE_LEN + name_len + record.prekeys.len() * PREKEY_LEN;
    let mut count = 0;
    record.addresses.retain(|address| {
        let longer = length + ADDRESS_BARE_LEN + address.host().len();
        let fits = longer <= RECORD_BYTES_MAX && count < RECORD_ADDRESSES_MAX;
        let kept = fits && address.port() != 0;
        if kept {
            (length, count) = (longer, count + 1);
        }
        kept
    });
}

/// The bytes of a record that its peer signs. What [`fit_record`] drops is left out, so that the
/// bytes with their signature are always a record.
pub fn encode_record(record: &Record) -> Vec<u8> {
    let mut record = record.clone();
    fit_record(&mut record);
    let mut out = Vec::with_capacity(RECORD_BYTES_MAX);
    out.push(super::VERSION);
    out.extend_from_slice(record.network.as_bytes());
    out.extend_from_slice(record.peer.as_bytes());
    out.extend_from_slice(&record.sequence.to_be_bytes());
    out.extend_from_slice(&record.expires.as_millis().to_be_bytes());
    put_short_text(&mut out, record.name.as_ref().map_or("", |name| name.as_str()));
    put_count(&mut out, record.addresses.len());
    for address in &record.addresses {
        put_short_text(&mut out, address.host());
        out.extend_from_slice(&address.port().to_be_bytes());
    }
    put_count(&mut out, record.prekeys.len());
    for prekey in &record.prekeys {
        debug_assert_eq!(prekey.public.len(), Prekey::PUBLIC_LEN, "only crypto makes prekeys");
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
/// The result has memory of its own: records are kept for days, and must not keep alive the frame
/// that they came in, which may be many times their size.
///
/// # Errors
/// When the bytes are no record.
pub fn decode_record(bytes: Bytes) -> Result<ParsedRecord, WireError> {
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(WireError::TooLarge("record"));
    }
    let bytes = Bytes::copy_from_slice(&bytes);
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
