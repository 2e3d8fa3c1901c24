//! Strategies that make valid values of everything that goes over a link.

use bytes::Bytes;
use proptest::array::{uniform16, uniform32};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::model::limits::{
    CHUNK_BYTES, DIGESTS_MAX, RECORD_ADDRESSES_MAX, RECORD_BYTES_MAX, RECORD_PREKEYS_MAX,
    RECORDS_PER_FRAME_MAX, SEALED_BYTES_MAX, SUBJECT_BYTES_MAX,
};
use crate::model::{
    Address, Incarnation, Name, NetworkId, PeerId, Prekey, PrekeyId, Record, Sequence, SessionId,
    Timestamp,
};
use crate::wire::{
    CloseReason, Digest, Envelope, EnvelopeKey, Find, Flood, Found, Frame, Header, Hello, Item,
    Notice, NoticeKind, Opening, Payload, RejectReason, Tail, VERSION, fit_record,
};

/// Any frame.
pub(super) fn frames() -> impl Strategy<Value = Frame> {
    prop_oneof![
        hellos().prop_map(Frame::Hello),
        (close_reasons(), "\\PC{0,60}")
            .prop_map(|(reason, text)| Frame::Close { reason, text: text.into() }),
        any::<u64>().prop_map(|nonce| Frame::Ping { nonce }),
        any::<u64>().prop_map(|nonce| Frame::Pong { nonce }),
        finds().prop_map(Frame::Find),
        founds().prop_map(Frame::Found),
        envelopes(2_000).prop_map(Frame::Envelope),
        floods().prop_map(Frame::Flood),
        (keys(), reject_reasons()).prop_map(|(key, reason)| Frame::Reject { key, reason }),
        uniform32(any::<u8>()).prop_map(|preimage| Frame::Receipt { preimage }),
        notices().prop_map(Frame::Notice),
        (1..=u32::MAX, option::of(peers()))
            .prop_map(|(exchange, after)| Frame::DigestRequest { exchange, after }),
        (any::<u32>(), any::<bool>(), sizes(DIGESTS_MAX).prop_flat_map(|n| vec(digests(), n)))
            .prop_map(|(exchange, more, digests)| Frame::Digests { exchange, more, digests }),
        vec(peers(), 0..=RECORDS_PER_FRAME_MAX).prop_map(|peers| Frame::RecordRequest { peers }),
        vec(blobs(RECORD_BYTES_MAX), 0..=RECORDS_PER_FRAME_MAX)
            .prop_map(|records| Frame::Records { records }),
    ]
}

pub(super) fn hellos() -> impl Strategy<Value = Hello> {
    let fixed = (any::<u32>(), any::<u64>(), networks(), uniform32(any::<u8>()));
    (fixed, blobs(RECORD_BYTES_MAX)).prop_map(|((features, instance, network, proof), record)| {
        Hello { version: VERSION, features, instance, network, proof, record }
    })
}

pub(super) fn finds() -> impl Strategy<Value = Find> {
    let numbers = (any::<u8>(), any::<bool>(), any::<u64>());
    let rest = (peers(), times(), blobs(RECORD_BYTES_MAX), signatures());
    (numbers, rest).prop_map(|((hops, direct, nonce), (target, expires, record, signature))| {
        let signed = Find::to_sign(direct, nonce, &target, expires, &record);
        Find { hops, direct, nonce, target, expires, record, signed, signature }
    })
}

pub(super) fn founds() -> impl Strategy<Value = Found> {
    let numbers = (any::<u8>(), any::<bool>(), any::<u64>());
    let rest = (peers(), blobs(RECORD_BYTES_MAX), signatures());
    (numbers, rest).prop_map(|((hops, direct, nonce), (origin, record, signature))| {
        let signed = Found::to_sign(direct, &origin, nonce, &record);
        Found { hops, direct, origin, nonce, record, signed, signature }
    })
}

/// One fragment of a flooded envelope.
pub(super) fn floods() -> impl Strategy<Value = Flood> {
    (envelopes(12_000), times(), signatures(), any::<prop::sample::Index>()).prop_map(
        |(envelope, expires, signature, which)| {
            let all = Flood::to_sign(&envelope, expires);
            let frame = Flood::encode(which.get::<Bytes>(&all), &signature);
            match Frame::decode(frame) {
                Ok(Frame::Flood(flood)) => flood,
                other => panic!("a flood was read as {other:?}"),
            }
        },
    )
}

/// Envelopes with a tail of any content, at most this long.
pub(super) fn envelopes(tail_max: usize) -> impl Strategy<Value = Envelope> {
    let tail = (sizes(tail_max - 1), any::<u8>())
        .prop_map(|(length, seed)| pattern(length + 1, seed).to_vec());
    (headers(), 1..=u16::MAX, tail)
        .prop_map(|(header, attempt, tail)| Envelope::new(header, attempt, &tail))
}

pub(super) fn tails() -> impl Strategy<Value = Tail> {
    (option::of(openings()), blobs(SEALED_BYTES_MAX))
        .prop_map(|(opening, sealed)| Tail { opening, sealed })
}

/// Records that fit: the bytes of each say exactly what it says.
pub(super) fn records() -> impl Strategy<Value = Record> {
    any_records().prop_map(|mut record| {
        fit_record(&mut record);
        record
    })
}

/// Records with up to twice as many addresses as fit, some with port 0, and a prekey too many.
pub(super) fn any_records() -> impl Strategy<Value = Record> {
    let fixed = (networks(), peers(), any::<u64>(), times(), option::of(names()));
    let lists = (
        vec(addresses(), 0..=2 * RECORD_ADDRESSES_MAX),
        vec(prekeys(), 0..=RECORD_PREKEYS_MAX + 1),
    );
    (fixed, lists).prop_map(|((network, peer, sequence, expires, name), (addresses, prekeys))| {
        Record { network, peer, sequence, expires, name, addresses, prekeys }
    })
}

/// Payloads small enough for one envelope.
pub(super) fn payloads() -> impl Strategy<Value = Payload> {
    let small = prop_oneof![3 => messages(300), 1 => Just(Item::Ping)];
    let items = prop_oneof![
        3 => vec(small, 0..40),
        1 => vec(messages(CHUNK_BYTES), 1..2),
        1 => vec(chunks(), 1..2),
    ];
    (any::<u64>(), 0..=Sequence::LAST.0, items).prop_map(|(incarnation, floor, items)| Payload {
        incarnation: Incarnation(incarnation),
        floor: Sequence(floor),
        items,
    })
}

/// Any item, valid or too large in one way or another, to fill envelopes with.
pub(super) fn any_items() -> impl Strategy<Value = Item> {
    let subject = option::of("[a-z]{0,10}");
    let odd = (0_u64..3, subject, sizes(SEALED_BYTES_MAX), any::<u8>()).prop_map(
        |(sequence, subject, length, seed)| Item::Message {
            sequence: Sequence(sequence),
            sent: Timestamp::from_millis(1),
            expires: Timestamp::from_millis(2),
            subject: subject.map(|text| text.repeat(30).into()),
            body: pattern(length, seed),
        },
    );
    prop_oneof![Just(Item::Ping), messages(20_000), chunks(), odd]
}

fn messages(body_max: usize) -> impl Strategy<Value = Item> {
    (1..=Sequence::LAST.0, times(), times(), subjects(), blobs(body_max)).prop_map(
        |(sequence, sent, expires, subject, body)| Item::Message {
            sequence: Sequence(sequence),
            sent,
            expires,
            subject,
            body,
        },
    )
}

fn chunks() -> impl Strategy<Value = Item> {
    let place = (CHUNK_BYTES + 1..20 * CHUNK_BYTES, any::<prop::sample::Index>());
    (1..=Sequence::LAST.0, times(), times(), subjects(), place, any::<u8>()).prop_map(
        |(sequence, sent, expires, subject, (total, which), seed)| {
            let index = which.index(total.div_ceil(CHUNK_BYTES));
            let length = CHUNK_BYTES.min(total - index * CHUNK_BYTES);
            Item::Chunk {
                sequence: Sequence(sequence),
                sent,
                expires,
                subject,
                total: total as u64,
                index: u16::try_from(index).expect("20 chunks at most"),
                bytes: pattern(length, seed),
            }
        },
    )
}

fn subjects() -> impl Strategy<Value = Option<Box<str>>> {
    option::of("\\PC{0,60}").prop_map(|text| {
        let text = text?;
        assert!(text.len() <= SUBJECT_BYTES_MAX);
        Some(text.into())
    })
}

fn names() -> impl Strategy<Value = Name> {
    "[a-ce-z0-9é][a-zA-Z0-9é._-]{0,30}".prop_map(|text| text.parse().expect("a name"))
}

fn addresses() -> impl Strategy<Value = Address> {
    let host = prop_oneof![
        any::<std::net::Ipv4Addr>().prop_map(|ip| ip.to_string()),
        any::<std::net::Ipv6Addr>().prop_map(|ip| ip.to_string()),
        "[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\\.[a-z]{1,63}){0,3}",
    ];
    (host, any::<u16>()).prop_map(|(host, port)| Address::new(&host, port).expect("a host"))
}

fn prekeys() -> impl Strategy<Value = Prekey> {
    (any::<u32>(), times(), any::<u8>()).prop_map(|(id, expires, seed)| Prekey {
        id: PrekeyId(id),
        expires,
        public: pattern(Prekey::PUBLIC_LEN, seed),
    })
}

pub(super) fn headers() -> impl Strategy<Value = Header> {
    (peers(), peers(), any::<u64>(), any::<u64>(), uniform32(any::<u8>())).prop_map(
        |(source, destination, session, counter, commitment)| Header {
            source,
            destination,
            session: SessionId(session),
            counter,
            commitment,
        },
    )
}

fn keys() -> impl Strategy<Value = EnvelopeKey> {
    (headers(), any::<u16>()).prop_map(|(header, attempt)| header.key(attempt))
}

fn openings() -> impl Strategy<Value = Opening> {
    (any::<u32>(), any::<u8>(), signatures()).prop_map(|(prekey, seed, signature)| Opening {
        prekey: PrekeyId(prekey),
        encapsulation: pattern(1_120, seed),
        signature,
    })
}

fn notices() -> impl Strategy<Value = Notice> {
    let kinds =
        prop::sample::select(vec![NoticeKind::Reset, NoticeKind::Full, NoticeKind::TooLarge]);
    (kinds, uniform32(any::<u8>()), signatures()).prop_map(|(kind, commitment, signature)| Notice {
        kind,
        commitment,
        signature,
    })
}

fn digests() -> impl Strategy<Value = Digest> {
    (peers(), any::<u64>()).prop_map(|(peer, sequence)| Digest { peer, sequence })
}

fn reject_reasons() -> impl Strategy<Value = RejectReason> {
    use RejectReason::{Congested, Loop, NoRoute};
    prop::sample::select(vec![NoRoute, Loop, Congested])
}

fn close_reasons() -> impl Strategy<Value = CloseReason> {
    use CloseReason as R;
    prop::sample::select(vec![
        R::Stopping,
        R::Duplicate,
        R::Network,
        R::Version,
        R::Protocol,
        R::Busy,
        R::Operator,
        R::Myself,
        R::Silent,
        R::Probe,
    ])
}

fn peers() -> impl Strategy<Value = PeerId> {
    uniform32(any::<u8>()).prop_map(PeerId::from_bytes)
}

fn networks() -> impl Strategy<Value = NetworkId> {
    uniform16(any::<u8>()).prop_map(NetworkId::from_bytes)
}

fn times() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp::from_millis)
}

fn signatures() -> impl Strategy<Value = [u8; 64]> {
    (uniform32(any::<u8>()), uniform32(any::<u8>())).prop_map(|(a, b)| {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&a);
        signature[32..].copy_from_slice(&b);
        signature
    })
}

/// Bytes that tell their places apart.
fn blobs(max: usize) -> impl Strategy<Value = Bytes> {
    (sizes(max), any::<u8>()).prop_map(|(length, seed)| pattern(length, seed))
}

/// Small numbers mostly, and the largest allowed every now and then.
fn sizes(max: usize) -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0..=max.min(50), 2 => 0..=max, 1 => Just(max)]
}

/// Bytes of this length. The period is a prime, so that pieces are not alike.
pub(super) fn pattern(length: usize, seed: u8) -> Bytes {
    (0..length).map(|at| ((at % 251) as u8).wrapping_add(seed)).collect()
}
