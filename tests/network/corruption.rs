//! A database that is not what was written: bits flipped and files cut short, anywhere. Either the
//! daemon does not start, or stops, and says what to do; or it runs and gives nobody a message that
//! was not sent like that.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use rusqlite::Connection;

use crate::daemon::{DAEMON_MAX, Daemon, SOON, line, text};
use crate::random::Choices;
use crate::running::until;

/// The variable that asks for more cases.
const CASES: &str = "DISTMSG_TEST_DAMAGES";
const CASES_DEFAULT: u64 = 100;
const PAGE: u64 = 4_096;
/// What the operator is told to do, one of these.
const REMEDIES: [&str; 4] =
    ["from a backup", "move it away", "move the file away", "check the disk"];

/// Lengths that a database is cut to in any case.
const CUTS: [usize; 7] = [0, 1, 99, 512, 4_095, 4_096, 8_192];

/// The two files of a database.
#[derive(Clone)]
struct Files {
    database: Vec<u8>,
    log: Option<Vec<u8>>,
}

fn places(daemon: &Daemon) -> [PathBuf; 2] {
    ["distmsg.db", "distmsg.db-wal"].map(|name| daemon.state_dir().join(name))
}

impl Files {
    fn of(daemon: &Daemon) -> Self {
        let [database, log] = places(daemon);
        Self { database: fs::read(database).expect("a database"), log: fs::read(log).ok() }
    }

    fn put(&self, daemon: &Daemon) {
        let [database, log] = places(daemon);
        fs::write(database, &self.database).expect("written");
        match &self.log {
            Some(bytes) => fs::write(log, bytes).expect("written"),
            None => drop(fs::remove_file(log)),
        }
    }
}

fn flip(bytes: &mut [u8], from: u64, to: u64, choices: &mut Choices) -> String {
    let at = from + choices.below((to - from).max(1));
    let bit = choices.below(8);
    bytes[at as usize] ^= 1 << bit;
    format!("bit {bit} of byte {at}")
}

/// Messages with their sender, subject and body.
type Messages = BTreeSet<(String, String, String)>;

/// A body that fits into an envelope, or not, and that tells its number everywhere.
fn body(n: usize) -> String {
    let times = [1, 30, 400, 900, 12_000][n % 5];
    format!("number {n:03} ").repeat(times)
}

/// What is to be damaged, and what was sent.
struct Scene {
    a: Daemon,
    b: Daemon,
    c: Daemon,
    arrived: Messages,
    waiting: Messages,
    /// As a kill leaves it, with a log.
    killed: Files,
    /// As an end in order leaves it.
    stopped: Files,
    /// Pages of each table and index of the latter.
    pages: Vec<(String, Vec<u64>)>,
}

impl Scene {
    fn new() -> Self {
        let net = line("abc");
        let [a, mut b, mut c] = <[Daemon; 3]>::try_from(net).ok().expect("three");
        let send = |from: &Daemon, to: &Daemon, n: usize, args: &[&str]| {
            let (subject, body) = (format!("subject {n}"), body(n));
            let given = [&["send", &to.peer, "--subject", &subject], args].concat();
            from.ctl_given(&given, body.as_bytes()).exits(0);
            (from.peer.clone(), subject, body)
        };
        c.kill();
        let mut arrived: Messages =
            (0..15).map(|n| send(&a, &b, n, &["--timeout", "30s"])).collect();
        let mut waiting: Messages =
            (20..30).map(|n| send(&b, &c, n, &["--wait", "queued"])).collect();
        b.ctl(&["listen", "--name", "l", "--count", "3"]).exits(0);
        assert!(b.terminate().success());
        b.boot();
        let late = (15..20).map(|n| send(&a, &b, n, &["--timeout", "30s"]));
        arrived.extend(late.collect::<Vec<_>>());
        waiting.extend((30..35).map(|n| send(&b, &c, n, &["--wait", "queued"])));
        b.kill();
        let killed = Files::of(&b);
        b.boot();
        assert!(b.terminate().success());
        let stopped = Files::of(&b);
        let pages = pages(&b);
        Self { a, b, c, arrived, waiting, killed, stopped, pages }
    }

    /// The database without its end, and what that is.
    fn cut(&self, length: usize) -> (Files, String) {
        let mut files = self.stopped.clone();
        files.database.truncate(length);
        (files, format!("cut to {length}"))
    }

    /// One case of damage, and what it is.
    fn damaged(&self, choices: &mut Choices) -> (Files, String) {
        let (mut killed, mut stopped) = (self.killed.clone(), self.stopped.clone());
        let log_length = killed.log.as_ref().map_or(0, Vec::len) as u64;
        match choices.below(8) {
            0 => {
                let what = flip(&mut stopped.database, 0, 100, choices);
                (stopped, format!("{what}, in the header"))
            }
            kind @ 1..=3 => {
                let (name, pages) = &self.pages[choices.below(self.pages.len() as u64) as usize];
                let page = pages[choices.below(pages.len() as u64) as usize];
                let from = (page - 1) * PAGE;
                // The beginning of a page says what is where.
                let to = from + if kind == 1 { 100 } else { PAGE };
                let what = flip(&mut stopped.database, from, to, choices);
                (stopped, format!("{what}, in page {page} of {name}"))
            }
            4 => {
                let end = choices.below(log_length.min(200_000));
                let log = killed.log.as_mut().expect("a log");
                let what = flip(log, 0, [32, end + 1][choices.below(2) as usize], choices);
                (killed, format!("{what} of the log"))
            }
            5 => {
                let length = choices.below(log_length.min(200_000));
                killed.log.as_mut().expect("a log").truncate(length as usize);
                (killed, format!("the log cut to {length}"))
            }
            6 => {
                let length = choices.below(stopped.database.len() as u64);
                self.cut(length as usize)
            }
            _ => {
                let sector = choices.below(stopped.database.len() as u64 / 512) as usize * 512;
                stopped.database[sector..sector + 512].fill(0);
                (stopped, format!("the sector at {sector} zeroed"))
            }
        }
    }

    /// Starts b. True if it answers; false if it refuses, with a reason and a remedy.
    fn starts(&mut self, what: &str) -> bool {
        let before = self.b.log().len();
        self.b.launch(&[]);
        let socket = self.b.socket();
        let answers = until("it answers or ends", DAEMON_MAX, || {
            if !self.b.runs() {
                return Some(false);
            }
            std::os::unix::net::UnixStream::connect(&socket).ok()?;
            (self.b.ctl(&["status"]).code == Some(0)).then_some(true)
        });
        if !answers {
            self.assert_says_why(before, what);
        }
        answers
    }

    /// It ended, and said what is to be done.
    fn assert_says_why(&mut self, before: usize, what: &str) {
        until("it ends", DAEMON_MAX, || (!self.b.runs()).then_some(()));
        let log = self.b.log();
        let last = log[before..].lines().last().unwrap_or_default();
        assert!(REMEDIES.iter().any(|remedy| last.contains(remedy)), "{what}: {last:?}");
    }
}

/// The pages of everything in a database.
fn pages(daemon: &Daemon) -> Vec<(String, Vec<u64>)> {
    let [database, _] = places(daemon);
    let connection = Connection::open(database).expect("opened");
    let mut statement =
        connection.prepare("SELECT name, pageno FROM dbstat ORDER BY name").expect("dbstat");
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
    let mut all: Vec<(String, Vec<u64>)> = Vec::new();
    for row in rows {
        let (name, page): (String, i64) = row.expect("a row");
        let page = page.unsigned_abs();
        match all.last_mut() {
            Some((last, pages)) if *last == name => pages.push(page),
            _ => all.push((name, vec![page])),
        }
    }
    all
}

/// What a listener is given is what was sent. How much it was, and whether the daemon ended.
fn assert_true(daemon: &Daemon, sent: &Messages, name: &str, what: &str) -> (usize, bool) {
    let status = daemon.ctl(&["status", "--json"]);
    if status.code == Some(3) {
        return (0, true);
    }
    let there = status.exits(0).json()[0]["inbox_messages"].as_u64().expect("a number");
    let count = sent.len().min(usize::try_from(there).expect("few"));
    if count == 0 {
        return (0, false);
    }
    let count = count.to_string();
    let listen = ["listen", "--name", name, "--count", &count, "--timeout", "20s", "--json"];
    let output = daemon.ctl(&listen);
    let mut given = 0;
    for message in output.json() {
        let body = ["body", "body_base64"].iter().find_map(|key| message[key].as_str());
        let subject = message["subject"].as_str().unwrap_or_default().to_owned();
        let body = body.unwrap_or_default().to_owned();
        let short: String = body.chars().take(40).collect();
        let message = (text(&message, "from"), subject, body);
        assert!(sent.contains(&message), "{what}: {} {:?} {short}", message.0, message.1);
        given += 1;
    }
    (given, output.code == Some(3))
}

#[test]
fn a_damaged_database_is_refused_or_gives_only_what_was_sent() {
    let mut choices = Choices::new();
    let mut scene = Scene::new();
    let cases =
        std::env::var(CASES).map_or(CASES_DEFAULT, |cases| cases.parse().expect("a number"));
    let (mut refused, mut stopped, mut shorter, mut whole) = (0, 0, 0, 0);
    // As an interrupted copy and a power failure leave it, then anything.
    let mut cut = CUTS.into_iter();
    for _ in 0..cases + CUTS.len() as u64 {
        let next = cut.next().map(|length| scene.cut(length));
        let (files, what) = next.unwrap_or_else(|| scene.damaged(&mut choices));
        files.put(&scene.b);
        let before = scene.b.log().len();
        if !scene.starts(&what) {
            refused += 1;
        } else {
            assert!(!what.starts_with("cut to"), "{what}: it was not noticed");
            let sent = scene.arrived.clone();
            let (given, ended) = assert_true(&scene.b, &sent, "check", &what);
            if ended {
                scene.assert_says_why(before, &what);
                stopped += 1;
            } else if given < sent.len() {
                // A log ends where its sums do not fit: there is no telling a commit that was
                // never finished from one that was damaged.
                assert!(what.contains("log"), "{what}: {given} of {} are left", sent.len());
                shorter += 1;
            } else {
                whole += 1;
            }
        }
        scene.b.kill();
    }
    eprintln!(
        "of {cases} and {CUTS:?}, {refused} were refused, {stopped} stopped later, {shorter} lost \
         the end of the log, {whole} had everything"
    );
    scene.stopped.put(&scene.b);
    scene.b.boot();
    let (given, _) = assert_true(&scene.b, &scene.arrived, "last", "nothing");
    assert_eq!(given, scene.arrived.len());
    drop(scene.a);
}

/// Every place of a message that waits, or has come, is one where a bit may flip.
#[test]
fn a_message_altered_on_the_disk_is_not_given_to_anybody() {
    let mut choices = Choices::new();
    let mut scene = Scene::new();
    scene.c.boot();
    assert!(scene.c.terminate().success());
    let empty = Files::of(&scene.c);
    for n in [0, 1, 2, 4, 20, 21, 22, 24] {
        let mark = format!("number {n:03} ").into_bytes();
        let mut files = scene.stopped.clone();
        let found: Vec<usize> = files
            .database
            .windows(mark.len())
            .enumerate()
            .filter_map(|(at, bytes)| (bytes == mark).then_some(at))
            .collect();
        let at = found[choices.below(found.len() as u64) as usize];
        // Another digit in the number.
        files.database[at + mark.len() - 2] ^= 1;
        let what = format!("message {n} altered at byte {at}");
        files.put(&scene.b);
        let before = scene.b.log().len();
        empty.put(&scene.c);
        scene.c.boot();
        if scene.starts(&what) {
            let (_, ended) = assert_true(&scene.b, &scene.arrived, "check", &what);
            let over = || {
                let gone = !scene.b.runs();
                let arrived = || scene.c.status()["inbox_messages"].as_u64();
                (gone || arrived() >= Some(scene.waiting.len() as u64)).then_some(gone)
            };
            // What it was stopped by, it may have sent everything before.
            let gone = ended || until("it is sent, or noticed", SOON, over);
            assert_true(&scene.c, &scene.waiting, "check", &what);
            assert!(gone, "{what}: nobody noticed");
            scene.assert_says_why(before, &what);
        }
        scene.b.kill();
        scene.c.kill();
    }
}
