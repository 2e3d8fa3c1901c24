//! What somebody with a valid identity may say.

use std::collections::VecDeque;

use bytes::Bytes;
use distmsg::crypto::{
    Domain, Identity, Random, SealingKeys, SessionContext, SessionSecret, commitment_of, sha256,
};
use distmsg::model::limits::CHUNK_BYTES;
use distmsg::model::{
    Address, Incarnation, NetworkId, Now, PeerId, Prekey, PrekeyId, Record, Sequence, SessionId,
    Span, Timestamp,
};
use distmsg::wire::{
    CloseReason, Digest, Envelope, EnvelopeKey, Find, Flood, Found, Frame, Header, Item, Notice,
    NoticeKind, Opening, PayloadWriter, RejectReason, Tail, encode_record, record_with_signature,
};

use super::super::source::Source;
use super::world::{World, address_of};

/// One enemy.
pub(super) struct Enemy {
    pub(super) identity: Identity,
    /// Its sessions with the nodes.
    sessions: [Option<Session>; 2],
}

struct Session {
    context: SessionContext,
    opening: Opening,
    keys: SealingKeys,
    counter: u64,
}

/// What a record claims.
#[derive(Default)]
pub(super) struct Claims {
    pub(super) sequence: u64,
    pub(super) lifetime: Option<Span>,
    pub(super) name: Option<String>,
    pub(super) peer: Option<PeerId>,
    pub(super) network: Option<NetworkId>,
    pub(super) addresses: Vec<Address>,
    pub(super) prekeys: Vec<Prekey>,
}

impl Enemy {
    pub(super) fn new(number: u8) -> Self {
        let identity = Identity::from_seed(&sha256(&[b"enemy", &[number]]));
        Self { identity, sessions: [None, None] }
    }

    /// A record, signed.
    pub(super) fn record(&self, now: Now, claims: &Claims) -> Bytes {
        let content = encode_record(&Record {
            network: claims.network.unwrap_or(NetworkId::OPEN),
            peer: claims.peer.unwrap_or(self.identity.peer()),
            sequence: claims.sequence,
            expires: now.wall + claims.lifetime.unwrap_or(Span::from_secs(86_400)),
            name: claims.name.as_ref().and_then(|name| name.parse().ok()),
            addresses: claims.addresses.clone(),
            prekeys: claims.prekeys.clone(),
        });
        let signature = self.identity.sign(Domain::Record, &[&content]);
        record_with_signature(content, &signature)
    }

    /// A session with a node, made if there is none.
    fn session(
        &mut self,
        side: usize,
        recipient: PeerId,
        prekey: &Prekey,
        random: &mut Random,
    ) -> Option<&mut Session> {
        if self.sessions[side].is_none() {
            let context = SessionContext {
                sender: self.identity.peer(),
                recipient,
                session: SessionId(random.number()),
                prekey: prekey.id,
            };
            let (encapsulation, secret) = SessionSecret::open(prekey, &context, random).ok()?;
            let parts = [&context.to_bytes()[..], &encapsulation[..]];
            let signature = self.identity.sign(Domain::Opening, &parts);
            let encapsulation = Bytes::copy_from_slice(&encapsulation[..]);
            let opening = Opening { prekey: prekey.id, encapsulation, signature };
            let keys = secret.keys();
            self.sessions[side] = Some(Session { context, opening, keys, counter: 0 });
        }
        self.sessions[side].as_mut()
    }
}

/// Makes a frame of an enemy's own, for a node.
pub(super) fn forge(
    world: &mut World,
    enemy: usize,
    side: usize,
    source: &mut Source<'_>,
) -> Bytes {
    let frame = match source.byte() % 15 {
        0 => Frame::Ping { nonce: source.number() },
        1 => Frame::Pong { nonce: source.number() },
        2 => return find(world, enemy, source),
        3 => return found(world, enemy, source),
        4 => {
            let exchange = exchange(&world.kept, source);
            let more = source.flag();
            let count = source.byte() % 20;
            let digests =
                (0..count).map(|_| Digest { peer: peer(world, source), sequence: source.number() });
            let mut digests: Vec<_> = digests.collect();
            if source.flag() {
                digests.sort_by_key(|digest| digest.peer);
            }
            Frame::Digests { exchange, more, digests }
        }
        5 => {
            let exchange = u32::try_from(source.number()).unwrap_or(1).max(1);
            Frame::DigestRequest { exchange, after: source.flag().then(|| peer(world, source)) }
        }
        6 => {
            let count = source.byte() % 17;
            Frame::RecordRequest { peers: (0..count).map(|_| peer(world, source)).collect() }
        }
        7 => {
            let count = source.byte() % 17;
            Frame::Records { records: (0..count).map(|_| record(world, enemy, source)).collect() }
        }
        8 => {
            let reasons = [RejectReason::NoRoute, RejectReason::Loop, RejectReason::Congested];
            Frame::Reject { key: key(&world.kept, source), reason: *source.pick(&reasons) }
        }
        9 => Frame::Receipt {
            // What can be known of an envelope is no proof that it arrived.
            preimage: match source.flag() {
                true => header(&world.kept, source).commitment,
                false => preimage(source),
            },
        },
        10 => {
            let kinds = [NoticeKind::Reset, NoticeKind::Full, NoticeKind::TooLarge];
            let kind = *source.pick(&kinds);
            let header = header(&world.kept, source);
            let to_sign = Notice::to_sign(kind, &header);
            let signature = world.enemies[enemy].identity.sign(Domain::Notice, &[&to_sign]);
            Frame::Notice(Notice { kind, commitment: header.commitment, signature })
        }
        11 => return envelope(world, enemy, side, source).encoded,
        12 => return flood(world, enemy, side, source),
        13 => Frame::Close { reason: CloseReason::Protocol, text: "enough".into() },
        _ => return Bytes::copy_from_slice(source.counted()),
    };
    frame.encode()
}

/// Somebody: a node, an enemy, one of many that nobody knows, or anybody.
pub(super) fn peer(world: &World, source: &mut Source<'_>) -> PeerId {
    match source.byte() {
        byte @ 0..=99 => world.peer(usize::from(byte % 2)),
        byte @ 100..=179 => world.enemies[usize::from(byte % 2)].identity.peer(),
        byte @ 180..=250 => PeerId::from_bytes([byte; 32]),
        _ => PeerId::from_bytes(source.array()),
    }
}

/// The last frame kept from which something can be drawn, going back as far as the input says.
fn of_kept<T>(
    kept: &VecDeque<Bytes>,
    source: &mut Source<'_>,
    draw: impl Fn(Frame) -> Option<T>,
) -> Option<T> {
    let skip = usize::from(source.byte() % 8);
    let frames = kept.iter().rev().filter_map(|frame| Frame::decode(frame.clone()).ok());
    frames.filter_map(draw).nth(skip)
}

fn exchange(kept: &VecDeque<Bytes>, source: &mut Source<'_>) -> u32 {
    let asked = of_kept(kept, source, |frame| match frame {
        Frame::DigestRequest { exchange, .. } => Some(exchange),
        _ => None,
    });
    asked.unwrap_or(0)
}

fn header(kept: &VecDeque<Bytes>, source: &mut Source<'_>) -> Header {
    let heard = of_kept(kept, source, |frame| match frame {
        Frame::Envelope(envelope) => Some(envelope.header),
        Frame::Flood(flood) => Some(flood.header),
        _ => None,
    });
    heard.unwrap_or_else(|| Header {
        source: PeerId::from_bytes(source.array()),
        destination: PeerId::from_bytes(source.array()),
        session: SessionId(source.number()),
        counter: source.number(),
        commitment: source.array(),
    })
}

fn key(kept: &VecDeque<Bytes>, source: &mut Source<'_>) -> EnvelopeKey {
    let attempt = u16::from(source.byte() % 4);
    header(kept, source).key(attempt)
}

fn record(world: &World, enemy: usize, source: &mut Source<'_>) -> Bytes {
    match source.byte() % 8 {
        0 => world.nodes[0].record.clone(),
        1 => world.nodes[1].record.clone(),
        2 => Bytes::copy_from_slice(source.counted()),
        _ => {
            let now = world.now.wall.as_millis();
            let sequence = match source.flag() {
                true => now.saturating_add(source.number()),
                false => source.number(),
            };
            let lifetime = source.flag().then(|| Span::from_secs(source.number()));
            let name = source.flag().then(|| format!("m{}", source.byte()));
            let count = source.byte() % 4;
            let addresses = (0..count).map(|_| address_of(usize::from(source.byte() % 9)));
            let addresses = addresses.collect();
            let claimed = source.byte();
            let claimed = (claimed % 4 == 3).then(|| peer(world, source));
            let network = source.byte();
            let network = (network > 250).then(|| NetworkId::from_bytes([network; 16]));
            let prekeys = match source.byte() % 4 {
                0 => world.record_of(1).prekeys,
                1 => vec![Prekey {
                    id: PrekeyId(1),
                    expires: Timestamp::from_millis(source.number()),
                    public: vec![source.byte(); Prekey::PUBLIC_LEN].into(),
                }],
                _ => Vec::new(),
            };
            let peer = claimed;
            let claims = Claims { sequence, lifetime, name, peer, network, addresses, prekeys };
            world.enemies[enemy].record(world.now, &claims)
        }
    }
}

fn find(world: &World, enemy: usize, source: &mut Source<'_>) -> Bytes {
    let target = peer(world, source);
    let expires = match source.flag() {
        true => world.now.wall + Span::from_secs(source.number()),
        false => Timestamp::from_millis(source.number()),
    };
    let record = record(world, enemy, source);
    let signed = Find::to_sign(source.flag(), source.number(), &target, expires, &record);
    let signature = world.enemies[enemy].identity.sign(Domain::Find, &[&signed]);
    Find::encode(&signed, &signature, source.byte())
}

fn found(world: &World, enemy: usize, source: &mut Source<'_>) -> Bytes {
    let asked = of_kept(&world.kept, source, |frame| match frame {
        Frame::Find(find) => Some((find.direct, find.nonce)),
        _ => None,
    });
    let origin = peer(world, source);
    let record = record(world, enemy, source);
    let (direct, nonce) = asked.unwrap_or((source.flag(), source.number()));
    let signed = Found::to_sign(direct, &origin, nonce, &record);
    let signature = match direct {
        true => world.enemies[enemy].identity.sign(Domain::Found, &[&signed]),
        false => [0; 64],
    };
    Found::encode(&signed, &signature, source.byte())
}

/// What proves that an envelope arrived, if an enemy chose so: few, so that they meet again.
fn preimage(source: &mut Source<'_>) -> [u8; 32] {
    [source.byte(); 32]
}

/// An envelope for somebody else, of which nobody can tell what is in it.
fn transit(world: &World, enemy: usize, source: &mut Source<'_>) -> Envelope {
    let length = match source.byte() {
        short @ 0..=199 => usize::from(short),
        _ => source.small() % Tail::BYTES_MAX,
    };
    let header = Header {
        source: world.enemies[enemy].identity.peer(),
        destination: peer(world, source),
        session: SessionId(source.number()),
        counter: source.number(),
        commitment: commitment_of(&preimage(source)),
    };
    let tail = vec![7; 1 + length];
    Envelope::new(header, 1 + u16::from(source.byte() % 4), &tail)
}

/// An envelope: one for somebody else, or one that is sealed as it should be, whatever is in it.
fn envelope(world: &mut World, enemy: usize, side: usize, source: &mut Source<'_>) -> Envelope {
    let recipient = world.peer(side);
    if source.flag() {
        return transit(world, enemy, source);
    }
    let prekeys = world.record_of(side).prekeys;
    let how = source.byte();
    let content = payload(world.now, source);
    let me = &mut world.enemies[enemy];
    if how & 1 == 1 {
        // Another session, as after a restart.
        me.sessions[side] = None;
    }
    let session =
        prekeys.first().and_then(|prekey| me.session(side, recipient, prekey, &mut world.random));
    let Some(session) = session else {
        return Envelope::new(header(&world.kept, source), 1, b"\0nothing");
    };
    if how & 2 == 2 {
        session.counter = source.number();
    }
    let mut header = Header {
        source: session.context.sender,
        destination: recipient,
        session: session.context.session,
        counter: session.counter,
        commitment: commitment_of(&session.keys.receipt(session.counter)),
    };
    if how & 0x30 == 0x30 {
        header.commitment = source.array();
    }
    let mut sealed = content;
    let sealing = session.keys.seal(session.counter, &header.aad(), &mut sealed);
    sealing.expect("what is short can be sealed");
    session.counter = session.counter.wrapping_add(1);
    let opening = (how & 4 == 0).then_some(&session.opening);
    let attempt = 1 + u16::from(how >> 6);
    Envelope::new(header, attempt, &Tail::encode(opening, &sealed))
}

/// One fragment of such an envelope, flooded.
fn flood(world: &mut World, enemy: usize, side: usize, source: &mut Source<'_>) -> Bytes {
    let expires = world.now.wall + Span::from_secs(source.number() % 1_000);
    let which = usize::from(source.byte());
    let envelope = envelope(world, enemy, side, source);
    let fragments = Flood::to_sign(&envelope, expires);
    let signed = &fragments[which % fragments.len()];
    flooded(&world.enemies[enemy].identity, signed)
}

/// Many floods at once, each of another envelope: short ones for many, in many names.
pub(super) fn storm(world: &World, enemy: usize, source: &mut Source<'_>) -> Vec<Bytes> {
    let (names, salt) = (1 + source.byte() % 8, source.byte());
    let expires = world.now.wall + Span::from_secs(300);
    let floods = (0..source.byte()).map(|number| {
        let minted = (number % names > 0).then(|| minted(number % names));
        let identity = minted.as_ref().unwrap_or(&world.enemies[enemy].identity);
        let header = Header {
            source: identity.peer(),
            destination: PeerId::from_bytes([180 + number % 16; 32]),
            session: SessionId(u64::from(salt)),
            counter: u64::from(number),
            commitment: commitment_of(&[number; 32]),
        };
        let envelope = Envelope::new(header, 1, &[salt; 100]);
        let signed = Flood::to_sign(&envelope, expires).swap_remove(0);
        flooded(identity, &signed)
    });
    floods.collect()
}

/// One of the names in which enemies flood.
fn minted(number: u8) -> Identity {
    Identity::from_seed(&sha256(&[b"minted", &[number]]))
}

fn flooded(by: &Identity, signed: &[u8]) -> Bytes {
    let signature = by.sign(Domain::Flood, &[signed]);
    [&[0x31], signed, &signature].concat().into()
}

/// What may be inside of a seal.
fn payload(now: Now, source: &mut Source<'_>) -> Vec<u8> {
    if source.byte() > 200 {
        return source.counted().to_vec();
    }
    let incarnation = Incarnation(source.number());
    let mut writer = PayloadWriter::new(incarnation, Sequence(source.number()));
    for _ in 0..source.byte() % 8 {
        let sequence = Sequence(source.number());
        let expires = match source.flag() {
            true => now.wall + Span::from_secs(source.number()),
            false => now.wall + Span::from_secs(3_600),
        };
        let subject = source.flag().then(|| "s".repeat(usize::from(source.byte())).into());
        let sent = now.wall;
        let item = match source.byte() % 4 {
            0 => Item::Ping,
            1 => {
                let body = vec![source.byte(); source.small()].into();
                Item::Message { sequence, sent, expires, subject, body }
            }
            2 => Item::Message { sequence, sent, expires, subject, body: Bytes::new() },
            _ => {
                let index = u16::from(source.byte() % 4);
                let whole = CHUNK_BYTES as u64 * u64::from(source.byte() % 5);
                let total = whole.wrapping_add(source.number());
                let before = u64::from(index) * CHUNK_BYTES as u64;
                let length = total.saturating_sub(before).min(CHUNK_BYTES as u64);
                let bytes = vec![7; usize::try_from(length).unwrap_or(0)].into();
                Item::Chunk { sequence, sent, expires, subject, total, index, bytes }
            }
        };
        writer.push(&item);
    }
    writer.finish()
}
