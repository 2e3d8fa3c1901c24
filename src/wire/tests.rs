//! What holds for all bytes and all values, not only for those that somebody thought of.

mod values;

use bytes::{BufMut as _, Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

use self::values::{
    any_items, any_records, envelopes, finds, floods, founds, frames, headers, hellos, pattern,
    payloads, records, tails,
};
use super::*;
use crate::model::limits::{
    CHUNK_BYTES, DIGESTS_MAX, FLOOD_BYTES_MAX, FRAME_BYTES_MAX, ITEMS_MAX, REASON_BYTES_MAX,
    RECORD_ADDRESSES_MAX, RECORD_BYTES_MAX, RECORDS_PER_FRAME_MAX, SEALED_BYTES_MAX,
    SUBJECT_BYTES_MAX,
};
use crate::model::{
    Address, Incarnation, NetworkId, PeerId, Prekey, PrekeyId, Record, Sequence, SessionId,
    Timestamp,
};

const SIGNATURE: [u8; 64] = [0x5a; 64];

proptest! {
    #[test]
    fn a_frame_is_read_back_as_it_was_written(frame in frames()) {
        let bytes = frame.encode();
        prop_assert!(bytes.len() <= FRAME_BYTES_MAX);
        let read = Frame::decode(bytes.clone());
        prop_assert_eq!(read.as_ref(), Ok(&frame));
        prop_assert_eq!(read.map(|frame| frame.encode()), Ok(bytes));
    }

    #[test]
    fn a_frame_cut_short_is_another_frame_at_most_in_its_open_end(
        frame in frames(),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = frame.encode();
        check_cut(&frame, bytes.slice(..cut.index(bytes.len())))?;
    }

    #[test]
    fn a_frame_with_a_byte_too_many_is_refused(frame in frames(), extra in any::<u8>()) {
        let mut bytes = frame.encode().to_vec();
        bytes.push(extra);
        match (Frame::decode(bytes.clone().into()), has_open_end(&frame)) {
            (Ok(read), true) => prop_assert_eq!(read.encode(), bytes),
            (Ok(read), false) => prop_assert!(false, "read as {read:?}"),
            (Err(_), _) => {}
        }
    }

    #[test]
    fn random_bytes_are_refused_or_have_one_form(bytes in vec(any::<u8>(), 0..600)) {
        check_anything(bytes)?;
    }

    #[test]
    fn random_bytes_behind_a_known_tag_are_refused_or_have_one_form(
        kind in prop::sample::select(&KINDS[..]),
        version in prop::bool::weighted(0.8),
        bytes in vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..300),
    ) {
        let mut frame = vec![kind];
        if version {
            frame.push(VERSION);
        }
        frame.extend(bytes);
        check_anything(frame)?;
    }

    #[test]
    fn flipped_bits_are_refused_or_have_one_form(
        frame in frames(),
        flips in vec((any::<prop::sample::Index>(), 0_u8..8), 1..4),
    ) {
        let mut bytes = frame.encode().to_vec();
        for (at, bit) in flips {
            // Half of them near the front, where lengths and counts stand.
            let length = if bit % 2 == 0 { bytes.len() } else { bytes.len().min(12) };
            bytes[at.index(length)] ^= 1 << bit;
        }
        check_anything(bytes)?;
    }

    #[test]
    fn a_record_is_read_back_as_it_was_written(record in records()) {
        let bytes = record_with_signature(encode_record(&record), &SIGNATURE);
        prop_assert!(bytes.len() <= RECORD_BYTES_MAX);
        let read = decode_record(bytes.clone());
        prop_assert!(read.is_ok(), "{read:?}");
        let read = read.expect("just checked");
        prop_assert_eq!(&read.record, &record);
        prop_assert_eq!((&read.bytes, read.signature), (&bytes, SIGNATURE));
        prop_assert_eq!(&*read.signed, encode_record(&read.record));
    }

    #[test]
    fn whatever_a_record_says_its_bytes_are_a_record(record in any_records()) {
        let bytes = record_with_signature(encode_record(&record), &SIGNATURE);
        let mut fitted = record.clone();
        fit_record(&mut fitted);
        prop_assert_eq!(decode_record(bytes).map(|read| read.record), Ok(fitted.clone()));
        let expected: Vec<_> =
            record.addresses.iter().filter(|a| a.port() != 0).take(RECORD_ADDRESSES_MAX).collect();
        let short = record.addresses.iter().all(|a| a.host().len() <= 100);
        if short {
            prop_assert_eq!(fitted.addresses.iter().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_record_cut_short_or_longer_is_refused(
        record in records(),
        cut in any::<prop::sample::Index>(),
        extra in any::<u8>(),
    ) {
        let bytes = record_with_signature(encode_record(&record), &SIGNATURE);
        prop_assert!(decode_record(bytes.slice(..cut.index(bytes.len()))).is_err());
        prop_assert!(decode_record([&bytes[..], &[extra]].concat().into()).is_err());
    }

    #[test]
    fn altered_records_are_refused_or_have_one_form(
        record in records(),
        flips in vec((any::<prop::sample::Index>(), 0_u8..8), 1..4),
    ) {
        let mut bytes = record_with_signature(encode_record(&record), &SIGNATURE).to_vec();
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        if let Ok(read) = decode_record(bytes.clone().into()) {
            let again = record_with_signature(encode_record(&read.record), &read.signature);
            prop_assert_eq!(again, bytes);
        }
    }

    #[test]
    fn a_tail_is_read_back_as_it_was_written(tail in tails()) {
        let bytes = Bytes::from(Tail::encode(tail.opening.as_ref(), &tail.sealed));
        prop_assert!(bytes.len() <= Tail::BYTES_MAX);
        prop_assert_eq!(Tail::decode(bytes), Ok(tail));
    }

    #[test]
    fn any_tail_is_refused_or_has_one_form(first in 0_u8..3, rest in vec(any::<u8>(), 0..1_300)) {
        let bytes = [&[first][..], &rest].concat();
        if let Ok(tail) = Tail::decode(bytes.clone().into()) {
            prop_assert_eq!(Tail::encode(tail.opening.as_ref(), &tail.sealed), bytes);
        }
    }

    #[test]
    fn a_payload_is_read_back_as_it_was_written(payload in payloads()) {
        let bytes = written(&payload).expect("it fits");
        prop_assert!(bytes.len() <= SEALED_BYTES_MAX - 16);
        prop_assert_eq!(Payload::decode(bytes), Ok(payload));
    }

    #[test]
    fn a_payload_cut_short_or_longer_is_refused(
        payload in payloads(),
        cut in any::<prop::sample::Index>(),
        extra in any::<u8>(),
    ) {
        let bytes = written(&payload).expect("it fits");
        prop_assert!(Payload::decode(bytes.slice(..cut.index(bytes.len()))).is_err());
        prop_assert!(Payload::decode([&bytes[..], &[extra]].concat().into()).is_err());
    }

    #[test]
    fn altered_payloads_are_refused_or_have_one_form(
        payload in payloads(),
        flips in vec((any::<prop::sample::Index>(), 0_u8..8), 1..4),
    ) {
        let mut bytes = written(&payload).expect("it fits").to_vec();
        for (at, bit) in flips {
            let length = if bit % 2 == 0 { bytes.len() } else { bytes.len().min(80) };
            bytes[at.index(length)] ^= 1 << bit;
        }
        if let Ok(read) = Payload::decode(bytes.clone().into()) {
            prop_assert_eq!(written(&read), Some(bytes.into()));
        }
    }

    #[test]
    fn a_payload_takes_what_fits_and_nothing_else(items in vec(any_items(), 0..30)) {
        let mut writer = PayloadWriter::new(Incarnation(1), Sequence(2));
        let mut taken = Vec::new();
        for item in items {
            let before = writer.len();
            if writer.push(&item) {
                prop_assert!(writer.len() > before);
                taken.push(item);
            } else {
                prop_assert_eq!(writer.len(), before);
            }
        }
        prop_assert_eq!(writer.is_empty(), taken.is_empty());
        let length = writer.len();
        let bytes = Bytes::from(writer.finish());
        prop_assert_eq!(bytes.len(), length);
        prop_assert!(length <= SEALED_BYTES_MAX - 16);
        prop_assert_eq!(Payload::decode(bytes).map(|payload| payload.items), Ok(taken));
    }

    #[test]
    fn fragments_cover_the_whole_tail_and_come_together_again(
        envelope in envelopes(Tail::BYTES_MAX),
        expires in any::<u64>().prop_map(Timestamp::from_millis),
    ) {
        let all = Flood::to_sign(&envelope, expires);
        let mut tail = Vec::new();
        for (at, signed) in all.iter().enumerate() {
            let frame = Flood::encode(signed, &SIGNATURE);
            prop_assert!(frame.len() <= FLOOD_BYTES_MAX);
            let read = Frame::decode(frame.clone());
            prop_assert!(matches!(&read, Ok(Frame::Flood(_))), "{read:?}");
            let Ok(Frame::Flood(flood)) = read else { unreachable!() };
            prop_assert_eq!((usize::from(flood.fragment), usize::from(flood.fragments)),
                (at, all.len()));
            prop_assert_eq!((flood.header, flood.attempt), (envelope.header, envelope.attempt));
            prop_assert_eq!((flood.expires, &flood.signed), (expires, signed));
            prop_assert_eq!((flood.signature, &flood.encoded), (SIGNATURE, &frame));
            // What is signed ends with the fragment: nothing of the tail is left unsigned.
            prop_assert!(signed.ends_with(&flood.part));
            tail.extend_from_slice(&flood.part);
        }
        prop_assert_eq!(Envelope::new(envelope.header, envelope.attempt, &tail), envelope);
    }

    #[test]
    fn another_attempt_changes_the_attempt_and_nothing_else(
        envelope in envelopes(500),
        attempt in 1..=u16::MAX,
    ) {
        let again = envelope.with_attempt(attempt);
        prop_assert_eq!(&again, &Envelope::new(envelope.header, attempt, &envelope.tail));
        prop_assert_eq!(again.key(), envelope.header.key(attempt));
        prop_assert_eq!(again.header.aad(), envelope.header.aad());
    }

    #[test]
    fn what_a_seal_or_notice_binds_differs_with_every_field(a in headers(), b in headers()) {
        prop_assert_eq!(a == b, a.aad() == b.aad());
        let (reset, full) = (NoticeKind::Reset, NoticeKind::Full);
        prop_assert_ne!(Notice::to_sign(reset, &a), Notice::to_sign(full, &a));
        prop_assert_eq!(a == b, Notice::to_sign(reset, &a) == Notice::to_sign(reset, &b));
    }

    #[test]
    fn frames_come_out_of_a_stream_whole_however_it_is_cut(
        frames in vec(frames(), 0..6),
        cuts in vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let frames: Vec<_> = frames.iter().map(Frame::encode).collect();
        let mut stream = Vec::new();
        for frame in &frames {
            stream.put_u32(frame.len() as u32);
            stream.put_slice(frame);
        }
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.push(stream.len());
        cuts.sort_unstable();
        let (mut read, mut out, mut from) = (BytesMut::new(), Vec::new(), 0);
        for to in cuts {
            read.extend_from_slice(&stream[from..to]);
            from = to;
            while let Some(frame) = split_frames(&mut read).expect("valid") {
                out.push(frame);
            }
        }
        prop_assert!(read.is_empty());
        prop_assert_eq!(out, frames);
    }
}

/// All frame tags, and two that are none.
const KINDS: [u8; 17] = [
    0x01, 0x02, 0x10, 0x11, 0x20, 0x21, 0x30, 0x31, 0x32, 0x33, 0x34, 0x40, 0x41, 0x42, 0x43, 0x00,
    0x44,
];

/// Bytes are no frame, or they are exactly the frame that they are read as.
fn check_anything(bytes: Vec<u8>) -> Result<(), TestCaseError> {
    if let Ok(frame) = Frame::decode(bytes.clone().into()) {
        prop_assert_eq!(frame.encode(), bytes);
    }
    Ok(())
}

/// Whether a frame's last field goes on to the frame's end. The link's length prefix says where
/// that is, and a signature or seal over the field notices when it lies.
fn has_open_end(frame: &Frame) -> bool {
    matches!(frame, Frame::Hello(_) | Frame::Envelope(_) | Frame::Flood(_))
}

fn check_cut(whole: &Frame, bytes: Bytes) -> Result<(), TestCaseError> {
    match (Frame::decode(bytes.clone()), whole) {
        (Err(_), _) => {}
        (Ok(Frame::Hello(cut)), Frame::Hello(whole)) => {
            prop_assert!(cut.record.len() < whole.record.len());
            prop_assert_eq!(cut.encode(), bytes);
        }
        (Ok(Frame::Envelope(cut)), Frame::Envelope(whole)) => {
            prop_assert_eq!((cut.header, cut.attempt), (whole.header, whole.attempt));
            prop_assert!(cut.tail.len() < whole.tail.len());
            prop_assert_eq!(cut.encoded, bytes);
        }
        (Ok(Frame::Flood(cut)), Frame::Flood(whole)) => {
            prop_assert!(cut.signed.len() < whole.signed.len());
            prop_assert_eq!(cut.encoded, bytes);
        }
        (Ok(read), _) => prop_assert!(false, "read as {read:?}"),
    }
    Ok(())
}

/// The payload as bytes, if it can be written.
fn written(payload: &Payload) -> Option<Bytes> {
    let mut writer = PayloadWriter::new(payload.incarnation, payload.floor);
    payload.items.iter().all(|item| writer.push(item)).then(|| writer.finish().into())
}

fn peer(byte: u8) -> PeerId {
    PeerId::from_bytes([byte; 32])
}

fn header() -> Header {
    Header {
        source: peer(1),
        destination: peer(2),
        session: SessionId(3),
        counter: 4,
        commitment: [5; 32],
    }
}

fn message(sequence: u64, body: usize) -> Item {
    Item::Message {
        sequence: Sequence(sequence),
        sent: Timestamp::from_millis(1),
        expires: Timestamp::from_millis(2),
        subject: None,
        body: pattern(body, 0),
    }
}

fn chunk(total: usize, index: u16, length: usize) -> Item {
    Item::Chunk {
        sequence: Sequence(1),
        sent: Timestamp::from_millis(1),
        expires: Timestamp::from_millis(2),
        subject: None,
        total: total as u64,
        index,
        bytes: pattern(length, 0),
    }
}

fn record(addresses: Vec<Address>, prekeys: usize) -> Record {
    let prekey = |id| Prekey {
        id: PrekeyId(id),
        expires: Timestamp::from_millis(9),
        public: pattern(Prekey::PUBLIC_LEN, 0),
    };
    Record {
        network: NetworkId::OPEN,
        peer: peer(1),
        sequence: 7,
        expires: Timestamp::from_millis(8),
        name: Some("x".repeat(64).parse().expect("a name")),
        addresses,
        prekeys: (0..prekeys as u32).map(prekey).collect(),
    }
}

/// A host name of 253 bytes.
fn long_host() -> String {
    [63, 63, 63, 61].map(|length| "h".repeat(length)).join(".")
}

/// One small frame of each kind, for tests that try every place.
fn samples() -> Vec<Frame> {
    let find = Find::to_sign(true, 1, &peer(2), Timestamp::from_millis(3), b"record");
    let found = Found::to_sign(false, &peer(2), 1, b"record");
    let envelope = Envelope::new(header(), 1, b"tail");
    let decoded = |bytes| Frame::decode(bytes).expect("valid");
    vec![
        Frame::Hello(Hello {
            version: VERSION,
            features: 1,
            instance: 2,
            network: NetworkId::OPEN,
            proof: [0; 32],
            record: Bytes::from_static(b"record"),
        }),
        Frame::Close { reason: CloseReason::Busy, text: "busÿ".into() },
        Frame::Ping { nonce: 1 },
        Frame::Pong { nonce: 1 },
        decoded(Find::encode(&find, &SIGNATURE, 3)),
        decoded(Found::encode(&found, &SIGNATURE, 3)),
        decoded(Flood::encode(
            &Flood::to_sign(&envelope, Timestamp::from_millis(3))[0],
            &SIGNATURE,
        )),
        Frame::Envelope(envelope),
        Frame::Reject { key: header().key(1), reason: RejectReason::Loop },
        Frame::Receipt { preimage: [1; 32] },
        Frame::Notice(Notice { kind: NoticeKind::Full, commitment: [1; 32], signature: SIGNATURE }),
        Frame::DigestRequest { exchange: 1, after: None },
        Frame::DigestRequest { exchange: 1, after: Some(peer(1)) },
        Frame::Digests {
            exchange: 0,
            more: true,
            digests: vec![Digest { peer: peer(1), sequence: 1 }; 2],
        },
        Frame::RecordRequest { peers: vec![peer(1), peer(2)] },
        Frame::Records { records: vec![Bytes::from_static(b"a"), Bytes::new()] },
    ]
}

#[test]
fn the_samples_have_every_kind() {
    let mut kinds: Vec<_> = samples().iter().map(|frame| frame.encode()[0]).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut known = KINDS[..15].to_vec();
    known.sort_unstable();
    assert_eq!(kinds, known);
}

#[test]
fn every_cut_of_every_kind_of_frame_is_checked() {
    for frame in samples() {
        let bytes = frame.encode();
        for to in 0..bytes.len() {
            check_cut(&frame, bytes.slice(..to)).unwrap_or_else(|e| panic!("{frame:?}: {e}"));
        }
        assert_eq!(Frame::decode(bytes), Ok(frame));
    }
}

#[test]
fn every_extension_of_every_kind_of_frame_is_checked() {
    for frame in samples().into_iter().filter(|frame| !has_open_end(frame)) {
        for extra in 0..=u8::MAX {
            let bytes = [&frame.encode()[..], &[extra]].concat();
            assert!(Frame::decode(bytes.into()).is_err(), "{frame:?} with {extra}");
        }
    }
}

#[test]
fn every_value_of_every_byte_is_refused_or_has_one_form() {
    for frame in samples() {
        let bytes = frame.encode().to_vec();
        for at in 0..bytes.len() {
            for value in 0..=u8::MAX {
                let mut altered = bytes.clone();
                altered[at] = value;
                check_anything(altered).unwrap_or_else(|e| panic!("{frame:?} at {at}: {e}"));
            }
        }
    }
}

#[test]
fn another_version_is_told_from_garbage() {
    let mut other = samples()[0].encode().to_vec();
    other[1] = VERSION + 1;
    assert_eq!(Frame::decode(other.into()), Err(WireError::Version(VERSION + 1)));
}

#[test]
fn counts_and_lengths_over_their_limits_are_refused_before_anything_is_read() {
    let over = |max: usize| u16::try_from(max + 1).expect("16 bits").to_be_bytes();
    for (name, bytes) in [
        ("digests", [&[0x41, 0, 0, 0, 1, 0][..], &over(DIGESTS_MAX)].concat()),
        ("peers", [&[0x42][..], &over(RECORDS_PER_FRAME_MAX)].concat()),
        ("records", [&[0x43][..], &over(RECORDS_PER_FRAME_MAX)].concat()),
        ("record", [&[0x43, 0, 1][..], &over(RECORD_BYTES_MAX)].concat()),
        ("find", [&[0x20][..], &[0; FLOOD_BYTES_MAX]].concat()),
        ("flood", [&[0x31][..], &[0; FLOOD_BYTES_MAX]].concat()),
        ("frame", vec![0x30; FRAME_BYTES_MAX + 1]),
        ("hello", {
            let mut hello = samples()[0].encode().to_vec();
            hello.resize(hello.len() - 6 + RECORD_BYTES_MAX + 1, 0);
            hello
        }),
        ("envelope", {
            let tail = vec![0; Tail::BYTES_MAX + 1];
            Envelope::new(header(), 1, &tail).encoded.to_vec()
        }),
    ] {
        let read = Frame::decode(bytes.into());
        assert!(matches!(read, Err(WireError::TooLarge(_))), "{name}: {read:?}");
    }
    let sealed = vec![0; 1 + SEALED_BYTES_MAX + 1];
    assert_eq!(Tail::decode(sealed.into()), Err(WireError::TooLarge("sealed body")));
    let record = vec![VERSION; RECORD_BYTES_MAX + 1];
    assert_eq!(decode_record(record.into()), Err(WireError::TooLarge("record")));
}

#[test]
fn what_means_nothing_is_refused() {
    let no_attempt = Envelope::new(header(), 0, b"tail").encoded;
    assert_eq!(Frame::decode(no_attempt), Err(WireError::Invalid("attempt")));
    let no_tail = Envelope::new(header(), 1, b"").encoded;
    assert_eq!(Frame::decode(no_tail), Err(WireError::Truncated("envelope")));
    let unasked = Frame::DigestRequest { exchange: 0, after: None }.encode();
    assert_eq!(Frame::decode(unasked), Err(WireError::Invalid("exchange")));
    assert_eq!(Frame::decode(Bytes::new()), Err(WireError::Truncated("frame")));
    assert_eq!(Frame::decode(vec![0xff].into()), Err(WireError::Invalid("frame type")));
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let text = "ü".repeat(REASON_BYTES_MAX);
    let frame = Frame::Close { reason: CloseReason::Protocol, text: text.into() };
    let expected = "ü".repeat(REASON_BYTES_MAX / 2).into();
    let read = Frame::decode(frame.encode());
    assert_eq!(read, Ok(Frame::Close { reason: CloseReason::Protocol, text: expected }));
}

#[test]
fn a_find_with_the_largest_record_is_small_enough_to_be_flooded() {
    let record = vec![1; RECORD_BYTES_MAX];
    let find = Find::to_sign(true, 1, &peer(2), Timestamp::from_millis(3), &record);
    let find = Find::encode(&find, &SIGNATURE, 9);
    let found = Found::to_sign(true, &peer(2), 1, &record);
    let found = Found::encode(&found, &SIGNATURE, 9);
    for frame in [find, found] {
        assert!(frame.len() <= FLOOD_BYTES_MAX, "{} bytes", frame.len());
        assert!(Frame::decode(frame).is_ok());
    }
}

#[test]
fn of_eight_addresses_with_the_longest_hosts_as_many_stay_as_fit() {
    let host = long_host();
    assert_eq!(host.len(), 253);
    let long = |port| Address::new(&host, port).expect("a host");
    let mut all: Vec<_> = (1..=8).map(long).collect();
    let mut fitted = record(all.clone(), 2);
    fit_record(&mut fitted);
    assert_eq!(fitted.addresses, all[..4], "the first stay");
    assert_eq!(fitted.prekeys.len(), 2);
    // A short one behind them still has room.
    all[7] = Address::new("192.0.2.7", 3000).expect("a host");
    let bytes = record_with_signature(encode_record(&record(all.clone(), 2)), &SIGNATURE);
    assert!(bytes.len() <= RECORD_BYTES_MAX);
    let read = decode_record(bytes).expect("a record");
    assert_eq!(read.record.addresses, [&all[..4], &all[7..]].concat());
}

#[test]
fn eight_ordinary_addresses_all_stay() {
    let all: Vec<_> = (0..8)
        .map(|n| Address::new(&format!("node-{n}.some-company.example.org"), 3000).expect("a host"))
        .collect();
    let bytes = record_with_signature(encode_record(&record(all.clone(), 2)), &SIGNATURE);
    assert_eq!(decode_record(bytes).map(|read| read.record.addresses), Ok(all));
}

#[test]
fn addresses_that_are_not_in_their_one_form_are_refused() {
    let encoded = |host: &str, port: u16| {
        let mut bytes = encode_record(&record(Vec::new(), 0));
        // The last two bytes are the counts of addresses and prekeys.
        bytes.truncate(bytes.len() - 2);
        bytes.put_slice(&[1, host.len() as u8]);
        bytes.put_slice(host.as_bytes());
        bytes.put_u16(port);
        bytes.put_u8(0);
        decode_record(record_with_signature(bytes, &SIGNATURE)).map(|read| read.record)
    };
    assert!(encoded("example.org", 1).is_ok());
    for (host, port) in
        [("Example.org", 1), ("2001:DB8::1", 1), ("::0", 1), ("a b", 1), ("", 1), ("a", 0)]
    {
        assert_eq!(encoded(host, port), Err(WireError::Invalid("address")), "{host:?} {port}");
    }
}

#[test]
fn a_record_keeps_no_frame_alive() {
    let bytes = record_with_signature(encode_record(&record(Vec::new(), 1)), &SIGNATURE);
    let read = decode_record(bytes.clone()).expect("a record");
    assert_eq!(read.bytes, bytes);
    assert!(bytes.is_unique(), "the record shares the memory it was read from");
}

#[test]
fn a_frame_keeps_no_read_buffer_alive() {
    let mut read = BytesMut::with_capacity(4_096);
    read.extend_from_slice(&[0, 0, 0, 1, 7, 0, 0, 0, 2, 8]);
    let first = split_frames(&mut read).expect("valid").expect("whole");
    assert_eq!((&first[..], read.len()), (&[7][..], 5));
    assert!(read.try_reclaim(4_096 - 5), "the frame shares the read buffer");
    assert_eq!(split_frames(&mut read), Ok(None));
}

#[test]
fn a_stream_with_an_empty_or_oversize_frame_is_of_no_use() {
    let split = |prefix: u32| split_frames(&mut BytesMut::from(&prefix.to_be_bytes()[..]));
    assert_eq!(split(0), Err(WireError::Truncated("frame")));
    assert_eq!(split(FRAME_BYTES_MAX as u32), Ok(None));
    assert_eq!(split(FRAME_BYTES_MAX as u32 + 1), Err(WireError::TooLarge("frame")));
    assert_eq!(split(u32::MAX), Err(WireError::TooLarge("frame")));
}

#[test]
fn a_payload_has_room_for_so_many_items_and_no_more() {
    let mut writer = PayloadWriter::new(Incarnation(1), Sequence(1));
    for _ in 0..ITEMS_MAX {
        assert!(writer.push(&Item::Ping));
    }
    assert!(!writer.push(&Item::Ping));
    let bytes = writer.finish();
    assert_eq!(Payload::decode(bytes.into()).map(|p| p.items.len()), Ok(ITEMS_MAX));
}

#[test]
fn items_that_nobody_would_read_are_not_sealed() {
    let with_subject = |length| match message(1, 0) {
        Item::Message { sequence, sent, expires, body, .. } => {
            let subject = Some("s".repeat(length).into());
            Item::Message { sequence, sent, expires, subject, body }
        }
        other => other,
    };
    let last = 2 * CHUNK_BYTES + 1;
    for (taken, item) in [
        (true, message(1, CHUNK_BYTES)),
        (false, message(1, CHUNK_BYTES + 1)),
        (false, message(0, 1)),
        (true, with_subject(SUBJECT_BYTES_MAX)),
        (false, with_subject(SUBJECT_BYTES_MAX + 1)),
        (false, with_subject(usize::from(u16::MAX))),
        (true, chunk(last, 0, CHUNK_BYTES)),
        (true, chunk(last, 2, 1)),
        (false, chunk(last, 2, 2)),
        (false, chunk(last, 3, 0)),
        (false, chunk(last, 0, CHUNK_BYTES - 1)),
        (false, chunk(CHUNK_BYTES, 0, CHUNK_BYTES)),
        (false, chunk(usize::MAX, 0, CHUNK_BYTES)),
    ] {
        let mut writer = PayloadWriter::new(Incarnation(1), Sequence(1));
        assert_eq!(writer.push(&item), taken, "{item:.80?}");
        let items = if taken { vec![item] } else { Vec::new() };
        assert_eq!(Payload::decode(writer.finish().into()).map(|p| p.items), Ok(items));
    }
}

#[test]
fn the_largest_chunk_fits_with_the_longest_subject() {
    let Item::Chunk { sequence, sent, expires, total, index, bytes, .. } =
        chunk(2 * CHUNK_BYTES, 0, CHUNK_BYTES)
    else {
        unreachable!()
    };
    let subject = Some("s".repeat(SUBJECT_BYTES_MAX).into());
    let item = Item::Chunk { sequence, sent, expires, subject, total, index, bytes };
    let mut writer = PayloadWriter::new(Incarnation(1), Sequence(1));
    assert!(writer.push(&item));
}

#[test]
fn fragments_that_make_no_envelope_are_refused() {
    let envelope = Envelope::new(header(), 1, &pattern(Tail::BYTES_MAX, 0));
    let all = Flood::to_sign(&envelope, Timestamp::from_millis(1));
    let count = u8::try_from(all.len()).expect("few");
    // Where the numbers stand in what is signed: after version, header and attempt.
    let (at, of) = (1 + 112 + 2, 1 + 112 + 3);
    let altered = |signed: &Bytes, change: &dyn Fn(&mut Vec<u8>)| {
        let mut signed = signed.to_vec();
        change(&mut signed);
        Frame::decode(Flood::encode(&signed, &SIGNATURE)).map(|_| ())
    };
    let refused = Err(WireError::Invalid("fragment"));
    let (first, last) = (&all[0], &all[all.len() - 1]);
    assert_eq!(altered(first, &|_| {}), Ok(()));
    assert_eq!(altered(first, &|s| s[at - 1] = 0), refused, "attempt 0");
    assert_eq!(altered(first, &|s| s[at] = count), refused, "beyond the last");
    assert_eq!(altered(first, &|s| s[of] = 0), refused, "of none");
    assert_eq!(altered(first, &|s| s[of] = count + 1), refused, "of more than any has");
    assert_eq!(altered(first, &|s| s.truncate(s.len() - 1)), refused, "a short one inside");
    assert_eq!(altered(first, &|s| s.push(0)), refused, "longer than fragments are");
    assert_eq!(altered(last, &|s| s.push(0)), refused, "more than a tail may have");
    assert_eq!(altered(last, &|s| s.truncate(of + 1 + 8)), refused, "nothing in it");
}

#[test]
fn the_opening_has_room_for_what_crypto_puts_in_it() {
    assert_eq!(OPENING_LEN, 4 + crate::crypto::ENCAPSULATION_LEN + 64);
    let opening = Opening {
        prekey: PrekeyId(1),
        encapsulation: pattern(crate::crypto::ENCAPSULATION_LEN, 0),
        signature: SIGNATURE,
    };
    let bytes = Tail::encode(Some(&opening), &pattern(SEALED_BYTES_MAX, 0));
    assert_eq!(bytes.len(), Tail::BYTES_MAX);
    let tail = Tail::decode(bytes.into()).expect("a tail");
    assert_eq!(tail.opening, Some(opening));
}

proptest! {
    // The large ones on their own: `frames` picks each kind too rarely.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hellos_finds_founds_and_floods_are_read_back(
        hello in hellos(), find in finds(), found in founds(), flood in floods(),
    ) {
        for frame in
            [Frame::Hello(hello), Frame::Find(find), Frame::Found(found), Frame::Flood(flood)]
        {
            prop_assert_eq!(Frame::decode(frame.encode()), Ok(frame));
        }
    }
}

#[test]
fn numbers_end_before_counting_does() {
    let last = Sequence::LAST.0;
    let written = |floor, item: Item| {
        let mut writer = PayloadWriter::new(Incarnation(1), Sequence(floor));
        writer.push(&item).then(|| Bytes::from(writer.finish()))
    };
    let good = written(last, message(last, 3)).expect("the last number is one");
    assert!(Payload::decode(good.clone()).is_ok());
    assert!(written(1, message(last + 1, 3)).is_none(), "and the next is none");
    // The floor stands at 8, the only message's number at 19.
    for at in [8, 19] {
        let mut bytes = good.to_vec();
        bytes[at..at + 8].copy_from_slice(&(last + 1).to_be_bytes());
        assert!(Payload::decode(bytes.into()).is_err(), "at {at}");
    }
}
