//! Links over loopback: ordinary use, and everything that strangers and bad peers may try.

mod hostile;
mod ordinary;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::*;
use crate::crypto::{Identity, NetworkKey};
use crate::model::{Address, PeerId};
use crate::wire::{Envelope, Frame, Header};

/// How long a test waits for anything: far longer than it takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// An endpoint and what happens at it.
struct Node {
    peer: PeerId,
    endpoint: Endpoint,
    events: mpsc::Receiver<Event>,
}

/// A link as its `Up` described it.
struct Up {
    id: LinkId,
    peer: PeerId,
    direction: Direction,
    dial: Option<DialId>,
    instance: u64,
    record: Bytes,
    handle: LinkHandle,
}

impl Node {
    async fn start(seed: u8) -> Self {
        Self::start_with(seed, Membership::Open, |_| {}).await
    }

    async fn start_with(
        seed: u8,
        network: Membership,
        change: impl FnOnce(&mut EndpointConfig),
    ) -> Self {
        let mut config = EndpointConfig::new(identity(seed), network, u64::from(seed));
        config.listen = vec!["127.0.0.1:0".parse().expect("an address")];
        config.record = record(seed);
        change(&mut config);
        let (sender, events) = mpsc::channel(16);
        let endpoint = Endpoint::start(config, sender).await.expect("listening");
        Self { peer: identity(seed).peer(), endpoint, events }
    }

    fn address(&self) -> Address {
        self.endpoint.listening()[0].into()
    }

    fn dial(&self, id: u64, other: &Self) {
        self.endpoint.dial(DialId(id), other.address(), Some(other.peer), Purpose::Link);
    }

    async fn next(&mut self, what: &str) -> Event {
        let event = timeout(PATIENCE, self.events.recv()).await;
        event.unwrap_or_else(|_| panic!("waited in vain for {what}")).expect("running")
    }

    async fn up(&mut self) -> Up {
        match self.next("Up").await {
            Event::Up { link: id, peer, direction, dial, instance, record, handle, .. } => {
                Up { id, peer, direction, dial, instance, record, handle }
            }
            other => panic!("{other:?} instead of Up"),
        }
    }

    /// Waits for `Down` of a link, past what still comes of it.
    async fn down(&mut self, id: LinkId) -> Ended {
        loop {
            match self.next("Down").await {
                Event::Down { link, ended } if link == id => return ended,
                Event::Frames { .. } | Event::Written { .. } | Event::Refused { .. } => {}
                other => panic!("{other:?} instead of Down"),
            }
        }
    }

    async fn dial_error(&mut self) -> DialError {
        match self.next("DialFailed").await {
            Event::DialFailed { error, .. } => error,
            other => panic!("{other:?} instead of DialFailed"),
        }
    }

    async fn refused(&mut self) -> (Option<PeerId>, String) {
        match self.next("Refused").await {
            Event::Refused { peer, reason, .. } => (peer, reason),
            other => panic!("{other:?} instead of Refused"),
        }
    }

    /// The next `count` frames of a link.
    async fn frames(&mut self, count: usize) -> Vec<Frame> {
        let mut got = Vec::new();
        while got.len() < count {
            match self.next("Frames").await {
                Event::Frames { frames, .. } => got.extend(frames),
                Event::Written { .. } => {}
                other => panic!("{other:?} instead of Frames"),
            }
        }
        got
    }
}

async fn linked(dialler: &mut Node, listener: &mut Node) -> (Up, Up) {
    dialler.dial(7, listener);
    (dialler.up().await, listener.up().await)
}

fn identity(seed: u8) -> Arc<Identity> {
    Arc::new(Identity::from_seed(&[seed; 32]))
}

fn closed(key: u8) -> Membership {
    Membership::Closed(NetworkKey::from_bytes(Zeroizing::new([key; 32])))
}

fn record(seed: u8) -> Bytes {
    Bytes::from(vec![seed; 100])
}

fn ping(nonce: u64) -> Bytes {
    Frame::Ping { nonce }.encode()
}

/// An envelope whose sealed body is these bytes.
fn envelope(body: &[u8]) -> Bytes {
    let header = Header {
        source: PeerId::from_bytes([1; 32]),
        destination: PeerId::from_bytes([2; 32]),
        session: crate::model::SessionId(3),
        counter: 4,
        commitment: [5; 32],
    };
    Envelope::new(header, 1, body).encoded
}
