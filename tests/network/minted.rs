//! Links of peers with a valid identity each that flood in ever new names.
//!
//! `DISTMSG_TEST_SIEGE=LINKS,SECONDS,NAMES` floods from so many links for so long, at the pace at
//! which all those names are used up by then, and lets the daemons keep as many records as they do
//! by default. `DISTMSG_TEST_SIEGE=LINKS,SECONDS,NAMES,RECORDS` lets them keep as many as it says,
//! and a fifth number has them verify as many floods a second: what it takes when every table is
//! full is then seen in minutes.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use distmsg::crypto::{Domain, Identity, Random};
use distmsg::model::limits::FLOOD_LIFETIME;
use distmsg::model::{PeerId, Timestamp};
use distmsg::wire::Find;

use crate::daemon::{Daemon, SOON};
use crate::peer::{Enemy, record_of, wall};
use crate::siege::{Honest, Sizes};

/// Finds said at once.
const BATCH: usize = 25;

/// What a daemon takes for each verified name that it keeps: its record, its route, and what guards
/// against its floods' second coming. Measured; the table is full at 100,000 of them.
const NAME_BYTES: u64 = 1_640;
/// The ordinary run: the table of records is full after a third of it, so that what grows besides
/// would be seen.
const ORDINARY: &str = "24,6,12000,250";

/// Looks at its size before it is said not to grow.
const LOOKS_MIN: usize = 8;

/// How many links flood, for how long, and in how many names.
struct Extent {
    links: u64,
    span: Duration,
    names: u64,
    /// How many records the daemons keep, if not as many as usual.
    records: Option<u64>,
    /// How many floods they verify a second, if not as many as usual.
    verifications: Option<u64>,
}

impl Extent {
    fn of_this_run() -> Self {
        let text = std::env::var("DISTMSG_TEST_SIEGE").unwrap_or_else(|_| ORDINARY.to_owned());
        let numbers: Vec<u64> =
            text.split(',').map(|number| number.parse().expect("a number")).collect();
        let [links, seconds, names, ref more @ ..] = numbers[..] else {
            panic!("LINKS,SECONDS,NAMES[,RECORDS[,VERIFICATIONS]]")
        };
        let (records, verifications) = (more.first().copied(), more.get(1).copied());
        Self { links, span: Duration::from_secs(seconds), names, records, verifications }
    }

    /// Three daemons in a line, a, b and c.
    fn net(&self) -> [Daemon; 3] {
        let mut net = ["a", "b", "c"].map(Daemon::prepare);
        for daemon in &mut net {
            let mut config = std::fs::read_to_string(daemon.config()).expect("its configuration");
            config.push_str("\n[limits]\n");
            let limits =
                [("records_max", self.records), ("verifications_per_second", self.verifications)];
            for (name, limit) in limits {
                if let Some(limit) = limit {
                    config.push_str(&format!("{name} = {limit}\n"));
                }
            }
            daemon.configure(&config);
            daemon.boot();
        }
        net[0].connect(&net[1]);
        net[1].connect(&net[2]);
        net
    }

    /// Whether so many records nearly fill a table that is bounded for this run.
    fn is_full(&self, records: u64) -> bool {
        self.records.is_none_or(|most| records * 10 > most * 9)
    }

    /// From one batch of a link to its next.
    fn pace(&self) -> Duration {
        let batches = (self.names / self.links / BATCH as u64).max(1);
        self.span / u32::try_from(batches).expect("fewer batches")
    }
}

/// Finds in ever new names.
struct Mint(Random);

impl Mint {
    fn find(&mut self) -> Bytes {
        let identity = Identity::generate(&mut self.0);
        let target = PeerId::from_bytes(self.0.bytes());
        let expires: Timestamp = wall() + FLOOD_LIFETIME;
        let record = record_of(&identity);
        let signed = Find::to_sign(false, self.0.number(), &target, expires, &record);
        let signature = identity.sign(Domain::Find, &[&signed]);
        Find::encode(&signed, &signature, 0)
    }
}

/// What the enemies have done so far.
#[derive(Default)]
struct Done {
    linked: AtomicU64,
    minted: AtomicU64,
    /// Links that were ended by the other side.
    ended: AtomicU64,
}

/// Tells to stop when it is dropped.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Each comes from an address of its own: no limit for one address keeps them out.
fn address_of(number: u64) -> Ipv4Addr {
    let [.., high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, 1 + high, low, 1)
}

/// Floods until told to stop.
fn flood(number: u64, victim: &Daemon, pace: Duration, done: &Done, stop: &AtomicBool) {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    let mut enemy = Enemy::of(Identity::from_seed(&seed), seed);
    enemy.come_from(address_of(number), victim);
    let mut mint = Mint(Random::from_seed(seed));
    let mut handle = enemy.link(victim);
    done.linked.fetch_add(1, Ordering::Relaxed);
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let batch: Vec<Bytes> = (0..BATCH).map(|_| mint.find()).collect();
        let bytes = batch.iter().map(Bytes::len).sum();
        handle.send(batch);
        if !enemy.flush(bytes) {
            done.ended.fetch_add(1, Ordering::Relaxed);
            handle = enemy.link(victim);
        }
        done.minted.fetch_add(BATCH as u64, Ordering::Relaxed);
        // It hears what others flood, as any neighbour does.
        enemy.listen(pace.saturating_sub(began.elapsed()));
    }
}

fn known(daemon: &Daemon) -> u64 {
    daemon.status()["peers"].as_u64().expect("a number")
}

#[test]
fn links_that_flood_in_ever_new_names_do_not_keep_honest_messages_from_arriving() {
    let extent = Extent::of_this_run();
    let [a, b, c] = &extent.net();
    let mut before = Honest::new(a, c);
    before.send(50);
    before.report("before");
    let (stop, done, pace) = (AtomicBool::new(false), Done::default(), extent.pace());
    let mut during = Honest::new(a, c);
    // With and without what the table of records takes, which fills up to its bound.
    let (mut sizes, mut others) = (Sizes::default(), Sizes::default());
    let mut records = 0;
    let mut took = Duration::ZERO;
    thread::scope(|scope| {
        // Set when this ends, whatever the reason: nobody floods for ever.
        let stops = Stops(&stop);
        for number in 0..extent.links {
            let (stop, done) = (&stop, &done);
            scope.spawn(move || flood(number, b, pace, done, stop));
        }
        let began = Instant::now();
        // Longer where links come up slowly: what is looked at is a table that is full.
        while began.elapsed() < extent.span
            || (!extent.is_full(records) || sizes.looks() < LOOKS_MIN)
                && began.elapsed() < extent.span + SOON
        {
            during.send(5);
            let resident = sizes.look(b);
            records = known(b);
            others.add(resident.saturating_sub(records * NAME_BYTES / 1_024));
            thread::sleep(extent.span / 200);
        }
        took = began.elapsed();
        drop(stops);
    });
    during.report("under the flood");
    sizes.report();
    others.report();
    let [linked, minted, ended] =
        [&done.linked, &done.minted, &done.ended].map(|count| count.load(Ordering::Relaxed));
    eprintln!(
        "{linked} links flooded in {minted} names in {took:?}, {:.0} a second; {ended} links were \
         ended; {records} records are kept",
        minted as f64 / took.as_secs_f64(),
    );
    assert_eq!(linked, extent.links, "not all enemies got a link");
    assert!(minted * 10 > extent.names, "only {minted} names were made up");
    if let Some(most) = extent.records {
        assert!(records <= most, "{records} records are kept");
        assert!(extent.is_full(records), "only {records} names were verified");
    }
    during.assert_delivered();
    sizes.assert_small();
    match extent.records {
        Some(_) => sizes.assert_steady(),
        None => others.assert_steady(),
    }
}
