//! How fast frames are read from bytes, and how much one link carries over loopback, with
//! encryption, from a queue at one end to events at the other.
//!
//! Both ends share this machine's processors. The latency bench is a ping and its pong.

#![expect(clippy::expect_used, reason = "a benchmark that cannot run should say so and stop")]

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use distmsg::crypto::Identity;
use distmsg::link::{DialId, Endpoint, EndpointConfig, Event, LinkHandle, Membership, Purpose};
use distmsg::model::{PeerId, SessionId};
use distmsg::wire::{Envelope, Frame, Header, split_frames};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{self, Receiver};

fn main() {
    divan::main();
}

const SIZES: &[usize] = &[128, 60 * 1024];

#[divan::bench(args = SIZES)]
fn decode_envelope(bencher: Bencher<'_, '_>, body: usize) {
    let frame = envelope(body);
    bencher
        .counter(ItemsCount::new(1_usize))
        .counter(BytesCount::new(frame.len()))
        .bench_local(|| Frame::decode(divan::black_box(&frame).clone()).expect("a frame"));
}

/// What a reader does with 256 KiB: split, and decode each.
#[divan::bench(args = SIZES)]
fn split_and_decode(bencher: Bencher<'_, '_>, body: usize) {
    let frame = envelope(body);
    let count = 256 * 1024 / frame.len();
    let mut read = BytesMut::new();
    for _ in 0..count {
        read.put_u32(u32::try_from(frame.len()).expect("short"));
        read.put_slice(&frame);
    }
    bencher
        .counter(ItemsCount::new(count))
        .counter(BytesCount::new(read.len()))
        .with_inputs(|| read.clone())
        .bench_local_values(|mut read| {
            let mut frames = Vec::with_capacity(count);
            while let Some(bytes) = split_frames(&mut read).expect("frames") {
                frames.push(Frame::decode(bytes).expect("a frame"));
            }
            frames
        });
}

/// So many bytes of frames in one direction, until the other end has all of them.
#[divan::bench(args = [200, 60 * 1024], sample_count = 20)]
fn throughput(bencher: Bencher<'_, '_>, size: usize) {
    const TOTAL: usize = 24 * 1024 * 1024;
    let mut pair = Pair::new(2);
    let frame = envelope(size.saturating_sub(116));
    let count = TOTAL / frame.len();
    // Handed over as a node would: in batches of some frames.
    let batch = (64 * 1024 / frame.len()).max(1);
    bencher.counter(ItemsCount::new(count)).counter(BytesCount::new(TOTAL)).bench_local(|| {
        let mut left = count;
        while left > 0 {
            let now = left.min(batch);
            pair.near.send(vec![frame.clone(); now]);
            left -= now;
        }
        pair.wait(count);
    });
}

/// One small frame there and one back: two wake-ups of each end. With no worker threads, one
/// thread does it all.
#[divan::bench(sample_count = 2_000, args = [0, 1, 2])]
fn round_trip(bencher: Bencher<'_, '_>, workers: usize) {
    let mut pair = Pair::new(workers);
    let frame = envelope(128);
    bencher.bench_local(|| {
        pair.near.send(vec![frame.clone()]);
        pair.wait(1);
        pair.far.send(vec![frame.clone()]);
        pair.wait_near(1);
    });
}

/// From connecting to `Up` at both ends.
#[divan::bench(sample_count = 200)]
fn handshake(bencher: Bencher<'_, '_>) {
    let mut pair = Pair::new(2);
    let mut id = 100;
    bencher.bench_local(|| {
        id += 1;
        pair.link(id)
    });
}

/// Two endpoints in one process and a link between them.
struct Pair {
    runtime: Runtime,
    dialler: Endpoint,
    listener: Endpoint,
    near: LinkHandle,
    far: LinkHandle,
    near_events: Receiver<Event>,
    far_events: Receiver<Event>,
}

impl Pair {
    fn new(workers: usize) -> Self {
        let mut builder = match workers {
            0 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = builder.worker_threads(workers.max(1)).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (near_sender, mut near_events) = mpsc::channel(64);
        let (far_sender, mut far_events) = mpsc::channel(64);
        let (dialler, listener, near, far) = runtime.block_on(async {
            let dialler = Endpoint::start(config(1), near_sender).await.expect("started");
            let listener = Endpoint::start(config(2), far_sender).await.expect("started");
            let (near, far) = link(1, &dialler, &listener, &mut near_events, &mut far_events).await;
            (dialler, listener, near, far)
        });
        Self { runtime, dialler, listener, near, far, near_events, far_events }
    }

    fn link(&mut self, id: u64) -> (LinkHandle, LinkHandle) {
        let (near, far) = (&mut self.near_events, &mut self.far_events);
        self.runtime.block_on(link(id, &self.dialler, &self.listener, near, far))
    }

    fn wait(&mut self, count: usize) {
        self.runtime.block_on(receive(&mut self.far_events, &mut self.near_events, count));
    }

    fn wait_near(&mut self, count: usize) {
        self.runtime.block_on(receive(&mut self.near_events, &mut self.far_events, count));
    }
}

/// Takes frames from one end, and whatever comes at the other, until there were so many.
async fn receive(here: &mut Receiver<Event>, there: &mut Receiver<Event>, count: usize) {
    let mut got = 0;
    while got < count {
        tokio::select! {
            event = here.recv() => {
                if let Event::Frames { frames, .. } = event.expect("running") {
                    got += frames.len();
                }
            }
            event = there.recv() => drop(event.expect("running")),
        }
    }
}

async fn link(
    id: u64,
    dialler: &Endpoint,
    listener: &Endpoint,
    near_events: &mut Receiver<Event>,
    far_events: &mut Receiver<Event>,
) -> (LinkHandle, LinkHandle) {
    let address = *listener.listening().first().expect("listening");
    dialler.dial(DialId(id), address.into(), None, Purpose::Link);
    tokio::join!(up(near_events), up(far_events))
}

async fn up(events: &mut Receiver<Event>) -> LinkHandle {
    loop {
        if let Event::Up { handle, .. } = events.recv().await.expect("running") {
            return handle;
        }
    }
}

fn config(seed: u8) -> EndpointConfig {
    let identity = Arc::new(Identity::from_seed(&[seed; 32]));
    let mut config = EndpointConfig::new(identity, Membership::Open, u64::from(seed));
    config.listen = vec!["127.0.0.1:0".parse().expect("an address")];
    config
}

fn envelope(body: usize) -> Bytes {
    let header = Header {
        source: PeerId::from_bytes([1; 32]),
        destination: PeerId::from_bytes([2; 32]),
        session: SessionId(3),
        counter: 4,
        commitment: [5; 32],
    };
    Envelope::new(header, 1, &vec![7; body]).encoded
}
