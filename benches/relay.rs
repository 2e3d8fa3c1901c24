//! What a relay does with an envelope: decode, look up, pass on; and pass its receipt back.

#![expect(clippy::expect_used, reason = "a benchmark that cannot run should say so and stop")]

use std::sync::Arc;

use bytes::Bytes;
use distmsg::crypto::{Domain, Identity, commitment_of};
use distmsg::model::{
    Limits, Monotonic, NetworkId, Now, PeerId, Record, SessionId, SignedRecord, Span, Timestamp,
};
use distmsg::router::{Input, Output, Router};
use distmsg::wire::{Envelope, Frame, Header, encode_record, record_with_signature};
use divan::Bencher;
use divan::counter::ItemsCount;

fn main() {
    divan::main();
}

/// Envelopes passed in one iteration.
const BATCH: u64 = 64;

fn now(micros: u64) -> Now {
    let mono = Monotonic::from_micros(1_000_000 + micros);
    Now { mono, wall: Timestamp::from_millis(1_700_000_000_000 + micros / 1_000) }
}

fn record(identity: &Identity) -> SignedRecord {
    let record = Record {
        network: NetworkId::OPEN,
        peer: identity.peer(),
        sequence: now(0).wall.as_millis(),
        expires: now(0).wall + Span::from_secs(86_400),
        name: None,
        addresses: Vec::new(),
        prekeys: Vec::new(),
    };
    let content = encode_record(&record);
    let signature = identity.sign(Domain::Record, &[&content]);
    SignedRecord { record, bytes: record_with_signature(content, &signature) }
}

/// A relay between two neighbours.
fn relay(source: &Identity, destination: &Identity) -> Router {
    let identity = Arc::new(Identity::from_seed(&[1; 32]));
    let own = record(&identity);
    let mut router = Router::new(identity, NetworkId::OPEN, Limits::default(), [1; 32]);
    router.handle(now(0), Input::OwnRecord(own));
    for neighbour in [source, destination] {
        let record = record(neighbour).bytes;
        router.handle(now(0), Input::LinkUp { neighbour: neighbour.peer(), record });
    }
    while router.poll_output().is_some() {}
    router
}

fn envelope(source: PeerId, destination: PeerId, counter: u64, size: usize) -> (Bytes, [u8; 32]) {
    let mut preimage = [9; 32];
    preimage[..8].copy_from_slice(&counter.to_be_bytes());
    let commitment = commitment_of(&preimage);
    let header = Header { source, destination, session: SessionId(1), counter, commitment };
    (Envelope::new(header, 1, &vec![0; size]).encoded, preimage)
}

#[divan::bench(args = [128, 60 * 1024])]
fn decode_forward_and_receipt(bencher: Bencher<'_, '_>, size: usize) {
    let (source, destination) = (Identity::from_seed(&[2; 32]), Identity::from_seed(&[3; 32]));
    let (from, to) = (source.peer(), destination.peer());
    let mut router = relay(&source, &destination);
    let mut counter = 0;
    let make = || {
        let first = counter;
        counter += BATCH;
        (first..counter).map(|n| envelope(from, to, n, size)).collect::<Vec<_>>()
    };
    bencher.counter(ItemsCount::new(BATCH)).with_inputs(make).bench_local_values(|batch| {
        for (encoded, preimage) in batch {
            let frame = Frame::decode(encoded).expect("an envelope");
            router.handle(now(0), Input::Frame { from, frame });
            let mut bytes = 0;
            while let Some(output) = router.poll_output() {
                if let Output::Send { neighbour, frame } = output {
                    assert_eq!(neighbour, to, "it was not passed on");
                    bytes += frame.len();
                }
            }
            router.handle(now(0), Input::Written { neighbour: to, bytes });
            let receipt = Frame::Receipt { preimage };
            router.handle(now(0), Input::Frame { from: to, frame: receipt });
            while let Some(output) = router.poll_output() {
                if let Output::Send { neighbour, frame } = output {
                    let bytes = frame.len();
                    router.handle(now(0), Input::Written { neighbour, bytes });
                }
            }
        }
    });
}
