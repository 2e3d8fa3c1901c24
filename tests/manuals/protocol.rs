//! distmsg-protocol(7) against the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use bytes::Bytes;
use distmsg::crypto::{Domain, Identity};
use distmsg::model::limits::{
    CHUNK_BYTES, DIGESTS_MAX, FLOOD_BYTES_MAX, FRAME_BYTES_MAX, HOST_BYTES_MAX, ITEMS_MAX,
    MESSAGE_BYTES_CEILING, NAME_BYTES_MAX, RECORD_ADDRESSES_MAX, RECORD_BYTES_MAX,
    RECORD_PREKEYS_MAX, RECORDS_PER_FRAME_MAX, SEALED_BYTES_MAX, SUBJECT_BYTES_MAX, WINDOW,
};
use distmsg::model::{Incarnation, NetworkId, PeerId, Record, Sequence, SessionId, Timestamp};
use distmsg::wire::{
    CloseReason, Envelope, FRAGMENT_BYTES_MAX, Find, Flood, Found, Frame, Header, Hello, Item,
    Notice, NoticeKind, Payload, PayloadWriter, RejectReason, Tail, VERSION, encode_record,
};

use crate::root;
use crate::vectors::{page, vectors};

/// The tables of fields by their headings: bytes and name of each.
fn layouts() -> BTreeMap<String, Vec<(Option<usize>, String)>> {
    let page = page();
    let mut layouts = BTreeMap::new();
    for part in page.split("\n.SS ").skip(1) {
        let (heading, text) = part.split_once('\n').expect("lines");
        let Some(table) = text.strip_prefix(".nf\n") else { continue };
        let table = table.split("\n.fi").next().expect("its end");
        let field = |line: &str| {
            let mut words = line.split_whitespace();
            let bytes = words.next().expect("a number of bytes").parse().ok();
            (bytes, words.next().unwrap_or_default().to_owned())
        };
        layouts.insert(heading.to_owned(), table.lines().map(field).collect());
    }
    layouts
}

fn header() -> Header {
    let peer = PeerId::from_bytes([7; 32]);
    let commitment = [0; 32];
    Header { source: peer, destination: peer, session: SessionId(1), counter: 0, commitment }
}

/// Something of each layout in which whatever may be missing is missing.
fn barest() -> Vec<(&'static str, usize)> {
    let peer = PeerId::from_bytes([7; 32]);
    let network = NetworkId::OPEN;
    let hello = Hello {
        version: VERSION,
        features: 0,
        instance: 1,
        network,
        proof: [0; 32],
        record: Bytes::new(),
    };
    let record = Record {
        network,
        peer,
        sequence: 1,
        expires: Timestamp::from_millis(1),
        name: None,
        addresses: Vec::new(),
        prekeys: Vec::new(),
    };
    let find = Find::to_sign(false, 1, &peer, Timestamp::from_millis(1), &[]);
    let found = Found::to_sign(false, &peer, 1, &[]);
    let envelope = Envelope::new(header(), 1, &[0]);
    let flood = Flood::to_sign(&envelope, Timestamp::from_millis(1)).remove(0);
    let notice = Notice { kind: NoticeKind::Full, commitment: [0; 32], signature: [0; 64] };
    let of = |frame: Frame| frame.encode().len();
    vec![
        ("Hello", of(Frame::Hello(hello))),
        ("Close", of(Frame::Close { reason: CloseReason::Busy, text: "".into() })),
        ("Ping", of(Frame::Ping { nonce: 1 })),
        ("Pong", of(Frame::Pong { nonce: 1 })),
        ("Record", encode_record(&record).len() + 64),
        ("DigestRequest", of(Frame::DigestRequest { exchange: 1, after: None })),
        ("Digests", of(Frame::Digests { exchange: 1, more: false, digests: Vec::new() })),
        ("RecordRequest", of(Frame::RecordRequest { peers: Vec::new() })),
        ("Records", of(Frame::Records { records: Vec::new() })),
        ("Find", Find::encode(&find, &[0; 64], 0).len()),
        ("Found", Found::encode(&found, &[0; 64], 0).len()),
        // These two carry a byte of a tail.
        ("Envelope", envelope.encoded.len() - 1),
        ("Flood", Flood::encode(&flood, &[0; 64]).len() - 1),
        ("Tail", Tail::encode(None, &[]).len()),
        ("Reject", of(Frame::Reject { key: envelope.key(), reason: RejectReason::Loop })),
        ("Receipt", of(Frame::Receipt { preimage: [0; 32] })),
        ("Notice", of(Frame::Notice(notice))),
        (
            "Context",
            distmsg::crypto::SessionContext {
                sender: peer,
                recipient: peer,
                session: SessionId(1),
                prekey: distmsg::model::PrekeyId(1),
            }
            .to_bytes()
            .len(),
        ),
        ("Payload", payload(&[]).len()),
        ("Item: ping", payload(&[Item::Ping]).len() - payload(&[]).len()),
        ("Item: message", payload(&[message(b"")]).len() - payload(&[]).len()),
        ("Item: chunk", payload(&[chunk()]).len() - payload(&[]).len() - CHUNK_BYTES),
    ]
}

fn payload(items: &[Item]) -> Vec<u8> {
    let mut writer = PayloadWriter::new(Incarnation(1), Sequence::FIRST);
    for item in items {
        assert!(writer.push(item), "{item:?}");
    }
    let payload = writer.finish();
    assert_eq!(Payload::decode(payload.clone().into()).expect("read").items, items);
    payload
}

fn message(body: &'static [u8]) -> Item {
    Item::Message {
        sequence: Sequence::FIRST,
        sent: Timestamp::from_millis(1),
        expires: Timestamp::from_millis(2),
        subject: None,
        body: Bytes::from_static(body),
    }
}

fn chunk() -> Item {
    Item::Chunk {
        sequence: Sequence::FIRST,
        sent: Timestamp::from_millis(1),
        expires: Timestamp::from_millis(2),
        subject: None,
        total: CHUNK_BYTES as u64 + 1,
        index: 0,
        bytes: Bytes::from(vec![0; CHUNK_BYTES]),
    }
}

#[test]
fn every_layout_has_as_many_bytes_as_the_code_writes() {
    let mut layouts = layouts();
    for (name, length) in barest() {
        let fields = layouts.remove(name).unwrap_or_else(|| panic!("no layout of {name}"));
        let told: usize = fields.iter().filter_map(|(bytes, _)| *bytes).sum();
        assert_eq!(told, length, "bytes of {name}: {fields:?}");
    }
    assert!(layouts.is_empty(), "of these nothing is known: {:?}", layouts.keys());
}

#[test]
fn every_kind_of_frame_stands_there_with_its_first_byte() {
    let source = fs::read_to_string(root("src/wire/frame.rs")).expect("the source");
    let page = page();
    let (_, table) = page.split_once("Its first byte says what it is:").expect("the table");
    let table = table.split(".fi").next().expect("its end");
    let words: Vec<&str> = table.split_whitespace().collect();
    let told: BTreeMap<&str, &str> = words
        .windows(2)
        .filter(|pair| pair[0].starts_with("0x"))
        .map(|pair| (pair[1], pair[0]))
        .collect();
    let tags = source.lines().filter_map(|line| {
        let (name, value) = line.trim().strip_prefix("pub(crate) const ")?.split_once(": u8 = ")?;
        Some((name.replace('_', "").to_lowercase(), value.trim_end_matches(';').to_owned()))
    });
    let tags: BTreeMap<String, String> = tags.collect();
    assert!(tags.len() >= 15, "{tags:?}");
    let told: BTreeMap<String, String> =
        told.iter().map(|(name, byte)| (name.to_lowercase(), (*byte).to_owned())).collect();
    assert_eq!(told, tags);
    // And each layout begins with it.
    for (name, fields) in layouts() {
        if let Some(byte) = tags.get(&name.to_lowercase()) {
            assert_eq!(fields[0], (Some(1), byte.clone()), "{name}");
        }
    }
}

#[test]
fn every_reason_and_kind_stands_there_with_its_number() {
    let source = fs::read_to_string(root("src/wire/frame.rs")).expect("the source");
    let page = page();
    let mut count = 0;
    for name in [
        "NoticeKind, \"notice\"",
        "RejectReason, \"reject reason\"",
        "CloseReason, \"close reason\"",
    ] {
        let (_, body) = source.split_once(name).unwrap_or_else(|| panic!("no {name}"));
        let body = body.split("\n    }").next().expect("its end");
        for line in body.lines().map(str::trim) {
            let Some((variant, rest)) = line.split_once(" = ") else { continue };
            let number = rest.split(',').next().expect("a number");
            let is_told = page.lines().any(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some(number) && words.next() == Some(variant)
            });
            assert!(is_told, "{name}: {variant} = {number} does not stand there");
            count += 1;
        }
    }
    assert_eq!(count, 16, "reasons and kinds were found");
}

#[test]
fn every_tag_stands_there() {
    let page = page().replace("\\(dq", "\"");
    let mut tags = BTreeSet::new();
    for file in ["identity", "network", "digest", "session", "primitive"] {
        let source = fs::read_to_string(root(&format!("src/crypto/{file}.rs"))).expect("a source");
        for part in source.split("b\"distmsg/1 ").skip(1) {
            tags.insert(part.split('"').next().expect("its end").to_owned());
        }
    }
    let tls = fs::read_to_string(root("src/link/tls.rs")).expect("a source");
    for part in tls.split("b\"").skip(1) {
        let text = part.split('"').next().expect("its end");
        assert!(page.contains(text), "{text} does not stand there");
    }
    assert!(tags.len() >= 14, "{tags:?}");
    for tag in tags {
        let told = format!("\"distmsg/1 {}\"", tag.replace("\\0", "\\e0"));
        assert!(page.contains(&told), "{told} does not stand there");
    }
    // None is another's beginning, or one signature could pass for another.
    let identity = Identity::from_seed(&[1; 32]);
    let signatures: BTreeSet<[u8; 64]> = [
        Domain::Record,
        Domain::Find,
        Domain::Found,
        Domain::Flood,
        Domain::Opening,
        Domain::Notice,
    ]
    .into_iter()
    .map(|domain| identity.sign(domain, &[b"x"]))
    .collect();
    assert_eq!(signatures.len(), 6);
}

#[test]
fn limits_are_those_of_the_code() {
    let page = page();
    let (_, limits) = page.split_once("\n.SH LIMITS\n").expect("a section of limits");
    let limits = limits.split("\n.SH ").next().expect("its end").replace('\n', " ");
    for (what, number) in [
        ("frames", FRAME_BYTES_MAX),
        ("floods", FLOOD_BYTES_MAX),
        ("records", RECORD_BYTES_MAX),
        ("sealed bodies", SEALED_BYTES_MAX),
        ("bodies", CHUNK_BYTES),
        ("messages", MESSAGE_BYTES_CEILING),
        ("subjects", SUBJECT_BYTES_MAX),
        ("items", ITEMS_MAX),
        ("windows", WINDOW as usize),
        ("digests", DIGESTS_MAX),
        ("records in a frame", RECORDS_PER_FRAME_MAX),
        ("names", NAME_BYTES_MAX),
        ("hosts", HOST_BYTES_MAX),
        ("addresses", RECORD_ADDRESSES_MAX),
        ("prekeys", RECORD_PREKEYS_MAX),
    ] {
        let told = format!("{what} {number}");
        assert!(limits.contains(&told), "{told} does not stand there: {limits}");
    }
    for number in [
        FRAGMENT_BYTES_MAX,
        Tail::BYTES_MAX,
        Tail::BYTES_MAX.div_ceil(FRAGMENT_BYTES_MAX),
        SEALED_BYTES_MAX - 16,
        distmsg::model::Prekey::PUBLIC_LEN,
        distmsg::crypto::ENCAPSULATION_LEN,
    ] {
        let words = page.split(|c: char| !c.is_ascii_digit());
        assert!(words.into_iter().any(|word| word == number.to_string()), "{number}");
    }
}

#[test]
fn the_vectors_are_what_the_code_makes() {
    let path = root("man/distmsg-protocol.7");
    let text = page();
    let (begin, end) = (".\\\" begin of vectors\n", ".\\\" end of vectors\n");
    let (before, rest) = text.split_once(begin).expect("where the vectors begin");
    let (_, after) = rest.split_once(end).expect("where the vectors end");
    let made = format!("{before}{begin}{}{end}{after}", vectors());
    if std::env::var_os("DISTMSG_BLESS").is_some() {
        fs::write(&path, &made).expect("written");
    }
    assert!(
        page() == made,
        "the vectors of distmsg-protocol(7) are stale; if that is meant, it is another version of \
         the protocol; write them anew: DISTMSG_BLESS=1 cargo test --test manuals"
    );
}
