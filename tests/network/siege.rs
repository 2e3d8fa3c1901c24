//! Very many at once: connections that say nothing, and links that flood in ever new names.
//!
//! Short in the ordinary run; `DISTMSG_TEST_SIEGE=LINKS,SECONDS` makes it as long as told, and the
//! figures are printed.

use std::io::Read as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use distmsg::crypto::{Domain, Identity, Random};
use distmsg::model::limits::FLOOD_LIFETIME;
use distmsg::model::{PeerId, Timestamp};
use distmsg::wire::Find;

use crate::daemon::{Daemon, line};
use crate::hostile::resident_kb;
use crate::peer::{Enemy, record_of, wall};

/// What a daemon may take, whatever is done to it.
const RESIDENT_KB_MAX: u64 = 256 * 1024;
/// Finds said at once.
const BATCH: usize = 25;

/// How many links, and for how long.
fn extent() -> (usize, Duration) {
    let Ok(text) = std::env::var("DISTMSG_TEST_SIEGE") else { return (8, Duration::from_secs(4)) };
    let (links, seconds) = text.split_once(',').expect("LINKS,SECONDS");
    let seconds = seconds.parse().expect("a number of seconds");
    (links.parse().expect("a number of links"), Duration::from_secs(seconds))
}

/// Sends messages one after the other; how long each took, if it was delivered.
fn send_some(from: &Daemon, to: &str, count: usize) -> Vec<Option<Duration>> {
    (0..count)
        .map(|_| {
            let began = Instant::now();
            let sent = from.ctl(&["send", to, "honest", "--timeout", "20s"]);
            (sent.code == Some(0)).then(|| began.elapsed())
        })
        .collect()
}

fn percentile(times: &[Option<Duration>], part: usize) -> Duration {
    let mut times: Vec<Duration> = times.iter().flatten().copied().collect();
    times.sort_unstable();
    let at = times.len() * part / 100;
    times.get(at.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn report(what: &str, times: &[Option<Duration>]) {
    let delivered = times.iter().flatten().count();
    let (median, most) = (percentile(times, 50), percentile(times, 99));
    eprintln!("{what}: {delivered} of {} delivered, p50 {median:?}, p99 {most:?}", times.len());
}

#[test]
fn a_thousand_connections_that_say_nothing_hold_nobody_up() {
    let net = line("abc");
    let [a, b, c] = &net[..] else { panic!("three") };
    let count = 60;
    let before = send_some(a, &c.peer, count);
    report("before", &before);
    let silent: Vec<TcpStream> = (0..1_000)
        .filter_map(|_| {
            let stream = TcpStream::connect(&b.address).ok()?;
            stream.set_nonblocking(true).ok()?;
            Some(stream)
        })
        .collect();
    assert!(silent.len() > 900, "only {} connections were made", silent.len());
    let during = send_some(a, &c.peer, count);
    report("with silent connections", &during);
    assert_eq!(during.iter().flatten().count(), count, "everything is delivered");
    let resident = resident_kb(b);
    eprintln!("the daemon takes {resident} kB");
    assert!(resident < RESIDENT_KB_MAX, "{resident} kB");
    // Those that were let in are given up as well.
    crate::running::until("all silent connections are closed", Duration::from_secs(30), || {
        let is_closed = |mut stream: &TcpStream| {
            let mut byte = [0; 1];
            match stream.read(&mut byte) {
                Ok(read) => read == 0,
                Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
            }
        };
        silent.iter().all(is_closed).then_some(())
    });
}

/// Finds in ever new names.
struct Mint {
    random: Random,
    minted: u64,
}

impl Mint {
    fn find(&mut self) -> Bytes {
        let identity = Identity::generate(&mut self.random);
        self.minted += 1;
        let target = PeerId::from_bytes(self.random.bytes());
        let expires: Timestamp = wall() + FLOOD_LIFETIME;
        let record = record_of(&identity);
        let nonce = self.random.number();
        let signed = Find::to_sign(false, nonce, &target, expires, &record);
        let signature = identity.sign(Domain::Find, &[&signed]);
        Find::encode(&signed, &signature, 0)
    }
}

/// Floods until told to stop; how many names it made up.
fn flood(number: u64, victim: &Daemon, stop: &AtomicBool) -> u64 {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    let mut enemy = Enemy::of(Identity::from_seed(&seed), seed);
    let mut mint = Mint { random: Random::from_seed(seed), minted: 0 };
    let mut link = enemy.link(victim);
    while !stop.load(Ordering::Relaxed) {
        let batch: Vec<Bytes> = (0..BATCH).map(|_| mint.find()).collect();
        let bytes = batch.iter().map(Bytes::len).sum();
        link.send(batch);
        if !enemy.flush(bytes) {
            // It was thrown out: it comes again.
            link = enemy.link(victim);
        }
    }
    mint.minted
}

#[test]
fn links_that_flood_in_ever_new_names_do_not_keep_honest_messages_from_arriving() {
    let (links, span) = extent();
    let net = line("abc");
    let [a, b, c] = &net[..] else { panic!("three") };
    let before = send_some(a, &c.peer, 20);
    report("before", &before);
    let (stop, minted) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut during, mut sizes) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        for number in 0..links as u64 {
            let (stop, minted) = (&stop, &minted);
            scope.spawn(move || minted.fetch_add(flood(number, b, stop), Ordering::Relaxed));
        }
        let began = Instant::now();
        while began.elapsed() < span {
            during.extend(send_some(a, &c.peer, 5));
            sizes.push(resident_kb(b));
        }
        stop.store(true, Ordering::Relaxed);
    });
    report("under the flood", &during);
    let (middle, last) = (sizes[sizes.len() / 2], *sizes.last().expect("some"));
    let most = sizes.iter().max().expect("some");
    let minted = minted.load(Ordering::Relaxed);
    eprintln!(
        "{links} links, {minted} names, {most} kB at most, {middle} in the middle, {last} kB"
    );
    assert!(minted > 100, "only {minted} names were made up");
    let delivered = during.iter().flatten().count();
    assert!(delivered * 100 >= during.len() * 99, "{delivered} of {} delivered", during.len());
    assert!(*most < RESIDENT_KB_MAX, "{most} kB");
}
