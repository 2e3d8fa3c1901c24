//! What clients ask.

use bytes::Bytes;
use distmsg::control::codec::decode_request;
use distmsg::control::protocol::{
    Ack, Connect, Discover, InboxQuery, Listen, Page, PeerRef, Ping, Probe, Read, Request,
    SetAlias, Subscribe, Topic, Unsubscribe, Wait,
};
use distmsg::control::{Call, SendRequest};

use super::super::source::Source;
use super::enemy::peer;
use super::world::{World, address_of};

/// Bytes of a body; twice as many, and more than one chunk, if the input says so.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// A client makes a request.
pub(super) fn call(world: &mut World, side: usize, source: &mut Source<'_>) {
    let client = world.client(side, source.byte());
    let call = match source.byte() % 24 {
        0..=5 => Some(Call::Send(send(world, side, source))),
        6 => typed(source),
        other => Some(Call::Other(request(world, side, other, source))),
    };
    if let Some(call) = call {
        world.call(side, client, call);
    }
}

/// A client leaves.
pub(super) fn leave(world: &mut World, side: usize, source: &mut Source<'_>) {
    world.leave(side, source.byte());
}

/// A line that somebody typed. What the connection itself takes care of does not come to the node.
fn typed(source: &mut Source<'_>) -> Option<Call> {
    match decode_request(source.counted()).request {
        Err(_) | Ok(Request::Send(_) | Request::UploadBegin(_) | Request::UploadChunk(_)) => None,
        Ok(request) => Some(Call::Other(request)),
    }
}

/// However somebody may be named.
fn name(world: &World, source: &mut Source<'_>) -> String {
    let full = peer(world, source).to_string();
    match source.byte() % 8 {
        0..=4 => full,
        5 => full.chars().take(usize::from(source.byte() % 16)).collect(),
        6 => ["alice", "bob", "m1", "nobody"][usize::from(source.byte() % 4)].to_owned(),
        _ => String::from_utf8_lossy(source.counted()).into_owned(),
    }
}

fn send(world: &World, side: usize, source: &mut Source<'_>) -> SendRequest {
    let peer = match source.byte() % 4 {
        0 => name(world, source),
        _ => world.peer(1 - side).to_string(),
    };
    let length = match source.byte() % 8 {
        0 => source.small() % BODY_BYTES_MAX,
        1 => source.small() * 3,
        _ => usize::from(source.byte()),
    };
    // No two are alike.
    let mut body = world.next_body(side).to_be_bytes().to_vec();
    body.resize(body.len() + length, source.byte());
    let waits = [Wait::Delivered, Wait::Sent, Wait::Queued];
    SendRequest {
        peer,
        body: Bytes::from(body),
        subject: source.flag().then(|| "s".repeat(usize::from(source.byte())).into()),
        wait: *source.pick(&waits),
        timeout_ms: source.flag().then(|| source.number()),
        key: (source.byte() % 4 == 3).then(|| format!("key {}", source.byte() % 4).into()),
    }
}

fn page(world: &World, source: &mut Source<'_>) -> Page {
    let after = match source.byte() % 4 {
        0 => Some(name(world, source)),
        1 => Some(source.number().to_string()),
        _ => None,
    };
    Page { after, limit: source.flag().then(|| u32::from(source.byte())) }
}

fn request(world: &World, side: usize, which: u8, source: &mut Source<'_>) -> Request {
    match which {
        7 | 8 => Request::Listen(Listen {
            name: format!("l{}", source.byte() % 3),
            from: (source.byte() % 4 == 3).then(|| name(world, source)),
            since: (source.byte() % 4 == 3).then(|| "2023-11-14T22:13:20Z".to_owned()),
            window: u32::from(source.byte()),
        }),
        9 | 10 => Request::Ack(ack(world, side, source)),
        11 => Request::Connect(Connect {
            peer: name(world, source),
            address: address_of(usize::from(source.byte() % 5)).to_string(),
            alias: source.flag().then(|| format!("a{}", source.byte() % 3)),
            timeout_ms: source.number(),
        }),
        12 => Request::Disconnect(PeerRef { peer: name(world, source) }),
        13 => Request::Forget(PeerRef { peer: name(world, source) }),
        14 => Request::Alias(SetAlias {
            peer: name(world, source),
            alias: source.flag().then(|| format!("a{}", source.byte() % 3)),
        }),
        15 => Request::Peers(page(world, source)),
        16 => Request::Routes(page(world, source)),
        17 => Request::Ping(Ping { peer: name(world, source), timeout_ms: source.number() }),
        18 => Request::Discover(Discover { timeout_ms: source.number() }),
        19 => Request::Inbox(InboxQuery {
            after: source.flag().then(|| source.number()),
            limit: source.flag().then(|| u32::from(source.byte())),
            from: source.flag().then(|| name(world, source)),
        }),
        20 => Request::Outbox(page(world, source)),
        21 => Request::Read(Read {
            cursor: source.number(),
            offset: source.number(),
            bytes: u32::try_from(source.number()).unwrap_or(u32::MAX),
        }),
        22 => {
            let topics = [Topic::Messages, Topic::Links, Topic::Traffic];
            let count = source.byte() % 4;
            Request::Subscribe(Subscribe {
                topics: (0..count).map(|_| *source.pick(&topics)).collect(),
            })
        }
        _ => match source.byte() % 3 {
            0 => Request::Status {},
            1 => Request::Probe(Probe {
                address: address_of(usize::from(source.byte() % 5)).to_string(),
                timeout_ms: source.number(),
            }),
            _ => Request::Unsubscribe(Unsubscribe {
                subscription: subscription(world, side, source),
            }),
        },
    }
}

fn ack(world: &World, side: usize, source: &mut Source<'_>) -> Ack {
    let subscription = subscription(world, side, source);
    let leased = &world.nodes[side].cursors;
    let cursors = match source.byte() % 4 {
        0 => vec![source.number(), source.number()],
        1 => leased.iter().rev().step_by(2).take(1_024).copied().collect(),
        _ => leased.iter().take(1_024).copied().collect(),
    };
    Ack { subscription, cursors }
}

fn subscription(world: &World, side: usize, source: &mut Source<'_>) -> u64 {
    let known = &world.nodes[side].subscriptions;
    match known.is_empty() {
        true => source.number(),
        false => source.pick(known).1,
    }
}
