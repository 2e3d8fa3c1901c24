//! Links: signs of life, and that equal inputs give equal outputs.

use super::net::{BEGIN, Net, record_of};
use crate::model::limits::{LINK_SILENCE_MAX, PING_INTERVAL};
use crate::model::{Now, Span};
use crate::router::{Input, Output};
use crate::wire::{CloseReason, Frame, Hello};

const fn is_ping(_: usize, _: usize, frame: &Frame) -> bool {
    matches!(frame, Frame::Ping { .. })
}

#[test]
fn idle_links_are_pinged_and_their_round_trip_is_known() {
    let mut net = Net::line(2);
    assert_eq!(
        net.routers[0].neighbour(&net.ids[1]).and_then(|n| n.rtt),
        Some(Span::from_millis(2))
    );
    net.run(PING_INTERVAL.times(4));
    let pings = net.count(is_ping);
    assert!((4..=8).contains(&pings), "{pings} pings in a minute");
    let view = net.routers[0].neighbour(&net.ids[1]).expect("a neighbour");
    assert_eq!((view.rtt_last, view.queued_bytes), (Some(Span::from_millis(2)), 0));
}

#[test]
fn a_silent_link_dies_in_time() {
    let mut net = Net::line(2);
    net.loss = Box::new(|from, _, _| from == 1);
    net.run(LINK_SILENCE_MAX + Span::from_millis(100));
    assert!(!net.is_linked(0, 1));
    let reason = net.outputs[0].iter().find_map(|output| match output {
        Output::Disconnect { reason, .. } => Some(*reason),
        _ => None,
    });
    assert_eq!(reason, Some(CloseReason::Silent));
    assert_eq!(net.routers[0].neighbours().count(), 0);
}

#[test]
fn a_process_that_was_stopped_does_not_blame_its_neighbours() {
    let mut net = Net::line(2);
    let later = net.now.mono + Span::from_secs(300);
    net.now = Now { mono: later, wall: BEGIN + Span::from_secs(302) };
    net.run(Span::from_secs(30));
    assert!(net.is_linked(0, 1));
}

#[test]
fn a_second_hello_ends_the_link_and_a_close_is_heeded() {
    let mut net = Net::linked(3, [(0, 1), (0, 2)]);
    let hello = Hello {
        version: 1,
        features: 0,
        instance: 0,
        network: crate::model::NetworkId::OPEN,
        proof: [0; 32],
        record: record_of(&net.identities[1], BEGIN).bytes,
    };
    net.inject(1, 0, &Frame::Hello(hello));
    net.inject(2, 0, &Frame::Close { reason: CloseReason::Stopping, text: "bye".into() });
    let reasons: Vec<CloseReason> = net.outputs[0]
        .iter()
        .filter_map(|output| match output {
            Output::Disconnect { reason, .. } => Some(*reason),
            _ => None,
        })
        .collect();
    assert_eq!(reasons, [CloseReason::Protocol, CloseReason::Stopping]);
    net.inject(1, 0, &Frame::Ping { nonce: 1 });
    assert_eq!(net.count(|_, _, f| matches!(f, Frame::Pong { .. })), 0, "it is not heard any more");
}

#[test]
fn we_are_not_our_own_neighbour() {
    let mut net = Net::new(1);
    let record = record_of(&net.identities[0], BEGIN).bytes;
    let neighbour = net.ids[0];
    net.routers[0].handle(net.now, Input::LinkUp { neighbour, record });
    let output = net.routers[0].poll_output();
    assert!(matches!(output, Some(Output::Disconnect { reason: CloseReason::Myself, .. })));
}

#[test]
fn an_idle_node_seldom_wakes() {
    let mut net = Net::new(1);
    let mut ticks = 0;
    while net.routers[0].deadline() < net.now.mono + Span::from_secs(3_600) {
        let at = net.routers[0].deadline();
        net.routers[0].tick(Now { mono: at, wall: BEGIN });
        while net.routers[0].poll_output().is_some() {}
        ticks += 1;
    }
    assert!(ticks <= 70, "{ticks} in an hour");
}

#[test]
fn equal_seeds_and_inputs_give_equal_outputs() {
    let run = || {
        let mut net = Net::ring(6);
        let mut lost = 0_u32;
        net.loss = Box::new(move |_, _, _| {
            lost += 1;
            lost.is_multiple_of(7)
        });
        net.locate(0, 3, false);
        net.run(Span::from_secs(4));
        for counter in 0..20 {
            let envelope = net.envelope(0, 3, counter, 3_000);
            net.send_envelope(0, &envelope);
            net.run(Span::from_millis(700));
            if counter == 10 {
                net.unlink(1, 2);
            }
        }
        let envelope = net.envelope(0, 3, 99, 9_000);
        net.input(0, Input::Flood { envelope });
        net.run(Span::from_secs(700));
        (net.frames, net.outputs)
    };
    let (frames, outputs) = run();
    let again = run();
    assert!(frames.len() > 100);
    assert!(frames == again.0 && outputs == again.1);
}
