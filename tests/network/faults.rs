//! Real daemons on disks that are full or broken: nothing is receipted that is not stored, clients
//! and operators are told, and what passes is recovered from.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::daemon::{DAEMON_MAX, Daemon, SOON};
use crate::running::{Output, until, wait};

/// What the file system of a small disk has: the log of the database takes 4 MiB from the start.
const SMALL_DISK: &str = "mode=0700,size=12m";
/// Room that is left when it is filled.
const LEFT: u64 = 1_000_000;
/// Bytes of a message that soon fills what is left of it.
const LARGE: usize = 40_000;
/// More than enough of them.
const MANY: usize = 500;

/// Says why a test does nothing, past the harness that keeps what passing tests write.
pub(crate) fn skipped(why: &str) {
    writeln!(std::io::stderr(), "SKIPPED: {why}").expect("standard error is open");
}

/// The directory that a daemon has for itself.
fn home_of(daemon: &Daemon) -> PathBuf {
    daemon.state_dir().ancestors().nth(2).expect("the daemon's directory").to_owned()
}

/// Gives a program that is started otherwise a daemon's surroundings and nothing else.
pub(crate) fn surround(daemon: &Daemon, command: &mut Command) {
    let home = home_of(daemon);
    command
        .env_clear()
        .env("HOME", home.join("h"))
        .env("TMPDIR", home.join("t"))
        .env("XDG_RUNTIME_DIR", home.join("r"))
        .env("XDG_CONFIG_HOME", home.join("c"))
        .env("XDG_STATE_HOME", home.join("s"))
        .env("DISTMSG_LOG", &daemon.log_filter)
        .current_dir(home);
}

/// A state directory on a file system of its own. Dropped, it is unmounted.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts it for a daemon that was not started yet, if this user may.
    fn under(daemon: &Daemon) -> Option<Self> {
        let at = daemon.state_dir();
        fs::create_dir_all(&at).expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", SMALL_DISK, "none"]).arg(&at);
        match mount.output() {
            Ok(output) if output.status.success() => Some(Self { at }),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr);
                skipped(&format!("a small disk cannot be mounted: {}", why.trim()));
                None
            }
            Err(error) => {
                skipped(&format!("there is no mount: {error}"));
                None
            }
        }
    }

    /// Takes all the room that is left but a little.
    fn fill(&self) {
        let mut filler = File::create(self.filler()).expect("a file");
        // The last blocks are too small for a large piece.
        for piece in [1_000_000, 4_096, 1] {
            while filler.write_all(&vec![1; piece]).is_ok() {}
        }
        let taken = filler.metadata().expect("a file").len();
        filler.set_len(taken - LEFT).expect("shorter");
    }

    /// Gives that room back.
    fn empty(&self) {
        fs::remove_file(self.filler()).expect("removed");
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

/// A daemon whose disk fails by order.
struct Faulty {
    daemon: Daemon,
    child: Option<Child>,
    shim: PathBuf,
    dir: TempDir,
}

impl Faulty {
    /// The daemon was started once and runs; it is stopped and started again with the shim. None
    /// if there is no compiler.
    fn instead_of(mut daemon: Daemon) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let shim = dir.path().join("shim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/network/shim.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"]).args([&shim, &source]).arg("-ldl");
        let Ok(compiled) = cc.output() else {
            skipped("there is no cc to compile the failing disk with");
            return None;
        };
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        assert!(daemon.terminate().success());
        let mut faulty = Self { daemon, child: None, shim, dir };
        faulty.order("");
        faulty.launch();
        faulty.answers();
        let maps = fs::read_to_string(format!("/proc/{}/maps", faulty.pid())).expect("it runs");
        assert!(maps.contains("shim.so"), "the shim is loaded");
        Some(faulty)
    }

    /// What goes wrong from now on; see `shim.c`.
    fn order(&self, order: &str) {
        let new = self.dir.path().join("new");
        fs::write(&new, order).expect("written");
        fs::rename(new, self.dir.path().join("order")).expect("renamed");
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    fn launch(&mut self) {
        let home = home_of(&self.daemon);
        let log = OpenOptions::new().append(true).open(home.join("log")).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_distmsg"));
        surround(&self.daemon, &mut command);
        command
            .env("LD_PRELOAD", &self.shim)
            .env("DISTMSG_SHIM", self.dir.path().join("order"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.child = Some(command.spawn().expect("distmsg starts"));
    }

    fn answers(&self) {
        until("it answers", DAEMON_MAX, || {
            (self.daemon.ctl(&["status"]).code == Some(0)).then_some(())
        });
    }

    /// Its end, by itself.
    #[track_caller]
    fn ends(&mut self) -> i32 {
        let mut child = self.child.take().expect("it runs");
        let status = wait(&mut child, "a daemon with a broken disk", DAEMON_MAX);
        status.code().expect("not by a signal")
    }

    /// Killed, and started again as things are.
    fn restart(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("our child");
        child.wait().expect("our child");
        self.launch();
        self.answers();
    }

    fn runs(&mut self) -> bool {
        let child = self.child.as_mut().expect("started");
        child.try_wait().expect("our child").is_none()
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Large bodies that differ.
fn large(n: usize) -> String {
    format!("{n:06} ").repeat(LARGE / 7)
}

fn send(from: &Daemon, to: &Daemon, body: &str, args: &[&str]) -> Output {
    let args: Vec<&str> = ["send", &to.peer].into_iter().chain(args.iter().copied()).collect();
    from.ctl_given(&args, body.as_bytes())
}

/// What the operator is warned of.
fn warnings(daemon: &Daemon) -> String {
    daemon.status()["warnings"].to_string()
}

/// Each of these arrived, once, and nothing else did.
#[track_caller]
fn assert_holds(daemon: &Daemon, bodies: &[String]) {
    let (mut there, mut wanted) = (daemon.bodies(), bodies.to_vec());
    there.sort();
    wanted.sort();
    let starts = |bodies: &[String]| -> Vec<String> {
        bodies.iter().map(|body| body.chars().take(8).collect()).collect()
    };
    assert!(there == wanted, "{:?}\nnot\n{:?}", starts(&there), starts(&wanted));
}

/// Waits until its status says that there is no room.
fn await_no_room(daemon: &Daemon) {
    until("it is in the status", SOON, || warnings(daemon).contains("no room").then_some(()));
}

#[test]
fn a_recipient_without_room_receipts_nothing_and_recovers() {
    let (a, mut b) = (Daemon::start("a"), Daemon::prepare("b"));
    let Some(disk) = SmallDisk::under(&b) else { return };
    b.boot();
    a.connect(&b);
    disk.fill();
    let (mut sent, mut stored) = (Vec::new(), 0);
    for n in 0..MANY {
        sent.push(large(n));
        let output = send(&a, &b, &sent[n], &["--timeout", "20s"]);
        match output.code {
            Some(0) => stored = sent.len(),
            _ => {
                let output = output.exits(4);
                assert!(output.stderr.contains("full"), "{}", output.stderr);
                break;
            }
        }
    }
    assert!(stored > 0 && stored < sent.len(), "{stored} of {} were stored", sent.len());
    assert_holds(&b, &sent[..stored]);
    await_no_room(&b);
    let refused = b.ctl(&["send", &a.peer, &large(0)]).exits(7);
    assert!(refused.stderr.contains("no room") && refused.stderr.contains("free"), "{refused:?}");
    assert_eq!(a.bodies(), Vec::<String>::new());
    // Even killed it comes back as it was.
    b.kill();
    b.boot();
    assert_holds(&b, &sent[..stored]);
    disk.empty();
    until("what waited arrives", SOON, || (a.queued() == 0).then_some(()));
    assert_holds(&b, &sent);
    b.ctl(&["send", &a.peer, "there is room"]).exits(0);
    assert!(!warnings(&b).contains("no room"), "{}", warnings(&b));
    drop(b);
}

#[test]
fn a_sender_without_room_says_so_and_recovers() {
    let (mut a, b) = (Daemon::prepare("a"), Daemon::start("b"));
    let Some(disk) = SmallDisk::under(&a) else { return };
    a.boot();
    a.connect(&b);
    disk.fill();
    let pid = a.pid();
    // Nobody takes them away.
    a.ctl(&["disconnect", &b.peer]);
    let (mut sent, mut refused) = (Vec::new(), 0);
    for n in 0..MANY {
        let body = large(n);
        match send(&a, &b, &body, &["--wait", "queued"]) {
            output if output.code == Some(0) => sent.push(body),
            output => {
                let output = output.exits(7);
                let text = &output.stderr;
                assert!(text.contains("no room") && text.contains("free"), "{text}");
                refused += 1;
                if refused > 3 {
                    break;
                }
            }
        }
    }
    assert!(refused > 3 && !sent.is_empty(), "{} were queued", sent.len());
    await_no_room(&a);
    assert_eq!(a.queued(), sent.len() as u64, "what was refused is not counted");
    disk.empty();
    sent.push(large(MANY));
    send(&a, &b, &sent[sent.len() - 1], &["--wait", "queued"]).exits(0);
    assert!(!warnings(&a).contains("no room"), "{}", warnings(&a));
    a.connect(&b);
    until("what was queued arrives", SOON, || (a.queued() == 0).then_some(()));
    assert_holds(&b, &sent);
    assert_eq!(a.pid(), pid, "without a restart");
    drop(a);
}

/// Whatever fails, the daemon stops rather than to go on with what it does not know, says so, and
/// comes back with everything it had acknowledged.
fn stops_and_comes_back(order: &str) {
    let (a, b) = (Daemon::start("a"), Daemon::start("b"));
    a.connect(&b);
    let Some(mut b) = Faulty::instead_of(b) else { return };
    a.await_links(&[&b.daemon]);
    let mut sent: Vec<String> = (0..5).map(large).collect();
    for body in &sent {
        send(&a, &b.daemon, body, &["--timeout", "20s"]).exits(0);
    }
    b.order(order);
    sent.push(large(5));
    let output = send(&a, &b.daemon, &sent[5], &["--timeout", "2s"]).exits(4);
    assert!(output.stderr.contains("queued"), "{}", output.stderr);
    let before = b.daemon.log().len();
    assert_eq!(b.ends(), 1, "{order}");
    let log = b.daemon.log();
    let last = log.lines().last().expect("its last words");
    for word in ["database", "check the disk", "start again"] {
        assert!(last.contains(word), "{order}: {last}");
    }
    // It does not start either, and says why.
    b.launch();
    assert_eq!(b.ends(), 1, "{order}");
    let log = b.daemon.log();
    assert!(log[before..].contains("check the disk"), "{order}: {}", &log[before..]);
    b.order("");
    b.launch();
    b.answers();
    until("what waited arrives", SOON, || (a.queued() == 0).then_some(()));
    assert_holds(&b.daemon, &sent);
}

#[test]
fn a_sync_that_fails_stops_the_daemon_and_nothing_acknowledged_is_missing() {
    stops_and_comes_back("s5");
}

#[test]
fn a_sync_without_room_stops_the_daemon_and_nothing_acknowledged_is_missing() {
    stops_and_comes_back("s28");
}

#[test]
fn a_write_that_fails_stops_the_daemon_and_nothing_acknowledged_is_missing() {
    stops_and_comes_back("w5");
}

#[test]
fn half_a_write_stops_the_daemon_and_nothing_acknowledged_is_missing() {
    stops_and_comes_back("h5");
}

#[test]
fn a_senders_broken_disk_ends_its_clients_and_keeps_what_was_queued() {
    let (a, b) = (Daemon::start("a"), Daemon::start("b"));
    let Some(mut a) = Faulty::instead_of(a) else { return };
    let mut b = b;
    a.daemon.connect(&b);
    b.kill();
    let sent: Vec<String> = (0..5).map(large).collect();
    for body in &sent {
        send(&a.daemon, &b, body, &["--wait", "queued"]).exits(0);
    }
    let listen = a.daemon.ctl_start(&["listen"]);
    until("it listens", SOON, || {
        let status = a.daemon.status();
        status["listeners"].as_array().is_some_and(|all| !all.is_empty()).then_some(())
    });
    a.order("s5");
    let output = send(&a.daemon, &b, "lost", &["--wait", "queued"]);
    assert!(matches!(output.code, Some(1 | 3)), "{output:?}");
    assert!(!output.stderr.is_empty(), "a reason");
    listen.finish().exits(3);
    assert_eq!(a.ends(), 1);
    a.order("");
    a.launch();
    a.answers();
    b.boot();
    until("what was queued arrives", SOON, || (a.daemon.queued() == 0).then_some(()));
    let mut there = b.bodies();
    // Nobody promised anything of it.
    there.retain(|body| body != "lost");
    assert!(there == sent, "{} of {}", there.len(), sent.len());
}

#[test]
fn writes_without_room_are_told_and_recovered_from_without_a_restart() {
    let (a, b) = (Daemon::start("a"), Daemon::start("b"));
    a.connect(&b);
    let Some(mut b) = Faulty::instead_of(b) else { return };
    a.await_links(&[&b.daemon]);
    let mut sent = vec![large(0)];
    send(&a, &b.daemon, &sent[0], &["--timeout", "20s"]).exits(0);
    // A full disk, a quota that is used up, and a file as large as files may be.
    let orders = ["w28", "h28", "w122", "h122", "w27"];
    for (round, order) in orders.into_iter().enumerate() {
        b.order(order);
        let body = large(round + 1);
        send(&a, &b.daemon, &body, &["--timeout", "2s"]).exits(4);
        sent.push(body);
        assert_holds(&b.daemon, &sent[..=round]);
        await_no_room(&b.daemon);
        let refused = b.daemon.ctl(&["send", &a.peer, "no"]).exits(7);
        assert!(refused.stderr.contains("no room"), "{}", refused.stderr);
        // Nor does that keep it from starting.
        b.restart();
        assert_holds(&b.daemon, &sent[..=round]);
        b.order("");
        let well = Instant::now();
        until("what waited arrives", SOON + Duration::from_secs(60), || {
            (a.queued() == 0).then_some(())
        });
        eprintln!("{order}: arrived {:?} after there was room", well.elapsed());
        assert_holds(&b.daemon, &sent);
        assert!(b.runs());
    }
    b.daemon.ctl(&["send", &a.peer, "yes"]).exits(0);
    assert_eq!(a.bodies(), ["yes"]);
}
