//! A self-signed X.509 certificate (RFC 5280) of an identity key: for TLS libraries that know no
//! raw public keys (RFC 7250).
//!
//! It says nothing that the key does not say, and is the same whenever it is made: the name is the
//! peer ID, the dates span all time. Whoever checks it looks at the key and at nothing else.

use super::identity::{Identity, peer_of_spki};
use crate::model::PeerId;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0] EXPLICIT`, where the version is.
const VERSION: u8 = 0xa0;

/// id-Ed25519 (RFC 8410 section 3).
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
/// id-at-commonName (RFC 5280 appendix A.1).
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// Before any of our keys was made.
const NOT_BEFORE: &[u8] = b"200101000000Z";
/// "No well-defined expiration date" (RFC 5280 section 4.1.2.5).
const NOT_AFTER: &[u8] = b"99991231235959Z";

/// Bytes of an Ed25519 SubjectPublicKeyInfo.
const SPKI_LEN: usize = 44;

impl Identity {
    /// The certificate of this identity, in DER.
    pub fn certificate(&self) -> Vec<u8> {
        let peer = self.peer().to_string();
        let algorithm = element(SEQUENCE, &[&element(OBJECT, &[ED25519])]);
        let attribute = [element(OBJECT, &[COMMON_NAME]), element(UTF8_STRING, &[peer.as_bytes()])];
        let name = element(SET, &[&element(SEQUENCE, &[&attribute.concat()])]);
        let name = element(SEQUENCE, &[&name]);
        let from = element(UTC_TIME, &[NOT_BEFORE]);
        let to = element(GENERALIZED_TIME, &[NOT_AFTER]);
        let signed = element(
            SEQUENCE,
            &[
                // Version 3, the only one that TLS libraries take, and the number 1.
                &element(VERSION, &[&element(INTEGER, &[&[2]])]),
                &element(INTEGER, &[&[1]]),
                &algorithm,
                &name,
                &element(SEQUENCE, &[&from, &to]),
                &name,
                &self.to_spki(),
            ],
        );
        let signature = self.sign_foreign(&signed);
        // No bits of the last byte are unused.
        let signature = element(BIT_STRING, &[&[0], &signature]);
        element(SEQUENCE, &[&signed, &algorithm, &signature])
    }
}

/// Whose key a certificate has, if that is an Ed25519 key which can be somebody's. Nothing else in
/// it is looked at, its signature included: that somebody has the key is for the handshake to show.
pub fn peer_of_certificate(der: &[u8]) -> Option<PeerId> {
    let (mut certificate, after) = split(der, SEQUENCE)?;
    if !after.is_empty() {
        return None;
    }
    let mut signed = take(&mut certificate, SEQUENCE)?;
    // Version, number, algorithm, issuer, validity, subject.
    for tag in [VERSION, INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE] {
        take(&mut signed, tag)?;
    }
    peer_of_spki(signed.get(..SPKI_LEN)?)
}

/// An element of DER (X.690 section 8.1): tag, length, contents.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    let bytes = length.to_be_bytes();
    match length {
        0..=0x7f => out.extend(bytes.last()),
        _ => {
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            let bytes = bytes.get(zeros..).unwrap_or_default();
            // At most eight.
            out.push(0x80 | u8::try_from(bytes.len()).unwrap_or(0));
            out.extend_from_slice(bytes);
        }
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// Takes the first element, which must have this tag; its contents.
fn take<'a>(der: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (contents, after) = split(der, tag)?;
    *der = after;
    Some(contents)
}

/// The contents of the first element, which must have this tag, and what follows it.
fn split(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    if *found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        // No certificate of anybody's is longer than two bytes can say.
        0x81 | 0x82 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Random;

    fn identity(seed: u8) -> Identity {
        Identity::generate(&mut Random::from_seed([seed; 32]))
    }

    #[test]
    fn a_certificate_tells_its_peer_and_is_always_the_same() {
        let a = identity(1);
        let certificate = a.certificate();
        assert_eq!(certificate, a.certificate());
        assert_eq!(peer_of_certificate(&certificate), Some(a.peer()));
        assert_ne!(peer_of_certificate(&identity(2).certificate()), Some(a.peer()));
        let name = a.peer().to_string();
        let names = certificate.windows(name.len()).filter(|window| *window == name.as_bytes());
        assert_eq!(names.count(), 2, "as issuer and as subject");
    }

    #[cfg(not(distmsg_cheap_crypto))]
    #[test]
    fn a_certificate_is_signed_by_its_own_key() {
        use crate::crypto::primitive::verify;

        let a = identity(1);
        let certificate = a.certificate();
        let (contents, _) = split(&certificate, SEQUENCE).expect("a sequence");
        let (_, after) = split(contents, SEQUENCE).expect("what is signed");
        let signed = &contents[..contents.len() - after.len()];
        let signature = certificate.last_chunk().expect("a signature");
        assert!(verify(a.peer().as_bytes(), signed, signature));
    }

    #[test]
    fn what_is_no_certificate_is_nobodys() {
        let certificate = identity(1).certificate();
        for length in 0..certificate.len() {
            assert_eq!(peer_of_certificate(&certificate[..length]), None, "{length} bytes of it");
        }
        let longer = [&certificate[..], &[0]].concat();
        assert_eq!(peer_of_certificate(&longer), None);
        // Whatever one byte is changed to, it is nobody's, or the key is where it was.
        let peer = identity(1).peer();
        let at = certificate.windows(32).position(|w| w == peer.as_bytes()).expect("the key");
        for place in 0..certificate.len() {
            let mut altered = certificate.clone();
            altered[place] ^= 0x41;
            let of_key = (at..at + 32).contains(&place);
            let found = peer_of_certificate(&altered);
            assert!(found.is_none_or(|found| (found != peer) == of_key), "byte {place}");
        }
    }

    #[test]
    fn a_key_elsewhere_in_a_certificate_is_not_its_key() {
        let (a, b) = (identity(1), identity(2));
        let certificate = b.certificate();
        let (contents, _) = split(&certificate, SEQUENCE).expect("a sequence");
        let (signed, after) = split(contents, SEQUENCE).expect("what is signed");
        // As an extension that says nothing, and in place of the name.
        let behind = element(SEQUENCE, &[signed, &element(0xa3, &[&a.to_spki()])]);
        let forged = element(SEQUENCE, &[&behind, after]);
        assert_eq!(peer_of_certificate(&forged), Some(b.peer()));
        let name = element(SEQUENCE, &[&a.to_spki()]);
        let (head, rest) = signed.split_at(element(VERSION, &[&[2, 1, 2]]).len() + 3 + 7);
        let (_, rest) = split(rest, SEQUENCE).expect("the issuer");
        let forged = element(SEQUENCE, &[&element(SEQUENCE, &[head, &name, rest]), after]);
        assert_eq!(peer_of_certificate(&forged), Some(b.peer()));
    }

    #[test]
    fn lengths_are_written_as_short_as_they_can_be() {
        for (length, head) in [
            (0, &[0x30, 0][..]),
            (0x7f, &[0x30, 0x7f]),
            (0x80, &[0x30, 0x81, 0x80]),
            (0x100, &[0x30, 0x82, 1, 0]),
        ] {
            let contents = vec![7; length];
            let made = element(SEQUENCE, &[&contents]);
            assert_eq!(made[..head.len()], *head);
            assert_eq!(split(&made, SEQUENCE), Some((&contents[..], &[][..])));
        }
    }
}
