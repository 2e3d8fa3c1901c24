//! Ed25519: Wycheproof's vectors, and what a strict verifier must refuse.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use distmsg::crypto::{Domain, Identity, Signature, verify};
use distmsg::model::PeerId;

use crate::table::vectors;

/// The order of the base point, little endian (RFC 8032 section 5.1).
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

#[test]
fn wycheproof_ed25519() {
    for row in vectors("ed25519.txt", 151) {
        let key = UnparsedPublicKey::new(&ED25519, row.bytes(2));
        let holds = key.verify(&row.bytes(3), &row.bytes(4)).is_ok();
        assert_eq!(holds, row.is_valid(), "test {}", row.text(0));
    }
}

/// A number with another added, both little endian; what does not fit is lost.
fn sum(one: &[u8], other: &[u8; 32]) -> [u8; 32] {
    let mut carry = 0;
    std::array::from_fn(|at| {
        let digit = u16::from(one[at]) + u16::from(other[at]) + carry;
        carry = digit >> 8;
        digit.to_le_bytes()[0]
    })
}

#[test]
fn a_signature_has_one_form() {
    let identity = Identity::from_seed(&[3; 32]);
    let peer = identity.peer();
    let holds = |signature: &Signature| verify(&peer, Domain::Record, &[b"content"], signature);
    let signature = identity.sign(Domain::Record, &[b"content"]);
    assert!(holds(&signature));
    // S is a number below the order: adding the order gives another S for the same point.
    let mut s = signature;
    for _ in 0..15 {
        let more = sum(&s[32..], &ORDER);
        s[32..].copy_from_slice(&more);
        assert!(!holds(&s), "a signature of another form was taken");
    }
    for bit in 0..512 {
        let mut altered = signature;
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(!holds(&altered), "bit {bit} does not matter");
    }
}

/// The y coordinates of the points whose order divides eight, in every encoding.
fn small_points() -> Vec<[u8; 32]> {
    let of = |hex: &str| -> [u8; 32] {
        std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex"))
    };
    let zero = "0".repeat(64);
    let ends = |first: &str| format!("{first}{}7f", "f".repeat(60));
    let texts = [
        zero.clone(),
        format!("01{}", &zero[2..]),
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05".to_owned(),
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a".to_owned(),
        ends("ec"),
        ends("ed"),
        ends("ee"),
    ];
    let negated = |mut point: [u8; 32]| {
        point[31] |= 0x80;
        point
    };
    texts.iter().flat_map(|text| [of(text), negated(of(text))]).collect()
}

/// Under such a key anybody can sign: S of zero, and R one of these points, for one message in
/// eight at least.
#[test]
fn nobody_signs_with_a_key_of_small_order() {
    let points = small_points();
    let mut would_hold = 0;
    for key in &points {
        for r in &points {
            for n in 0..16_u8 {
                let mut signature = [0; 64];
                signature[..32].copy_from_slice(r);
                let peer = PeerId::from_bytes(*key);
                assert!(!verify(&peer, Domain::Opening, &[&[n]], &signature), "{key:?} {r:?}");
                let tagged = [b"distmsg/1 opening\0", &[n][..]].concat();
                let library = UnparsedPublicKey::new(&ED25519, key);
                would_hold += usize::from(library.verify(&tagged, &signature).is_ok());
            }
        }
    }
    // Else this would test nothing: it is not the library that refuses them.
    assert!(would_hold > 100, "only {would_hold} of these signatures would hold");
}
