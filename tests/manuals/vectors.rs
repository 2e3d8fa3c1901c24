//! The test vectors of distmsg-protocol(7): made by the code, and held against what the page says
//! with nothing but the primitives, as another implementation would do it.

use std::collections::BTreeMap;
use std::fs;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use aws_lc_rs::{hkdf, hmac};
use bytes::Bytes;
use distmsg::crypto::{
    Domain, Identity, NetworkKey, PrekeySecret, ProofRole, Random, SessionContext, SessionSecret,
    commitment_of, message_id,
};
use distmsg::model::{
    Address, Incarnation, NetworkId, Prekey, PrekeyId, Record, Sequence, SessionId, Timestamp, Uid,
};
use distmsg::wire::{
    Envelope, Find, Flood, Found, Frame, Header, Hello, Item, Notice, NoticeKind, Opening,
    PayloadWriter, RejectReason, Tail, encode_record, record_with_signature,
};
use zeroize::Zeroizing;

use crate::root;

const NOW: u64 = 1_700_000_000_000;
const DAY: u64 = 24 * 60 * 60 * 1_000;

/// The page as it stands there now.
pub(crate) fn page() -> String {
    fs::read_to_string(root("man/distmsg-protocol.7")).expect("the page is there")
}

/// Collects groups of vectors as the page shows them.
#[derive(Default)]
struct Shown(String);

impl Shown {
    fn group(&mut self, about: &str) {
        if !self.0.is_empty() {
            self.0.push_str(".fi\n");
        }
        self.0.push_str(&format!(".PP\n{about}\n.PP\n.nf\n"));
    }

    fn text(&mut self, name: &str, text: &str) {
        self.0.push_str(&format!("{name} =\n    {text}\n"));
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) {
        self.0.push_str(&format!("{name} =\n"));
        for line in bytes.chunks(32) {
            let hex: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
            self.0.push_str(&format!("    {hex}\n"));
        }
    }

    fn end(mut self) -> String {
        self.0.push_str(".fi\n");
        self.0
    }
}

fn signed_record(identity: &Identity, record: &Record) -> Bytes {
    let content = encode_record(record);
    let signature = identity.sign(Domain::Record, &[&content]);
    record_with_signature(content, &signature)
}

/// The section of vectors.
pub(crate) fn vectors() -> String {
    let mut shown = Shown::default();
    let (alice, bob) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
    shown.group("Identities:");
    for (name, identity) in [("alice", &alice), ("bob", &bob)] {
        shown.bytes(&format!("{name}.public"), identity.peer().as_bytes());
        shown.text(&format!("{name}.id"), &identity.peer().to_string());
    }
    network(&mut shown);
    let prekey = PrekeySecret::from_seed(PrekeyId(7), Zeroizing::new([5; 32]));
    let record = records(&mut shown, &alice, &bob, &prekey);
    finding(&mut shown, &alice, &bob, &record);
    envelopes(&mut shown, &alice, &bob, &prekey);
    shown.end()
}

fn network(shown: &mut Shown) {
    let key = NetworkKey::from_bytes(Zeroizing::new([3; 32]));
    shown.group(
        "The closed network of that key, its proofs where the exporter is 32 times 04, and a \
         dialler's hello\nwhose instance is 6:",
    );
    shown.bytes("network", key.network().as_bytes());
    let proof = key.prove(ProofRole::Dialler, &[4; 32]);
    shown.bytes("proof.dialler", &proof);
    shown.bytes("proof.listener", &key.prove(ProofRole::Listener, &[4; 32]));
    let hello = Hello {
        version: distmsg::wire::VERSION,
        features: 0,
        instance: 6,
        network: key.network(),
        proof,
        record: Bytes::new(),
    };
    shown.bytes("hello", &Frame::Hello(hello).encode());
}

/// Alice's record, which is returned, and bob's.
fn records(shown: &mut Shown, alice: &Identity, bob: &Identity, prekey: &PrekeySecret) -> Bytes {
    shown.group(
        "A record of alice in the open network, made now, for a day, named alice, at \
         192.0.2.7:3000, without prekeys;\nand one of bob, without name and address, with the \
         prekey 7 for a day, whose X-Wing seed is 32 times 05:",
    );
    let mut record = Record {
        network: NetworkId::OPEN,
        peer: alice.peer(),
        sequence: NOW,
        expires: Timestamp::from_millis(NOW + DAY),
        name: Some("alice".parse().expect("a name")),
        addresses: vec![Address::new("192.0.2.7", 3000).expect("an address")],
        prekeys: Vec::new(),
    };
    let of_alice = signed_record(alice, &record);
    shown.bytes("record.alice", &of_alice);
    (record.peer, record.name) = (bob.peer(), None);
    record.addresses.clear();
    record.prekeys.push(public(prekey));
    shown.bytes("record.bob", &signed_record(bob, &record));
    of_alice
}

fn public(prekey: &PrekeySecret) -> Prekey {
    let expires = Timestamp::from_millis(NOW + DAY);
    Prekey { id: prekey.id(), expires, public: prekey.public().to_vec().into() }
}

fn finding(shown: &mut Shown, alice: &Identity, bob: &Identity, record: &Bytes) {
    shown.group(
        "A find of alice for bob, with the nonce 8, which expires in a minute and has crossed two \
         links; and her\nown answer, at its first link, to a find of bob with the nonce 9:",
    );
    let expires = Timestamp::from_millis(NOW + 60_000);
    let find = Find::to_sign(false, 8, &bob.peer(), expires, record);
    let signature = alice.sign(Domain::Find, &[&find]);
    shown.bytes("find", &Find::encode(&find, &signature, 2));
    let found = Found::to_sign(true, &bob.peer(), 9, record);
    let signature = alice.sign(Domain::Found, &[&found]);
    shown.bytes("found", &Found::encode(&found, &signature, 0));
}

fn envelopes(shown: &mut Shown, alice: &Identity, bob: &Identity, prekey: &PrekeySecret) {
    let context = SessionContext {
        sender: alice.peer(),
        recipient: bob.peer(),
        session: SessionId(10),
        prekey: prekey.id(),
    };
    shown.group(
        "The session 10 of alice to that prekey of bob. The encapsulation is what HPKE made of \
         random bytes:",
    );
    let mut random = Random::from_seed([9; 32]);
    let (encapsulation, secret) =
        SessionSecret::open(&public(prekey), &context, &mut random).expect("opened");
    let signed = [&context.to_bytes()[..], &encapsulation[..]];
    let signature = alice.sign(Domain::Opening, &signed);
    shown.bytes("encapsulation", &encapsulation[..]);
    shown.bytes("session.secret", &**secret.as_bytes());
    shown.bytes("sealing.key", &expand(&**secret.as_bytes(), b"distmsg/1 seal"));
    shown.bytes("receipt.key", &expand(&**secret.as_bytes(), b"distmsg/1 receipts"));
    shown.bytes("opening.signature", &signature);

    shown.group(
        "A payload of the incarnation 11, with the message 1, queued now, for seven days, about \
         \\(dqcellar\\(dq, with\nthe body \\(dqwater\\(dq; its message ID; and the envelope with \
         the counter 0 in its first attempt:",
    );
    let (incarnation, sequence) = (Incarnation(11), Sequence::FIRST);
    let mut writer = PayloadWriter::new(incarnation, sequence);
    let pushed = writer.push(&Item::Message {
        sequence,
        sent: Timestamp::from_millis(NOW),
        expires: Timestamp::from_millis(NOW + 7 * DAY),
        subject: Some("cellar".into()),
        body: Bytes::from_static(b"water"),
    });
    assert!(pushed, "there is room for it");
    let mut sealed = writer.finish();
    shown.bytes("payload", &sealed);
    let uid = Uid { sender: alice.peer(), recipient: bob.peer(), incarnation, sequence };
    shown.bytes("message.id", &message_id(&uid).0);
    let keys = secret.keys();
    let preimage = keys.receipt(0);
    let header = Header {
        source: alice.peer(),
        destination: bob.peer(),
        session: context.session,
        counter: 0,
        commitment: commitment_of(&preimage),
    };
    keys.seal(0, &header.aad(), &mut sealed).expect("sealed");
    shown.bytes("preimage", &preimage);
    shown.bytes("commitment", &header.commitment);
    shown.bytes("sealed", &sealed);
    let encapsulation = Bytes::copy_from_slice(&encapsulation[..]);
    let opening = Opening { prekey: prekey.id(), encapsulation, signature };
    let envelope = Envelope::new(header, 1, &Tail::encode(Some(&opening), &sealed));
    shown.bytes("envelope", &envelope.encoded);

    shown.group(
        "What may come back for it: a reject that says Loop, the receipt, and the notice Full. And \
         the same\nenvelope without its opening, flooded as attempt 2, to expire in a minute:",
    );
    let reject = Frame::Reject { key: envelope.key(), reason: RejectReason::Loop };
    shown.bytes("reject", &reject.encode());
    shown.bytes("receipt", &Frame::Receipt { preimage }.encode());
    let kind = NoticeKind::Full;
    let signature = bob.sign(Domain::Notice, &[&Notice::to_sign(kind, &header)]);
    let notice = Notice { kind, commitment: header.commitment, signature };
    shown.bytes("notice", &Frame::Notice(notice).encode());
    let flooded = Envelope::new(header, 2, &Tail::encode(None, &sealed));
    let expires = Timestamp::from_millis(NOW + 60_000);
    let parts = Flood::to_sign(&flooded, expires);
    let [part] = parts.as_slice() else { panic!("one fragment") };
    shown.bytes("flood", &Flood::encode(part, &alice.sign(Domain::Flood, &[part])));
}

/// HKDF-Expand with SHA-256.
fn expand(secret: &[u8], info: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    let prk = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, secret);
    prk.expand(&[info], hkdf::HKDF_SHA256).expect("short").fill(&mut key).expect("32 bytes");
    key
}

/// The vectors that stand on the page.
fn told() -> BTreeMap<String, Vec<u8>> {
    let page = page();
    let (_, rest) = page.split_once("begin of vectors\n").expect("where they begin");
    let rest = rest.split(".\\\" end of vectors").next().expect("where they end");
    let mut told: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut name = None;
    for line in rest.lines() {
        if let Some(found) = line.strip_suffix(" =") {
            name = Some(found.to_owned());
        } else if let (Some(name), Some(text)) = (&name, line.strip_prefix("    ")) {
            let value = told.entry(name.clone()).or_default();
            match name.ends_with(".id") && text.starts_with("dm1") {
                true => value.extend_from_slice(text.as_bytes()),
                false => value.extend(text.as_bytes().chunks(2).map(|pair| {
                    let pair = std::str::from_utf8(pair).expect("digits");
                    u8::from_str_radix(pair, 16).expect("hexadecimal digits")
                })),
            }
        }
    }
    told
}

/// Takes fields off the front, as the layouts of the page have them.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(bytes);
        self.0 = rest;
        taken
    }

    fn number(&mut self, bytes: usize) -> u64 {
        self.take(bytes).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    #[track_caller]
    fn end(self) {
        assert!(self.0.is_empty(), "{} bytes are left", self.0.len());
    }
}

fn sha256(parts: &[&[u8]]) -> Vec<u8> {
    digest(&SHA256, &parts.concat()).as_ref().to_vec()
}

fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &parts.concat()).as_ref().to_vec()
}

#[track_caller]
fn verify(public: &[u8], tag: &str, content: &[u8], signature: &[u8]) {
    let signed = [b"distmsg/1 ", tag.as_bytes(), b"\0", content].concat();
    let holds = UnparsedPublicKey::new(&ED25519, public).verify(&signed, signature);
    assert!(holds.is_ok(), "the signature of the {tag} does not hold");
}

#[test]
fn networks_and_records_are_as_the_page_says() {
    let told = told();
    let network = sha256(&[b"distmsg/1 network\0", &[3; 32]]);
    assert_eq!(told["network"], network[..16]);
    for role in ["dialler", "listener"] {
        let tag = format!("distmsg/1 network proof, {role}\0");
        let proof = hmac_sha256(&[3; 32], &[tag.as_bytes(), &[4; 32]]);
        assert_eq!(told[&format!("proof.{role}")], proof, "{role}");
    }
    let mut hello = Fields(&told["hello"]);
    assert_eq!((hello.number(1), hello.number(1), hello.number(4), hello.number(8)), (1, 1, 0, 6));
    assert_eq!((hello.take(16), hello.take(32)), (&network[..16], &told["proof.dialler"][..]));
    hello.end();

    for (name, prekeys) in [("alice", 0), ("bob", 1)] {
        let public = &told[&format!("{name}.public")];
        let record = &told[&format!("record.{name}")];
        let (content, signature) = record.split_at(record.len() - 64);
        verify(public, "record", content, signature);
        let mut fields = Fields(content);
        assert_eq!(fields.number(1), 1);
        assert_eq!((fields.take(16), fields.take(32)), (&[0; 16][..], &public[..]));
        assert_eq!((fields.number(8), fields.number(8)), (NOW, NOW + DAY));
        let length = fields.number(1) as usize;
        assert_eq!(fields.take(length), if name == "alice" { &b"alice"[..] } else { b"" });
        for _ in 0..fields.number(1) {
            let length = fields.number(1) as usize;
            assert_eq!((fields.take(length), fields.number(2)), (&b"192.0.2.7"[..], 3000));
        }
        assert_eq!(fields.number(1), prekeys);
        for _ in 0..prekeys {
            assert_eq!((fields.number(4), fields.number(8)), (7, NOW + DAY));
            fields.take(1216);
        }
        fields.end();
    }
}

#[test]
fn finds_are_as_the_page_says() {
    let told = told();
    for (name, flags) in [("find", 0), ("found", 1)] {
        let frame = &told[name];
        let (content, signature) = frame.split_at(frame.len() - 64);
        verify(&told["alice.public"], name, &content[2..], signature);
        let mut fields = Fields(content);
        let kind = if name == "find" { (0x20, 2) } else { (0x21, 0) };
        assert_eq!((fields.number(1), fields.number(1)), kind);
        assert_eq!((fields.number(1), fields.number(1)), (1, flags));
        if name == "find" {
            assert_eq!((fields.number(8), fields.take(32)), (8, &told["bob.public"][..]));
            assert_eq!(fields.number(8), NOW + 60_000);
        } else {
            assert_eq!((fields.take(32), fields.number(8)), (&told["bob.public"][..], 9));
        }
        let length = fields.number(2) as usize;
        assert_eq!(fields.take(length), told["record.alice"]);
        fields.end();
    }
}

#[test]
fn sessions_and_envelopes_are_as_the_page_says() {
    let told = told();
    let (alice, bob) = (&told["alice.public"], &told["bob.public"]);
    let ids = [10_u64.to_be_bytes().to_vec(), 7_u32.to_be_bytes().to_vec()].concat();
    let context = [&b"distmsg/1 session\0"[..], alice, bob, &ids].concat();
    assert_eq!(context.len(), 94);
    // HPKE itself is held against published vectors elsewhere; here the recipient's side of it.
    let prekey = PrekeySecret::from_seed(PrekeyId(7), Zeroizing::new([5; 32]));
    let parsed = SessionContext {
        sender: Identity::from_seed(&[1; 32]).peer(),
        recipient: Identity::from_seed(&[2; 32]).peer(),
        session: SessionId(10),
        prekey: PrekeyId(7),
    };
    assert_eq!(parsed.to_bytes(), context);
    let secret = SessionSecret::accept(&prekey, &told["encapsulation"], &parsed).expect("formed");
    assert_eq!(secret.as_bytes()[..], told["session.secret"]);
    assert_eq!(expand(&told["session.secret"], b"distmsg/1 seal")[..], told["sealing.key"]);
    assert_eq!(expand(&told["session.secret"], b"distmsg/1 receipts")[..], told["receipt.key"]);
    let opened = [&context[..], &told["encapsulation"]].concat();
    verify(alice, "opening", &opened, &told["opening.signature"]);

    let preimage = hmac_sha256(&told["receipt.key"], &[&[0; 8]]);
    assert_eq!(told["preimage"], preimage);
    assert_eq!(told["commitment"], sha256(&[b"distmsg/1 receipt\0", &preimage]));
    let header = [&alice[..], bob, &10_u64.to_be_bytes(), &[0; 8], &told["commitment"]].concat();
    assert_eq!(header.len(), 112);
    let key = UnboundKey::new(&AES_256_GCM, &told["sealing.key"]).expect("a key");
    let mut sealed = told["sealed"].clone();
    let aad = [&[1][..], &header].concat();
    let opened = LessSafeKey::new(key)
        .open_in_place(Nonce::assume_unique_for_key([0; 12]), Aad::from(&aad), &mut sealed)
        .expect("it opens");
    assert_eq!(opened, told["payload"]);

    let mut payload = Fields(&told["payload"]);
    assert_eq!((payload.number(8), payload.number(8), payload.number(2)), (11, 1, 1));
    assert_eq!((payload.number(1), payload.number(8)), (1, 1));
    assert_eq!((payload.number(8), payload.number(8)), (NOW, NOW + 7 * DAY));
    assert_eq!((payload.number(2), payload.take(6)), (6, &b"cellar"[..]));
    assert_eq!((payload.number(4), payload.take(5)), (5, &b"water"[..]));
    payload.end();
    let numbers = [11_u64.to_be_bytes(), 1_u64.to_be_bytes()].concat();
    assert_eq!(told["message.id"], sha256(&[b"distmsg/1 message", alice, bob, &numbers])[..16]);

    let prekey = 7_u32.to_be_bytes();
    let (encapsulation, signature) = (&told["encapsulation"], &told["opening.signature"]);
    let envelope = [&[0x30, 1, 0, 1][..], &header, &[1], &prekey, encapsulation, signature];
    assert_eq!(told["envelope"], [&envelope.concat()[..], &told["sealed"]].concat());
}

#[test]
fn what_comes_back_and_floods_are_as_the_page_says() {
    let told = told();
    let (alice, bob) = (&told["alice.public"], &told["bob.public"]);
    let session = 10_u64.to_be_bytes();
    let header = [&alice[..], bob, &session, &[0; 8], &told["commitment"]].concat();
    let reject = [&[0x32][..], alice, &session, &[0; 8], &[0, 1], &[2]].concat();
    assert_eq!(told["reject"], reject);
    assert_eq!(told["receipt"], [&[0x33][..], &told["preimage"]].concat());
    let (notice, signature) = told["notice"].split_at(told["notice"].len() - 64);
    assert_eq!(notice, [&[0x34, 2][..], &told["commitment"]].concat());
    verify(bob, "notice", &[&[1][..], &header, &[2]].concat(), signature);
    let (flood, signature) = told["flood"].split_at(told["flood"].len() - 64);
    let expires = (NOW + 60_000).to_be_bytes();
    let tail = [&[0][..], &told["sealed"]].concat();
    let content = [&[1][..], &header, &[0, 2], &[0, 1], &expires, &tail].concat();
    assert_eq!(flood, [&[0x31][..], &content].concat());
    verify(alice, "flood", &content, signature);
}
