//! HKDF, HMAC and the ciphers of sessions and links.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce};
use aws_lc_rs::hkdf::{self, HKDF_SHA256};
use aws_lc_rs::hmac;

use crate::table::{Row, vectors};

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[test]
fn wycheproof_hkdf_sha256() {
    for row in vectors("hkdf_sha256.txt", 83) {
        let prk = hkdf::Salt::new(HKDF_SHA256, &row.bytes(3)).extract(&row.bytes(2));
        let info = row.bytes(4);
        let mut key = vec![0; row.number(5)];
        let is_made = prk
            .expand(&[&info], Length(key.len()))
            .and_then(|expanded| expanded.fill(&mut key))
            .is_ok();
        assert_eq!(is_made, row.is_valid(), "test {}", row.text(0));
        if is_made {
            assert_eq!(key, row.bytes(6), "test {}", row.text(0));
        }
    }
}

#[test]
fn wycheproof_hmac_sha256() {
    for row in vectors("hmac_sha256.txt", 87) {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &row.bytes(2));
        let holds = hmac::verify(&key, &row.bytes(3), &row.bytes(4)).is_ok();
        assert_eq!(holds, row.is_valid(), "test {}", row.text(0));
    }
}

/// Opens a vector, and seals it again if it is valid.
fn check(algorithm: &'static Algorithm, row: &Row) {
    let what = format!("test {}", row.text(0));
    let key = aws_lc_rs::aead::UnboundKey::new(algorithm, &row.bytes(2)).expect("a key");
    let key = LessSafeKey::new(key);
    let nonce = || Nonce::try_assume_unique_for_key(&row.bytes(3)).ok();
    let Some(given) = nonce() else {
        // Our nonces are 12 bytes by their type.
        assert_ne!(row.bytes(3).len(), 12, "{what}");
        return;
    };
    let (aad, plain) = (row.bytes(4), row.bytes(5));
    let whole = [row.bytes(6), row.bytes(7)].concat();
    let mut sealed = whole.clone();
    let opened = key.open_in_place(given, Aad::from(&aad), &mut sealed).ok();
    assert_eq!(opened.is_some(), row.is_valid(), "{what}");
    if row.is_valid() {
        assert_eq!(opened.map(|plain| plain.to_vec()), Some(plain.clone()), "{what}");
        let mut sealed = plain;
        let given = nonce().expect("as before");
        key.seal_in_place_append_tag(given, Aad::from(&aad), &mut sealed).expect("sealed");
        assert_eq!(sealed, whole, "{what}");
    }
}

#[test]
fn wycheproof_aes_256_gcm() {
    vectors("aes_256_gcm.txt", 105).iter().for_each(|row| check(&AES_256_GCM, row));
}

#[test]
fn wycheproof_chacha20_poly1305() {
    vectors("chacha20_poly1305.txt", 325).iter().for_each(|row| check(&CHACHA20_POLY1305, row));
}
