//! HPKE (RFC 9180): its own vectors, those of X-Wing as its KEM, and the product's sessions against
//! a key schedule written down here once more, from the RFC.

use aws_lc_rs::hmac;
use distmsg::crypto::{PrekeySecret, SessionContext, SessionSecret};
use distmsg::model::{PeerId, PrekeyId, SessionId};
use hpke::aead::{Aead, ChaCha20Poly1305, ExportOnlyAead};
use hpke::kdf::HkdfSha256;
use hpke::kem::{X25519HkdfSha256, XWing};
use hpke::{Deserializable as _, Kem, OpModeR, Serializable as _};
use zeroize::Zeroizing;

use crate::table::{Row, vectors};

/// Numbers of the IANA registry of HPKE.
const X25519_KEM: u16 = 0x0020;
const X_WING_KEM: u16 = 0x647a;
const SHA256_KDF: u16 = 0x0001;
const EXPORT_ONLY: u16 = 0xffff;

fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, &parts.concat()).as_ref().try_into().expect("32 bytes")
}

/// The key schedule in base mode with HKDF-SHA256.
struct Schedule {
    suite: Vec<u8>,
}

impl Schedule {
    fn new(kem: u16, aead: u16) -> Self {
        let numbers = [kem, SHA256_KDF, aead].map(u16::to_be_bytes).concat();
        Self { suite: [&b"HPKE"[..], &numbers].concat() }
    }

    /// LabeledExtract, section 4: HKDF's extract is one HMAC.
    fn extract(&self, salt: &[u8], label: &[u8], key: &[u8]) -> [u8; 32] {
        hmac_sha256(salt, &[b"HPKE-v1", &self.suite, label, key])
    }

    /// LabeledExpand, section 4, to 32 bytes: HKDF's expand is then one HMAC, too.
    fn expand(&self, key: &[u8], label: &[u8], info: &[u8]) -> [u8; 32] {
        hmac_sha256(key, &[&32_u16.to_be_bytes(), b"HPKE-v1", &self.suite, label, info, &[1]])
    }

    /// The exporter secret, section 5.1.
    fn exporter(&self, shared: &[u8], info: &[u8]) -> [u8; 32] {
        let no_psk = self.extract(b"", b"psk_id_hash", b"");
        let info = self.extract(b"", b"info_hash", info);
        let context = [&[0][..], &no_psk, &info].concat();
        let secret = self.extract(shared, b"secret", b"");
        self.expand(&secret, b"exp", &context)
    }

    /// Section 5.3.
    fn export(&self, exporter: &[u8], context: &[u8]) -> [u8; 32] {
        self.expand(exporter, b"sec", context)
    }
}

/// Opens what a vector has as its recipient would, and compares all that is exported.
fn check<A: Aead, K: Kem>(row: &Row, kem: u16) {
    let (_, public) = K::derive_keypair(&row.bytes(2));
    let private = K::PrivateKey::from_bytes(&row.bytes(3)).expect("a private key");
    assert_eq!(public.to_bytes().to_vec(), row.bytes(4), "the key that the seed gives");
    assert_eq!(K::sk_to_pk(&private).to_bytes().to_vec(), row.bytes(4));
    let sealed = K::EncappedKey::from_bytes(&row.bytes(5)).expect("an encapsulation");
    let opened =
        hpke::setup_receiver::<A, HkdfSha256, K>(&OpModeR::Base, &private, &sealed, &row.bytes(1))
            .expect("it opens");
    let schedule = Schedule::new(kem, u16::try_from(row.number(0)).expect("small"));
    let exporter = schedule.exporter(&row.bytes(6), &row.bytes(1));
    assert_eq!(exporter.to_vec(), row.bytes(7), "our own schedule");
    let exports: Vec<usize> = (8..row.fields()).step_by(3).collect();
    assert!(exports.len() >= 3);
    for at in exports {
        let (context, length) = (row.bytes(at), row.number(at + 1));
        let mut exported = vec![0; length];
        opened.export(&context, &mut exported).expect("exported");
        assert_eq!(exported, row.bytes(at + 2));
        assert_eq!(schedule.export(&exporter, &context).to_vec(), row.bytes(at + 2));
    }
}

#[test]
fn rfc_9180_base_mode() {
    for row in vectors("hpke_x25519.txt", 2) {
        match row.text(0) {
            "3" => check::<ChaCha20Poly1305, X25519HkdfSha256>(&row, X25519_KEM),
            "65535" => check::<ExportOnlyAead, X25519HkdfSha256>(&row, X25519_KEM),
            other => panic!("no such AEAD here: {other}"),
        }
    }
}

#[test]
fn hpke_with_x_wing() {
    for row in vectors("hpke_x_wing.txt", 1) {
        assert_eq!(row.text(0), "3");
        check::<ChaCha20Poly1305, XWing>(&row, X_WING_KEM);
    }
}

fn prekey(row: &Row) -> PrekeySecret {
    PrekeySecret::from_seed(PrekeyId(7), Zeroizing::new(row.array(2)))
}

fn context() -> SessionContext {
    SessionContext {
        sender: PeerId::from_bytes([1; 32]),
        recipient: PeerId::from_bytes([2; 32]),
        session: SessionId(3),
        prekey: PrekeyId(7),
    }
}

/// The vector's keys through our own functions: the prekey is the one that its seed gives, and the
/// session's secret is what RFC 9180 exports from the shared secret that the vector tells.
#[test]
fn a_session_is_hpke_with_x_wing() {
    let row = &vectors("hpke_x_wing.txt", 1)[0];
    assert_eq!(prekey(row).public().to_vec(), row.bytes(4));
    let context = context();
    let secret = SessionSecret::accept(&prekey(row), &row.bytes(5), &context).expect("accepted");
    let schedule = Schedule::new(X_WING_KEM, EXPORT_ONLY);
    let exporter = schedule.exporter(&row.bytes(6), &context.to_bytes());
    let expected = schedule.export(&exporter, b"distmsg/1 session secret");
    assert_eq!(**secret.as_bytes(), expected);
}

/// ML-KEM rejects implicitly: an encapsulation that was altered gives a secret that nobody else
/// has, so that what was sealed does not open.
#[test]
fn an_altered_encapsulation_gives_a_secret_that_opens_nothing() {
    let row = &vectors("hpke_x_wing.txt", 1)[0];
    let (prekey, context, whole) = (prekey(row), context(), row.bytes(5));
    let accept = |encapsulation: &[u8]| SessionSecret::accept(&prekey, encapsulation, &context);
    let secret = accept(&whole).expect("accepted");
    let mut sealed = b"content".to_vec();
    secret.keys().seal(0, b"", &mut sealed).expect("sealed");
    let refuses = |encapsulation: &[u8], what: &str| {
        let other = accept(encapsulation).expect("any encapsulation yields a secret");
        assert!(other != secret, "{what}");
        assert!(other.keys().open(0, b"", &mut sealed.clone()).is_err(), "{what}");
        assert_ne!(other.keys().receipt(0), secret.keys().receipt(0), "{what}");
    };
    for at in (0..whole.len()).step_by(7).chain([whole.len() - 33, whole.len() - 32]) {
        let mut altered = whole.clone();
        altered[at] ^= 0x40;
        refuses(&altered, &format!("byte {at}"));
    }
    refuses(&vec![0; whole.len()], "zeros");
    refuses(&vec![0xff; whole.len()], "ones");
    for length in [0, 1, whole.len() - 1, whole.len() + 1] {
        let mut other = whole.clone();
        other.resize(length, 0);
        assert!(accept(&other).is_err(), "{length} bytes");
    }
}
