//! If an honest path exists and stays up, the envelope arrives: random networks with relays that
//! answer every find and drop what they are given, and a courier that does what ours does.

use super::net::{BEGIN, Net, record_of};
use crate::crypto::Random;
use crate::model::Span;
use crate::router::Input;
use crate::wire::{Envelope, Found, Frame};

/// The first so many nodes are honest, and connected among themselves.
const HONEST: usize = 6;
const NODES: usize = 9;

fn links(random: &mut Random) -> Vec<(usize, usize)> {
    let mut below = |end: usize| random.below(end as u64) as usize;
    let mut links: Vec<(usize, usize)> = (1..HONEST).map(|node| (below(node), node)).collect();
    for liar in HONEST..NODES {
        links.extend((0..3).map(|_| (below(HONEST), liar)));
    }
    links.retain(|(a, b)| a != b);
    links.iter_mut().for_each(|(a, b)| (*a, *b) = ((*a).min(*b), (*a).max(*b)));
    links.sort_unstable();
    links.dedup();
    links
}

/// Seeks a peer, while liars answer every find that reaches them: it is next to them, they say.
fn locate_among_liars(net: &mut Net, from: usize, to: usize, anew: bool) {
    let mut answered = net.frames.len();
    net.locate(from, to, anew);
    let record = record_of(&net.identities[to], BEGIN).bytes;
    for _ in 0..20 {
        for (asker, liar, frame) in net.frames.split_off(answered.min(net.frames.len())) {
            if let Frame::Find(find) = &frame
                && liar >= HONEST
                && asker < HONEST
                && !find.direct
            {
                let origin = net.ids[from];
                let signed = Found::to_sign(false, &origin, find.nonce, &record);
                let lie = Frame::decode(Found::encode(&signed, &[0; 64], 0)).expect("a found");
                net.inject(liar, asker, &lie);
            }
        }
        answered = net.frames.len();
        net.run(Span::from_millis(1));
    }
    net.run(Span::from_secs(1));
}

/// Sends until there is a receipt; how many attempts that took.
fn deliver(net: &mut Net, from: usize, to: usize, envelope: &Envelope) -> u16 {
    locate_among_liars(net, from, to, false);
    for attempt in 1..=12 {
        let next = envelope.with_attempt(attempt);
        match attempt {
            1..=3 => net.input(from, Input::Send { envelope: next, elsewhere: attempt > 1 }),
            4..=6 => {
                locate_among_liars(net, from, to, true);
                net.input(from, Input::Send { envelope: next, elsewhere: true });
            }
            _ => net.input(from, Input::Flood { envelope: next }),
        }
        net.run(Span::from_secs(3));
        if net.receipts(from, envelope) > 0 {
            return attempt;
        }
    }
    panic!("{from} to {to} never arrived");
}

#[test]
fn envelopes_arrive_wherever_an_honest_path_exists() {
    let mut flooded = 0;
    for seed in 0..60 {
        let mut random = Random::from_seed([seed; 32]);
        let mut net = Net::linked(NODES, links(&mut random));
        let deaf = seed % 2 == 0;
        net.loss = Box::new(move |from, _, frame| {
            from >= HONEST
                && match frame {
                    Frame::Envelope(_) | Frame::Reject { .. } | Frame::Receipt { .. } => true,
                    Frame::Flood(_) => deaf,
                    _ => false,
                }
        });
        let from = random.below(HONEST as u64) as usize;
        let to = (from + 1 + random.below(HONEST as u64 - 1) as usize) % HONEST;
        let envelope = net.envelope(from, to, 1, 2_000);
        let attempts = deliver(&mut net, from, to, &envelope);
        flooded += u32::from(attempts > 6);
        assert!(net.outputs.iter().flatten().all(|o| !format!("{o:?}").contains("Disconnect")));
    }
    assert!(flooded < 10, "routes should mostly do: {flooded} of 60 needed a flood");
}

#[test]
fn a_stream_survives_the_loss_of_the_relay_in_use() {
    for seed in 0..10 {
        let mut net = Net::ring(6);
        net.locate(0, 3, true);
        net.run(Span::from_secs(1));
        let mut random = Random::from_seed([seed; 32]);
        let dies_at = random.below(20);
        let mut gone = None;
        for counter in 0..20 {
            let envelope = net.envelope(0, 3, counter, 500);
            net.send_envelope(0, &envelope);
            net.run(Span::from_micros(random.below(3_000)));
            if counter == dies_at {
                let relay = net.ways(0, 3)[0].0;
                net.unlink(0, relay);
                gone = Some(relay);
            }
        }
        net.run(Span::from_secs(2));
        assert!(gone.is_some());
        for counter in 0..20 {
            let envelope = net.envelope(0, 3, counter, 500);
            assert_eq!(net.receipts(0, &envelope), 1, "{counter} of seed {seed}");
        }
        let mut delivered = net.delivered(3);
        delivered.sort_unstable();
        delivered.dedup();
        assert_eq!(delivered.len(), 20, "none is delivered twice by the same attempt");
        assert_eq!(net.delivered(3).len(), 20);
    }
}
