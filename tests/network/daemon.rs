//! One daemon with a home, a configuration and directories of its own.

use std::fs::{self, File, OpenOptions};
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::running::{Output, Running, send_signal, until, wait};

/// How long a daemon may take to answer or to stop, on a machine that is busy.
pub(crate) const DAEMON_MAX: Duration = Duration::from_secs(20);
/// How long anything may take that should take no time.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// Lines of a daemon's log shown when a test fails.
const LOG_LINES_SHOWN: usize = 120;

const DISTMSG: &str = env!("CARGO_BIN_EXE_distmsg");
const DISTMSGCTL: &str = env!("CARGO_BIN_EXE_distmsgctl");

/// A daemon, running or not. Dropped, it is killed; its log is shown if the test has failed.
pub(crate) struct Daemon {
    /// What it calls itself.
    pub(crate) name: String,
    /// Its full ID. Empty before the first start.
    pub(crate) peer: String,
    /// Where it listens, the same after each restart. Empty before the first start.
    pub(crate) address: String,
    /// How much it logs.
    pub(crate) log_filter: String,
    /// What else its environment has.
    pub(crate) vars: Vec<(&'static str, String)>,
    dir: TempDir,
    child: Option<Child>,
}

impl Daemon {
    /// A daemon that runs, linked with nobody and making no links by itself.
    pub(crate) fn start(name: &str) -> Self {
        let mut daemon = Self::prepare(name);
        daemon.boot();
        daemon
    }

    /// Directories and a configuration, which may be changed before [`Daemon::boot`].
    pub(crate) fn prepare(name: &str) -> Self {
        // Short: the path of a Unix socket has at most 107 bytes.
        let dir = tempfile::Builder::new().prefix("dm").tempdir_in("/tmp").expect("a directory");
        let daemon = Self {
            name: name.to_owned(),
            peer: String::new(),
            address: String::new(),
            log_filter: std::env::var("DISTMSG_LOG").unwrap_or_else(|_| "debug".to_owned()),
            vars: Vec::new(),
            dir,
            child: None,
        };
        for dir in ["h", "r", "c/distmsg", "t"] {
            fs::create_dir_all(daemon.path(dir)).expect("a directory");
        }
        daemon.configure(&format!(
            "name = \"{name}\"\nlisten = [\"{}:0\"]\nnetwork = \"open\"\n\n\
             [links]\nauto = 0\n",
            own_address()
        ));
        daemon
    }

    /// Replaces the configuration.
    pub(crate) fn configure(&self, toml: &str) {
        fs::write(self.config(), toml).expect("written");
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.path("c/distmsg/config.toml")
    }

    /// The control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("r/distmsg/socket")
    }

    /// The state directory.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.path("s/distmsg")
    }

    /// What it wrote to standard error, all starts together.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("log")).unwrap_or_default()).into_owned()
    }

    /// Waits for a line of its log that has all of this, whatever else: the log is written by a
    /// thread of its own, after what it tells of.
    #[track_caller]
    pub(crate) fn logged_all(&self, parts: &[&str]) -> String {
        until(&format!("{} logs {parts:?}", self.name), SOON, || {
            let log = self.log();
            let mut whole = log.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
            let has_all = |line: &&str| parts.iter().all(|part| line.contains(part));
            whole.find(has_all).map(str::to_owned)
        })
    }

    /// [`Daemon::logged_all`] of one.
    #[track_caller]
    pub(crate) fn logged(&self, part: &str) -> String {
        self.logged_all(&[part])
    }

    /// What it wrote to standard output, all starts together.
    pub(crate) fn printed(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("out")).unwrap_or_default()).into_owned()
    }

    fn path(&self, inner: &str) -> PathBuf {
        self.dir.path().join(inner)
    }

    /// Starts it, or starts it again, and waits until it answers.
    pub(crate) fn boot(&mut self) {
        self.boot_with(&[]);
    }

    /// [`Daemon::boot`] with arguments.
    pub(crate) fn boot_with(&mut self, args: &[&str]) {
        self.launch(args);
        let status = self.answer();
        if self.address.is_empty() {
            self.peer = text(&status, "peer");
            self.address = status["listen"][0].as_str().expect("it listens").to_owned();
            let config = fs::read_to_string(self.config()).expect("its configuration");
            let (host, _) = self.address.rsplit_once(':').expect("a port");
            self.configure(
                &config.replace(&format!("\"{host}:0\""), &format!("\"{}\"", self.address)),
            );
        }
        assert_eq!(text(&status, "peer"), self.peer, "{} keeps its identity", self.name);
        assert_eq!(status["listen"][0], *self.address, "{} keeps its address", self.name);
    }

    /// Starts the process without waiting for anything.
    pub(crate) fn launch(&mut self, args: &[&str]) {
        self.launch_to(args, self.append("out").into(), self.append("log").into());
    }

    fn append(&self, name: &str) -> File {
        let path = self.path(name);
        OpenOptions::new().create(true).append(true).open(path).expect("a file")
    }

    /// Starts it as systemd starts what a socket unit activates: descriptors 3 and 4 are handed
    /// over to this very process. A shell in between gives them their numbers, and then becomes it.
    pub(crate) fn launch_activated(&mut self, first: Stdio, second: Option<Stdio>) {
        let (fds, from) = match second {
            Some(_) => (2, "4<&1"),
            None => (1, ""),
        };
        let script = format!(
            "exec 3<&0 {from} 0</dev/null 1>/dev/null; \
             export LISTEN_PID=$$ LISTEN_FDS={fds}; exec '{DISTMSG}'"
        );
        let mut command = self.command("/bin/sh");
        command.args(["-c", &script]).stdin(first).stdout(second.unwrap_or_else(Stdio::null));
        self.spawn(command.stderr(self.append("log")));
    }

    /// Starts it where the journal's socket is this directory's, its standard error leading to the
    /// journal by all that it can tell: in a mount namespace of its own.
    pub(crate) fn launch_beside_journal(&mut self, journal: &Path) {
        let log = self.append("log");
        self.claim_journal();
        let script = format!(
            "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && \
             mount --bind '{}' /run/systemd/journal && exec '{DISTMSG}'",
            journal.display()
        );
        let mut command = self.command("unshare");
        command.args(["--user", "--map-root-user", "--mount", "/bin/sh", "-c", &script]);
        self.spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log));
    }

    /// Has it believe that its log leads to the journal.
    pub(crate) fn claim_journal(&mut self) {
        let file = self.append("log").metadata().expect("its metadata");
        self.vars.retain(|(name, _)| *name != "JOURNAL_STREAM");
        self.vars.push(("JOURNAL_STREAM", format!("{}:{}", file.dev(), file.ino())));
    }

    /// Starts it with this standard input.
    pub(crate) fn launch_on(&mut self, stdin: Stdio) {
        let mut command = self.command(DISTMSG);
        command.arg("--no-print").stdin(stdin).stdout(Stdio::null()).stderr(self.append("log"));
        self.spawn(&mut command);
    }

    /// Waits until it ended by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it was started");
        wait(&mut child, &format!("{} by itself", self.name), DAEMON_MAX)
    }

    /// The same with its output and its log elsewhere.
    pub(crate) fn launch_to(&mut self, args: &[&str], out: Stdio, log: Stdio) {
        let mut command = self.command(DISTMSG);
        self.spawn(command.args(args).stdin(Stdio::null()).stdout(out).stderr(log));
    }

    fn spawn(&mut self, command: &mut Command) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        self.child = Some(command.spawn().expect("distmsg starts"));
    }

    /// Waits until it answers.
    pub(crate) fn answer(&mut self) -> Value {
        until(&format!("{} answers", self.name), DAEMON_MAX, || {
            let child = self.child.as_mut().expect("started");
            if let Some(status) = child.try_wait().expect("our child") {
                panic!("{} ended at its start: {status}", self.name);
            }
            // Cheaper than a process that tells that there is nobody.
            std::os::unix::net::UnixStream::connect(self.socket()).ok()?;
            let output = self.ctl(&["status", "--json"]);
            (output.code == Some(0)).then(|| output.json().remove(0))
        })
    }

    /// The daemon's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// SIGKILL: it gets no chance to do anything.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("our child");
        child.wait().expect("our child");
    }

    /// SIGTERM, and its end.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        send_signal(&child, Signal::TERM);
        wait(&mut child, &format!("{} after SIGTERM", self.name), DAEMON_MAX)
    }

    /// Sends its process a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        send_signal(self.child.as_ref().expect("it runs"), signal);
    }

    /// Whether its process is there.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("our child").is_none())
    }

    /// Another process of the daemon's program with the same surroundings.
    pub(crate) fn distmsg(&self, args: &[&str]) -> Output {
        let mut command = self.command(DISTMSG);
        command.args(args);
        Running::start(command).finish()
    }

    /// Runs distmsgctl with no standard input.
    pub(crate) fn ctl(&self, args: &[&str]) -> Output {
        self.ctl_start(args).finish()
    }

    /// Runs distmsgctl with this standard input.
    pub(crate) fn ctl_given(&self, args: &[&str], stdin: &[u8]) -> Output {
        let mut running = self.ctl_start(args);
        running.give(stdin);
        running.finish()
    }

    /// [`Daemon::ctl`] with arguments that need not be text.
    pub(crate) fn ctl_os(&self, args: &[&std::ffi::OsStr]) -> Output {
        let mut command = self.command(DISTMSGCTL);
        command.args(args);
        Running::start(command).finish()
    }

    /// Starts distmsgctl.
    pub(crate) fn ctl_start(&self, args: &[&str]) -> Running {
        let mut command = self.command(DISTMSGCTL);
        command.args(args);
        Running::start(command)
    }

    /// A program with this node's surroundings and nothing else.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("TZ", "UTC")
            .env("HOME", self.path("h"))
            .env("TMPDIR", self.path("t"))
            .env("XDG_RUNTIME_DIR", self.path("r"))
            .env("XDG_CONFIG_HOME", self.path("c"))
            .env("XDG_STATE_HOME", self.path("s"))
            .env("DISTMSG_LOG", &self.log_filter)
            .envs(self.vars.iter().map(|(name, value)| (name, value)))
            .current_dir(self.dir.path());
        command
    }

    /// Links to another daemon, verified, under its own name.
    #[track_caller]
    pub(crate) fn connect(&self, other: &Self) {
        self.connect_by(other, &other.address);
    }

    /// [`Daemon::connect`] by another address.
    #[track_caller]
    pub(crate) fn connect_by(&self, other: &Self, address: &str) {
        self.ctl(&["connect", &other.peer, address]).exits(0);
    }

    /// The answer to `status --json`.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.ctl(&["status", "--json"]).exits(0).json().remove(0)
    }

    /// The answer to `peers --json`.
    #[track_caller]
    pub(crate) fn peers(&self) -> Vec<Value> {
        self.ctl(&["peers", "--json"]).exits(0).json()
    }

    /// What it knows of a peer, if anything.
    #[track_caller]
    pub(crate) fn knows(&self, other: &Self) -> Option<Value> {
        self.peers().into_iter().find(|peer| peer["peer"] == *other.peer)
    }

    /// The IDs of the peers it is linked with, sorted.
    #[track_caller]
    pub(crate) fn linked(&self) -> Vec<String> {
        let peers = self.peers();
        let linked = peers.iter().filter(|peer| !peer["link"].is_null());
        let mut linked: Vec<String> = linked.map(|peer| text(peer, "peer")).collect();
        linked.sort();
        linked
    }

    /// Waits until it is linked with exactly these, in whatever order.
    #[track_caller]
    pub(crate) fn await_links(&self, others: &[&Self]) {
        let mut wanted: Vec<String> = others.iter().map(|other| other.peer.clone()).collect();
        wanted.sort();
        until(&format!("{} has its links", self.name), SOON, || {
            (self.linked() == wanted).then_some(())
        });
    }

    /// The bodies in its inbox with their senders, oldest first.
    #[track_caller]
    pub(crate) fn inbox(&self) -> Vec<(String, String)> {
        let messages = self.ctl(&["inbox", "--json"]).exits(0).json();
        messages.iter().map(|message| (text(message, "from"), text(message, "body"))).collect()
    }

    /// The bodies in its inbox, oldest first.
    #[track_caller]
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.inbox().into_iter().map(|(_, body)| body).collect()
    }

    /// Messages it holds for others.
    #[track_caller]
    pub(crate) fn queued(&self) -> u64 {
        self.status()["outbox_messages"].as_u64().expect("a number")
    }

    /// Its database, whether it runs or not.
    pub(crate) fn database(&self) -> rusqlite::Connection {
        let is_database = |file: &PathBuf| {
            fs::read(file).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3\0"))
        };
        let database = self.files().into_iter().find(is_database);
        rusqlite::Connection::open(database.expect("a store")).expect("opened")
    }

    /// Every file it keeps or writes: state, logs, outputs.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.path("log"), self.path("out")];
        files_in(&self.path("s"), &mut files);
        files_in(&self.path("t"), &mut files);
        files_in(&self.path("h"), &mut files);
        files
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let skipped = lines.len().saturating_sub(LOG_LINES_SHOWN);
            eprintln!("--- {} {} ({skipped} lines before)", self.name, self.peer);
            lines.iter().skip(skipped).for_each(|line| eprintln!("{line}"));
        }
    }
}

/// A loopback address that no other daemon has, nor whoever asks for a free port at 127.0.0.1:
/// while a daemon is not running, nobody takes its port.
fn own_address() -> Ipv4Addr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Processes of tests that run at the same time hardly have the same last bits.
    let process = std::process::id() & 0xfff;
    let taken = TAKEN.fetch_add(1, Ordering::Relaxed) & 0x3ff;
    Ipv4Addr::from_bits(0x7f40_0000 | process << 10 | taken)
}

/// A text in an object.
#[track_caller]
pub(crate) fn text(object: &Value, key: &str) -> String {
    object[key].as_str().unwrap_or_else(|| panic!("no text {key} in {object}")).to_owned()
}

fn files_in(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => files_in(&path, files),
            path => files.push(path),
        }
    }
}

/// Daemons named a, b, c and so on, each linked with the next and with nobody else.
pub(crate) fn line(names: &str) -> Vec<Daemon> {
    let daemons = start_all(names);
    for pair in daemons.windows(2) {
        pair[0].connect(&pair[1]);
    }
    daemons
}

/// Daemons with one-letter names, linked with nobody.
pub(crate) fn start_all(names: &str) -> Vec<Daemon> {
    let mut daemons: Vec<Daemon> =
        names.chars().map(|name| Daemon::prepare(&name.to_string())).collect();
    std::thread::scope(|scope| {
        for daemon in &mut daemons {
            scope.spawn(|| daemon.boot());
        }
    });
    daemons
}
