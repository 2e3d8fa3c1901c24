//! A thousand connections that never become links, with honest messages and honest newcomers among
//! them.
//!
//! `DISTMSG_TEST_SILENT=ROUNDS` sends as many rounds with and without them, in turns, so that
//! whatever else the machine does meets both, and prints how they compare.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, line};
use crate::running::until;
use crate::siege::{HONEST_MAX, Honest, Sizes};

/// As many connections.
const SILENT: usize = 1_000;
/// Of which as many at least are let in at once.
const LET_IN: usize = 200;
/// Between two looks at all of them.
const PAUSE: Duration = Duration::from_millis(200);
/// Messages of a round.
const ROUND: usize = 100;

/// Connections that never become links, of many addresses, each renewed a second after it was
/// closed.
struct Silent {
    victim: SocketAddr,
    connections: Vec<Option<TcpStream>>,
    /// When each was found closed.
    closed: Vec<Instant>,
    renewed: u64,
}

/// The first bytes of a ClientHello: a record of 512 bytes is announced.
const HELLO: [u8; 7] = [0x16, 3, 1, 2, 0, 1, 0];
/// Connections of one address; no more are let in.
const PER_ADDRESS: usize = 16;

impl Silent {
    fn new(victim: &Daemon, count: usize) -> Self {
        let victim = victim.address.parse().expect("an address");
        let closed = vec![Instant::now(); count];
        let connections = std::iter::repeat_with(|| None).take(count).collect();
        Self { victim, connections, closed, renewed: 0 }
    }

    /// One of three kinds: it says nothing, begins and falls silent, or says a byte now and then.
    fn connect(&self, number: usize) -> Option<TcpStream> {
        let address = u8::try_from(number / PER_ADDRESS).expect("few addresses");
        let own = SocketAddrV4::new(Ipv4Addr::new(127, 0, 7, address + 1), 0);
        let mut stream = connect_from(own, self.victim).ok()?;
        stream.set_nonblocking(true).ok()?;
        if number % 3 == 1 {
            stream.write_all(&HELLO).ok()?;
        }
        Some(stream)
    }

    /// Renews what was closed; how many are open.
    fn pass(&mut self) -> usize {
        for number in 0..self.connections.len() {
            let is_open = self.connections[number].as_mut().is_some_and(|stream| {
                let is_open = is_open(stream);
                let says = number % 3 == 2;
                is_open && (!says || stream.write_all(&HELLO[..1]).is_ok())
            });
            if is_open {
                continue;
            }
            if self.connections[number].take().is_some() {
                self.closed[number] = Instant::now();
            } else if self.closed[number].elapsed() > Duration::from_secs(1) || self.renewed == 0 {
                self.connections[number] = self.connect(number);
            }
        }
        self.renewed += 1;
        self.connections.iter().flatten().count()
    }
}

fn is_open(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(read) => read > 0,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}

/// Connects from an address of ours.
fn connect_from(own: SocketAddrV4, to: SocketAddr) -> std::io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &own)?;
    connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

/// Keeps them up while something is done; how many were open at its end.
fn besieged(victim: &Daemon, what: impl FnOnce()) -> usize {
    let (ends, end) = mpsc::channel::<()>();
    let open = AtomicUsize::new(0);
    thread::scope(|scope| {
        let open = &open;
        scope.spawn(move || {
            let mut silent = Silent::new(victim, SILENT);
            // Until the other end is dropped, whatever the reason.
            while end.recv_timeout(PAUSE) == Err(mpsc::RecvTimeoutError::Timeout) {
                open.store(silent.pass(), Ordering::Relaxed);
            }
        });
        let _ends = ends;
        until("as many connections as are let in", HONEST_MAX, || {
            (open.load(Ordering::Relaxed) >= LET_IN).then_some(())
        });
        what();
    });
    open.into_inner()
}

#[test]
fn a_thousand_connections_that_say_nothing_hold_nobody_up() {
    let rounds = std::env::var("DISTMSG_TEST_SILENT");
    let rounds = rounds.map_or(1, |rounds| rounds.parse().expect("a number of rounds"));
    let net = line("abc");
    let [a, b, c] = &net[..] else { panic!("three") };
    Honest::new(a, c).send(5);
    let (mut without, mut with) = (Honest::new(a, c), Honest::new(a, c));
    let mut sizes = Sizes::default();
    let (mut medians, mut open) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut pair = [Honest::new(a, c), Honest::new(a, c)];
        pair[0].send(ROUND);
        open.push(besieged(b, || {
            for _ in 0..ROUND / 10 {
                pair[1].send(10);
                let _ = sizes.look(b);
            }
        }));
        let [quiet, loud] = pair.each_mut().map(|one| one.percentile(50).as_secs_f64());
        medians.push(loud / quiet);
        let [quiet, loud] = pair;
        without.add(quiet);
        with.add(loud);
    }
    without.report("without silent connections");
    with.report("with silent connections");
    sizes.report();
    medians.sort_unstable_by(f64::total_cmp);
    let mut ratio = |part| {
        let [without, with] = [&mut without, &mut with].map(|one| one.percentile(part));
        with.as_secs_f64() / without.as_secs_f64()
    };
    eprintln!(
        "open: {open:?}; p50 is {:.2} times as long, p99 {:.2} times; median of the rounds {:.2}",
        ratio(50),
        ratio(99),
        medians[medians.len() / 2]
    );
    with.assert_delivered();
    sizes.assert_small();
    sizes.assert_steady();
}

#[test]
fn a_thousand_connections_that_say_nothing_do_not_keep_newcomers_out() {
    let net = line("ab");
    let [_, b] = &net[..] else { panic!("two") };
    let newcomer = Daemon::start("c");
    besieged(b, || {
        let began = Instant::now();
        newcomer.connect(b);
        eprintln!("a newcomer is linked after {:?}", began.elapsed());
    });
}
