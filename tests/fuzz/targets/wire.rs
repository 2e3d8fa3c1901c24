//! Bytes from a neighbour: what can be read has one form, and is written as it was read.

use bytes::{Bytes, BytesMut};
use distmsg::model::limits::FLOOD_BYTES_MAX;
use distmsg::wire::{
    Envelope, Find, Flood, Found, Frame, Payload, PayloadWriter, Tail, VERSION, decode_record,
    encode_record, fit_record, record_with_signature, split_frames,
};

const HELLO: u8 = 0x01;
const FIND: u8 = 0x20;
const FOUND: u8 = 0x21;
const ENVELOPE: u8 = 0x30;
const FLOOD: u8 = 0x31;

/// Bytes of the tag that sealing adds.
const TAG_LEN: usize = 16;

/// A frame, and the same bytes as what a link has read.
pub(crate) fn frame(input: &[u8]) {
    one_form(Bytes::copy_from_slice(input));
    let mut read = BytesMut::from(input);
    let mut taken = 0;
    while let Ok(Some(frame)) = split_frames(&mut read) {
        assert_eq!(frame, input[taken + 4..taken + 4 + frame.len()], "cut elsewhere");
        taken += 4 + frame.len();
        assert_eq!(read, input[taken..], "what follows is not what followed");
        one_form(frame);
    }
}

/// An envelope without its first two bytes, with everything in it.
pub(crate) fn envelope(input: &[u8]) {
    let bytes = [&[ENVELOPE, VERSION], input].concat();
    let Some(Frame::Envelope(envelope)) = one_form(bytes.into()) else { return };
    let again = envelope.with_attempt(u16::MAX);
    let expected = Envelope { attempt: u16::MAX, encoded: again.encoded.clone(), ..envelope };
    assert_eq!(again, expected);
    assert_eq!(one_form(again.encoded.clone()), Some(Frame::Envelope(again.clone())));
    flood_of(&again);
    if let Ok(tail) = Tail::decode(again.tail.clone()) {
        assert_eq!(Tail::encode(tail.opening.as_ref(), &tail.sealed), again.tail);
        let content = tail.sealed.len().saturating_sub(TAG_LEN);
        payload(tail.sealed.slice(..content));
    }
}

/// Every fragment of a flooded envelope is a frame, and together they are the envelope.
fn flood_of(envelope: &Envelope) {
    let expires = distmsg::model::Timestamp::from_millis(u64::MAX);
    let mut tail = BytesMut::new();
    for (number, signed) in (0..).zip(Flood::to_sign(envelope, expires)) {
        let encoded = [&[FLOOD], &signed[..], &[7; 64]].concat();
        assert!(encoded.len() <= FLOOD_BYTES_MAX, "a fragment of {} bytes", encoded.len());
        let Some(Frame::Flood(flood)) = one_form(encoded.into()) else {
            panic!("a fragment that nobody reads: {signed:?}");
        };
        assert_eq!((flood.header, flood.fragment), (envelope.header, number));
        assert_eq!((flood.attempt, flood.expires), (envelope.attempt, expires));
        tail.extend_from_slice(&flood.part);
    }
    assert_eq!(tail, envelope.tail);
}

fn payload(bytes: Bytes) {
    let Ok(payload) = Payload::decode(bytes.clone()) else { return };
    let mut writer = PayloadWriter::new(payload.incarnation, payload.floor);
    for item in &payload.items {
        assert!(writer.push(item), "was read, but would not be written: {item:?}");
    }
    assert_eq!(writer.len(), bytes.len());
    assert_eq!(writer.finish(), bytes);
}

/// A peer record.
pub(crate) fn record(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    let Ok(parsed) = decode_record(bytes.clone()) else { return };
    let mut fitted = parsed.record.clone();
    fit_record(&mut fitted);
    assert_eq!(fitted, parsed.record, "was read, but would not be written whole");
    let signed = encode_record(&parsed.record);
    assert_eq!(signed, parsed.signed);
    assert_eq!(record_with_signature(signed, &parsed.signature), bytes);
}

/// A find, the answer to one, or a flood, without its first byte.
pub(crate) fn find(input: &[u8]) {
    for tag in [FIND, FOUND, FLOOD] {
        let bytes = Bytes::from([&[tag], input].concat());
        match one_form(bytes.clone()) {
            Some(Frame::Find(find)) => {
                let Find { direct, nonce, target, expires, record: inner, .. } = &find;
                let signed = Find::to_sign(*direct, *nonce, target, *expires, inner);
                assert_eq!(signed, find.signed);
                record(inner);
            }
            Some(Frame::Found(found)) => {
                let Found { direct, origin, nonce, record: inner, .. } = &found;
                assert_eq!(Found::to_sign(*direct, origin, *nonce, inner), found.signed);
                record(inner);
            }
            Some(Frame::Flood(flood)) => {
                assert!(flood.fragment < flood.fragments);
                assert!(bytes.len() <= FLOOD_BYTES_MAX);
            }
            Some(other) => panic!("{other:?} is something else"),
            None => {}
        }
    }
}

/// A hello, without its first byte.
pub(crate) fn hello(input: &[u8]) {
    let bytes = [&[HELLO], input].concat();
    match one_form(bytes.into()) {
        Some(Frame::Hello(hello)) => record(&hello.record),
        Some(other) => panic!("{other:?} is something else"),
        None => {}
    }
}

/// Reads a frame, if it is one, and writes it again.
fn one_form(bytes: Bytes) -> Option<Frame> {
    let frame = Frame::decode(bytes.clone()).ok()?;
    assert_eq!(frame.encode(), bytes, "another form of {frame:?}");
    Some(frame)
}
