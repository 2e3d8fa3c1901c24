//! A network of two nodes and two enemies, driven by decoded actions: what the enemies say, what
//! clients ask, what becomes of disks, links and clocks.

mod calls;
mod enemy;
mod world;

use bytes::{Bytes, BytesMut};
use distmsg::model::{Span, Timestamp};
use distmsg::node::core::{DialFailure, Input, LinkId, LinkUp};
use distmsg::wire::CloseReason;

use self::world::{Fate, Other, World, address_of};
use super::source::Source;

/// Actions in one input.
const ACTIONS_MAX: usize = 400;

/// Runs one input.
pub(crate) fn node(input: &[u8]) {
    let mut world = World::new();
    let mut source = Source::new(input);
    for _ in 0..ACTIONS_MAX {
        if source.is_empty() || world.is_over() {
            break;
        }
        act(&mut world, &mut source);
    }
    // Whatever happened, whoever is left goes on.
    world.batching = false;
    for _ in 0..8 {
        world.wait_for_deadline();
        world.settle();
    }
}

fn act(world: &mut World, source: &mut Source<'_>) {
    let action = source.byte();
    let side = usize::from(action >> 7);
    match action & 0x1f {
        0 | 1 => world.settle(),
        2 | 3 => calls::call(world, side, source),
        4..=7 => say(world, side, source),
        8 | 9 => interfere(world, side, source),
        10 => pass_some(world, side, source),
        11 => replay(world, side, source),
        12 => complete(world, side, source),
        13 => world.wait_for_deadline(),
        14 => world.wait(Span::from_millis(source.number() % 100_000)),
        15 => world.wait(Span::from_secs(source.number() % (40 * 86_400))),
        16 => set_clock(world, source),
        17 => up(world, side, source),
        18 => {
            if let Some(link) = link_of(world, side, source) {
                world.cut(side, link);
            }
        }
        19 => stall(world, side, source),
        20 | 21 => dialled(world, side, source),
        22 => world.input(side, Input::Entropy(source.array())),
        23 => world.start(side),
        24 => world.crash(side),
        25 => calls::leave(world, side, source),
        26 => world.batching = !world.batching,
        27 => {
            if let Some(core) = &mut world.nodes[side].core {
                core.hurry();
                world.finish(side);
            }
        }
        28 => world.link_directly(None),
        29 => live(world, source),
        30 => unexpected(world, side, source),
        _ => {
            let link = link_of(world, side, source);
            let bytes = usize::try_from(source.number()).unwrap_or(usize::MAX);
            world.input(side, Input::Written { link: link.unwrap_or(LinkId(999)), bytes });
        }
    }
}

/// One of a node's links.
fn link_of(world: &World, side: usize, source: &mut Source<'_>) -> Option<LinkId> {
    let links: Vec<_> = world.nodes[side].links.keys().copied().collect();
    (!links.is_empty()).then(|| *source.pick(&links))
}

/// One of a node's links to an enemy, and which.
fn hostile_link(world: &World, side: usize, source: &mut Source<'_>) -> Option<(LinkId, usize)> {
    let links = world.nodes[side].links.iter().filter_map(|(link, state)| match state.other {
        Other::Enemy(enemy) => Some((*link, enemy)),
        Other::Node(_) => None,
    });
    let links: Vec<_> = links.collect();
    (!links.is_empty()).then(|| *source.pick(&links))
}

/// An enemy says something of its own.
fn say(world: &mut World, side: usize, source: &mut Source<'_>) {
    let Some((link, enemy)) = hostile_link(world, side, source) else { return };
    let count = source.byte();
    if count >= 240 {
        let frames = enemy::storm(world, enemy, source);
        return world.hear(side, link, &frames);
    }
    let frames: Vec<_> = (0..=count % 4)
        .map(|_| enemy::forge(world, enemy, side, source))
        .filter(|frame| !frame.is_empty())
        .collect();
    world.hear(side, link, &frames);
}

/// An enemy drops, alters, doubles or turns back what comes next.
fn interfere(world: &mut World, side: usize, source: &mut Source<'_>) {
    let Some((link, _)) = hostile_link(world, side, source) else { return };
    let way = world.way(side, link);
    let Some(frame) = world.take(side, link) else { return };
    let how = source.byte() % 6;
    if how == 5 {
        return world.hear(side, link, &[frame]);
    }
    let Some((to, on)) = way else { return };
    match how {
        0 => {}
        1 => world.hear(to, on, &[frame.clone(), frame]),
        _ => {
            let altered = altered(&frame, source);
            world.hear(to, on, &[altered]);
        }
    }
}

/// The same bytes but for some.
fn altered(frame: &Bytes, source: &mut Source<'_>) -> Bytes {
    let mut altered = BytesMut::from(&frame[..]);
    for _ in 0..=source.byte() % 3 {
        let at = source.small() % altered.len().max(1);
        match source.byte() % 4 {
            0 => altered.truncate(at.max(1)),
            1 => altered.extend_from_slice(source.counted()),
            _ => {
                let with = source.byte();
                if let Some(byte) = altered.get_mut(at) {
                    *byte ^= with;
                }
            }
        }
    }
    altered.freeze()
}

fn pass_some(world: &mut World, side: usize, source: &mut Source<'_>) {
    let Some(link) = link_of(world, side, source) else { return };
    for _ in 0..=source.byte() {
        if world.is_over() || !world.pass(side, link) {
            return;
        }
    }
}

/// An enemy says again what it has heard.
fn replay(world: &mut World, side: usize, source: &mut Source<'_>) {
    let Some((link, _)) = hostile_link(world, side, source) else { return };
    let skip = usize::from(source.byte());
    let Some(frame) = world.kept.iter().rev().nth(skip).cloned() else { return };
    let frame = if source.flag() { altered(&frame, source) } else { frame };
    world.hear(side, link, &[frame]);
}

fn complete(world: &mut World, side: usize, source: &mut Source<'_>) {
    let fate = match source.byte() {
        0..=127 => Fate::Done,
        128..=239 => Fate::Full,
        240..=247 => Fate::Broken,
        _ => Fate::BrokenLate,
    };
    for _ in 0..=source.byte() % 8 {
        world.complete(side, fate);
    }
}

/// Calendar time jumps.
fn set_clock(world: &mut World, source: &mut Source<'_>) {
    let by = Span::from_secs(source.number());
    world.now.wall = match source.byte() % 4 {
        0 => world.now.wall + by,
        1 => Timestamp::from_millis(source.number()),
        _ => world.now.wall - by,
    };
    world.finish(0);
    world.finish(1);
}

/// An enemy links, with whatever record.
fn up(world: &mut World, side: usize, source: &mut Source<'_>) {
    let enemy = usize::from(source.byte() % 2);
    if source.flag() {
        return world.link(side, enemy);
    }
    let record = Bytes::copy_from_slice(source.counted());
    let peer = world.enemies[enemy].identity.peer();
    world.up(side, peer, Other::Enemy(enemy), None, record);
}

fn stall(world: &mut World, side: usize, source: &mut Source<'_>) {
    let stalled = source.flag();
    if let Some(link) = link_of(world, side, source) {
        world.stall(side, link, stalled);
    }
}

/// A dial comes to its end.
fn dialled(world: &mut World, side: usize, source: &mut Source<'_>) {
    let Some(dial) = world.nodes[side].dials.pop_front() else { return };
    let who = (0..4).find(|who| address_of(*who) == dial.address);
    let of_enemy = |world: &World, enemy: usize| {
        let sequence = world.now.wall.as_millis();
        let claims = enemy::Claims { sequence, ..Default::default() };
        let enemy = &world.enemies[enemy];
        (enemy.identity.peer(), enemy.record(world.now, &claims))
    };
    let failure = match (source.byte() % 8, who) {
        (0, _) => DialFailure::Identity { found: world.enemies[0].identity.peer() },
        (1, _) => DialFailure::Refused { reason: CloseReason::Busy, text: "full".to_owned() },
        (2, _) => DialFailure::Refused { reason: CloseReason::Myself, text: String::new() },
        (_, Some(who)) if who >= 2 => {
            let (peer, record) = of_enemy(world, who - 2);
            match dial.expected {
                Some(expected) if expected != peer => DialFailure::Identity { found: peer },
                _ if dial.probe => {
                    return world.input(side, Input::Probed { dial: dial.dial, peer, record });
                }
                _ => return world.up(side, peer, Other::Enemy(who - 2), Some(dial.dial), record),
            }
        }
        (_, Some(who)) if who != side && !dial.probe && side == 0 => {
            match dial.expected == Some(world.peer(1)) {
                true => return world.link_directly(Some(dial.dial)),
                false => DialFailure::Identity { found: world.peer(1) },
            }
        }
        _ => DialFailure::Unreachable { reason: "nothing answers".to_owned() },
    };
    world.input(side, Input::DialFailed { dial: dial.dial, failure });
}

/// Everything is carried while time passes.
fn live(world: &mut World, source: &mut Source<'_>) {
    for _ in 0..=source.byte() % 64 {
        if world.is_over() {
            return;
        }
        world.wait_for_deadline();
        world.settle();
    }
}

/// What the shell says of links and dials that are over already: its events and the core's cross.
fn unexpected(world: &mut World, side: usize, source: &mut Source<'_>) {
    let link = LinkId(source.number());
    let known = world.nodes[side].links.contains_key(&link);
    let dial = distmsg::node::core::DialId(source.number());
    let pending = world.nodes[side].dials.iter().any(|pending| pending.dial == dial);
    match source.byte() % 4 {
        0 if !known => {
            world.input(side, Input::LinkDown { link, reason: "late".to_owned() });
        }
        1 if !pending => {
            let failure = DialFailure::Unreachable { reason: "late".to_owned() };
            world.input(side, Input::DialFailed { dial, failure });
        }
        2 if !pending => {
            let peer = world.enemies[0].identity.peer();
            world.input(side, Input::Probed { dial, peer, record: Bytes::new() });
        }
        3 if !known && !pending => {
            // Whoever links in its own name with a node that it is.
            let peer = world.peer(side);
            let (address, record) = (address_of(side), world.nodes[side].record.clone());
            let up = LinkUp { link, peer, dial: None, address, instance: 1, record };
            world.nodes[side].links.insert(link, world::Link::new(Other::Enemy(0)));
            world.input(side, Input::LinkUp(up));
        }
        _ => {}
    }
}
