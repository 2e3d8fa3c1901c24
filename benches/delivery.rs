//! Delivery through real links, real disks and real control connections, all nodes in one process.
//!
//! It prints messages a second of 128 bytes, pipelined by one client and counted when the
//! recipient's proof is back, and the time of single messages on an idle system, over one hop and
//! over two. The temporary directory should be on a real disk (`TMPDIR`). `--test` (which
//! `cargo test --benches` gives) runs it small.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench reports and may panic")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use distmsg::control::client::{Client, Pending};
use distmsg::control::protocol::{Connect, Connected, Request, Send, Sent, Status, Wait};
use distmsg::crypto::Identity;
use distmsg::link::Membership;
use distmsg::model::Limits;
use distmsg::node::{Adjustable, Node, NodeConfig, Unattended};
use tempfile::TempDir;

/// Requests of the client without a reply.
const PIPELINE: usize = 4_096;
/// Bytes of a body.
const BODY: usize = 128;
/// Bytes between client and server.
const PIPE: usize = 256 * 1024;
/// Runs; the median counts.
const RUNS: usize = 5;

/// A node in a thread of its own, as it would be in a process of its own.
struct Running {
    client: Client,
    peer: String,
    address: String,
    _directory: TempDir,
}

fn node(number: u8, runtime: &tokio::runtime::Runtime) -> Running {
    let directory = tempfile::tempdir().expect("a directory");
    let config = NodeConfig {
        identity: Arc::new(Identity::from_seed(&[number; 32])),
        membership: Membership::Open,
        adjustable: Adjustable {
            name: None,
            listen: vec!["127.0.0.1:0".parse().expect("an address")],
            advertise: Vec::new(),
            interface: Vec::new(),
            links_auto: 0,
            limits: Limits::default(),
            warnings: Vec::new(),
        },
        state_dir: directory.path().to_owned(),
        config_file: directory.path().join("config.toml"),
    };
    let (sender, server) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let own = tokio::runtime::Builder::new_current_thread().enable_all().build();
        own.expect("a runtime").block_on(async {
            let node = Node::start(config).await.expect("started");
            let (ours, theirs) = tokio::io::duplex(PIPE);
            let connections = node.server();
            tokio::spawn(async move { connections.serve(theirs).await });
            sender.send(ours).expect("the bench waits");
            let (_orders, orders) = tokio::sync::mpsc::channel(1);
            node.run(orders, &mut Unattended).await;
        });
    });
    let stream = server.recv().expect("the node starts");
    runtime.block_on(async {
        let (client, _) = Client::over(stream);
        let status: Status = client.call(&Request::Status {}).await.expect("a status");
        let address = status.listen.first().cloned().expect("an address");
        Running { client, peer: status.peer, address, _directory: directory }
    })
}

async fn connect(from: &Running, to: &Running) {
    let request = Request::Connect(Connect {
        peer: to.peer.clone(),
        address: to.address.clone(),
        alias: None,
        timeout_ms: 10_000,
    });
    let _: Connected = from.client.call(&request).await.expect("connected");
}

fn message(to: &Running) -> Request {
    Request::Send(Send {
        peer: to.peer.clone(),
        body: Some("x".repeat(BODY)),
        body_base64: None,
        upload: None,
        subject: None,
        wait: Wait::Delivered,
        timeout_ms: Some(60_000),
        key: None,
    })
}

/// Messages a second.
async fn throughput(from: &Running, to: &Running, messages: usize) -> f64 {
    let request = message(to);
    let mut pending: VecDeque<Pending<Sent>> = VecDeque::new();
    let start = Instant::now();
    for _ in 0..messages {
        if pending.len() >= PIPELINE {
            pending.pop_front().expect("full").await.expect("delivered");
        }
        pending.push_back(from.client.start(&request));
    }
    for pending in pending {
        pending.await.expect("delivered");
    }
    messages as f64 / start.elapsed().as_secs_f64()
}

/// Times of single messages, ascending.
async fn latencies(from: &Running, to: &Running, messages: usize) -> Vec<Duration> {
    let request = message(to);
    let mut times = Vec::with_capacity(messages);
    for _ in 0..messages {
        let start = Instant::now();
        from.client.call::<Sent>(&request).await.expect("delivered");
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--test");
    let (messages, singles, runs) = if quick { (2_000, 50, 1) } else { (100_000, 1_000, RUNS) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let nodes: Vec<Running> = (1..=3).map(|number| node(number, &runtime)).collect();
    let [a, b, c] = nodes.as_slice() else { return };
    runtime.block_on(async {
        connect(a, b).await;
        connect(b, c).await;
        println!("{:8} {:>12} {:>10} {:>10}", "", "messages/s", "p50 ms", "p99 ms");
        for (name, to) in [("one hop", b), ("two hops", c)] {
            latencies(a, to, 20).await;
            let times = latencies(a, to, singles).await;
            let mut rates = Vec::new();
            for _ in 0..runs {
                rates.push(throughput(a, to, messages).await);
            }
            rates.sort_by(f64::total_cmp);
            let ms = |part: usize| {
                let at = (times.len() * part / 100).min(times.len() - 1);
                times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
            };
            let rate = rates.get(rates.len() / 2).copied().unwrap_or(0.0);
            println!("{name:8} {rate:12.0} {:10.3} {:10.3}", ms(50), ms(99));
        }
    });
}
