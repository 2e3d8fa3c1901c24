//! One host with its daemon.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::command::{Output, run, until};
use crate::rig::Rig;

/// How long a daemon may take to answer or to stop, on a machine that is busy.
const DAEMON_MAX: Duration = Duration::from_secs(20);
/// Where every daemon listens, each on its own address.
const PORT: u16 = 3000;
/// Lines of a daemon's log shown when a test fails.
const LOG_LINES_SHOWN: usize = 60;

const DISTMSG: &str = env!("CARGO_BIN_EXE_distmsg");
const DISTMSGCTL: &str = env!("CARGO_BIN_EXE_distmsgctl");

/// A daemon on a host of its own. Dropped, it is killed; its log is shown if the test has failed.
pub(crate) struct Host {
    /// Which host, counted from 1.
    pub(crate) number: usize,
    /// Its full ID.
    pub(crate) peer: String,
    /// The IP address on which it listens.
    pub(crate) ip: String,
    /// Links that it makes by itself.
    links_auto: usize,
    dir: TempDir,
    child: Option<Child>,
}

impl Host {
    /// Starts the daemon of a host and waits until it answers.
    pub(crate) fn start(rig: &Rig, number: usize, ip: String, links_auto: usize) -> Self {
        // Short: the path of a Unix socket has at most 107 bytes.
        let dir = tempfile::Builder::new().prefix("dm").tempdir_in("/tmp").expect("a directory");
        let mut host = Self { number, peer: String::new(), ip, links_auto, dir, child: None };
        for dir in ["h", "r", "c/distmsg", "t"] {
            fs::create_dir_all(host.path(dir)).expect("a directory");
        }
        host.boot(rig);
        host.peer = host.status()["peer"].as_str().expect("an ID").to_owned();
        host
    }

    /// Starts its daemon, or starts it again, on the address that it has by now.
    pub(crate) fn boot(&mut self, rig: &Rig) {
        assert!(self.child.is_none(), "host {} runs already", self.number);
        let toml = format!(
            "name = \"h{}\"\nlisten = [\"{}\"]\nnetwork = \"open\"\n\n[links]\nauto = {}\n",
            self.number,
            self.address(),
            self.links_auto
        );
        fs::write(self.path("c/distmsg/config.toml"), toml).expect("written");
        let log = OpenOptions::new().create(true).append(true).open(self.path("log"));
        let mut command = rig.on(self.number, DISTMSG);
        self.surround(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.expect("a file"));
        self.child = Some(command.spawn().expect("bash starts"));
        until(&format!("host {} answers", self.number), DAEMON_MAX, || {
            let ended = self.child.as_mut().expect("started").try_wait().expect("our child");
            assert!(ended.is_none(), "host {} ended at its start: {ended:?}", self.number);
            self.path("r/distmsg/socket").exists() && self.ctl(&["status"]).code == Some(0)
        });
    }

    /// Ends its daemon as a machine that is switched off does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        if self.ip.contains(':') {
            format!("[{}]:{PORT}", self.ip)
        } else {
            format!("{}:{PORT}", self.ip)
        }
    }

    /// Runs distmsgctl with no standard input.
    #[track_caller]
    pub(crate) fn ctl(&self, args: &[&str]) -> Output {
        self.ctl_given(args, "")
    }

    /// Runs distmsgctl with this standard input.
    #[track_caller]
    pub(crate) fn ctl_given(&self, args: &[&str], stdin: &str) -> Output {
        // A Unix socket is of the file system, whatever host it is used on.
        let mut command = Command::new(DISTMSGCTL);
        command.args(args);
        self.surround(&mut command);
        run(command, stdin)
    }

    /// The answer to `status --json`.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.ctl(&["status", "--json"]).exits(0).json().remove(0)
    }

    /// Messages it holds for others.
    #[track_caller]
    pub(crate) fn queued(&self) -> u64 {
        self.status()["outbox_messages"].as_u64().expect("a number")
    }

    /// Messages it holds for another.
    #[track_caller]
    pub(crate) fn queued_for(&self, other: &Self) -> usize {
        let outbox = self.ctl(&["outbox", "--json"]).exits(0).json();
        outbox.iter().filter(|message| message["to"] == *other.peer).count()
    }

    /// The messages in its inbox, oldest first, with their bodies.
    #[track_caller]
    pub(crate) fn inbox(&self) -> Vec<Value> {
        let count = self.status()["inbox_messages"].as_u64().expect("a number").to_string();
        if count == "0" {
            return Vec::new();
        }
        self.ctl(&["listen", "--json", "--count", &count, "--timeout", "30s"]).exits(0).json()
    }

    /// Its link with another, if there is one.
    #[track_caller]
    pub(crate) fn link(&self, other: &Self) -> Option<Value> {
        let peers = self.ctl(&["peers", "--json"]).exits(0).json();
        let mut links = peers.into_iter().filter(|peer| peer["peer"] == *other.peer);
        links.next().map(|peer| peer["link"].clone()).filter(|link| !link.is_null())
    }

    /// How many links it has.
    #[track_caller]
    pub(crate) fn links(&self) -> usize {
        let peers = self.ctl(&["peers", "--json"]).exits(0).json();
        peers.iter().filter(|peer| !peer["link"].is_null()).count()
    }

    /// Whose neighbour messages to another go by.
    #[track_caller]
    pub(crate) fn first_hop(&self, to: &Self) -> Option<String> {
        let routes = self.ctl(&["routes", "--json"]).exits(0).json();
        let route = routes.into_iter().find(|route| route["destination"] == *to.peer)?;
        route["next_hops"][0]["peer"].as_str().map(str::to_owned)
    }

    fn path(&self, inner: &str) -> PathBuf {
        self.dir.path().join(inner)
    }

    fn surround(&self, command: &mut Command) {
        let log = std::env::var("DISTMSG_LOG").unwrap_or_else(|_| "info".to_owned());
        command
            .env("TZ", "UTC")
            .env("HOME", self.path("h"))
            .env("TMPDIR", self.path("t"))
            .env("XDG_RUNTIME_DIR", self.path("r"))
            .env("XDG_CONFIG_HOME", self.path("c"))
            .env("XDG_STATE_HOME", self.path("s"))
            .env("DISTMSG_LOG", log)
            .env_remove("DISTMSG_SOCKET")
            .env_remove("DISTMSG_CONFIG")
            .env_remove("DISTMSG_INTERFACE_ADDR")
            .current_dir(self.dir.path());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = fs::read(self.path("log")).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            let skipped = lines.len().saturating_sub(LOG_LINES_SHOWN);
            eprintln!("--- host {} {} ({skipped} lines before)", self.number, self.peer);
            lines.iter().skip(skipped).for_each(|line| eprintln!("{line}"));
        }
    }
}
