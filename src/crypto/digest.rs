//! Hashes (SHA-256, FIPS 180-4).

use aws_lc_rs::digest::{Context, SHA256};

use crate::model::{MessageId, Uid};

/// SHA-256 over the parts, one after the other. Callers make the split unambiguous: fixed lengths,
/// or a variable part last.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// The first 16 bytes of [`sha256`]: enough that nobody finds two inputs with the same, short
/// enough to remember many.
pub fn short_digest(parts: &[&[u8]]) -> [u8; 16] {
    let hash = sha256(parts);
    std::array::from_fn(|at| hash.get(at).copied().unwrap_or(0))
}

/// What both ends call a message: a hash of all that makes it unique.
pub fn message_id(uid: &Uid) -> MessageId {
    MessageId(short_digest(&[
        b"distmsg/1 message",
        uid.sender.as_bytes(),
        uid.recipient.as_bytes(),
        &uid.incarnation.0.to_be_bytes(),
        &uid.sequence.0.to_be_bytes(),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_of_abc_is_the_published_one() {
        // FIPS 180-2, appendix B.1.
        let hash = sha256(&[b"a", b"bc"]);
        assert_eq!(hash[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(hash[28..], [0xf2, 0x00, 0x15, 0xad]);
    }
}
