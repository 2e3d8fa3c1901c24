//! The hosts that a test runs on, made and taken down by `tests/rigs/netns-rig.sh`.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use crate::command::run;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rigs/netns-rig.sh");
/// Set to `required`, what cannot run fails.
const WANTED: &str = "DISTMSG_TEST_HOSTS";
/// How many hosts there are.
pub(crate) const HOSTS: usize = 6;

/// The Internet protocol that hosts speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ip {
    V4,
    V6,
}

/// A switch with its hosts. Dropped, it is taken down.
pub(crate) struct Rig {
    name: String,
    scenario: &'static str,
    /// Where addresses begin; hosts and their addresses are counted from 1.
    net4: String,
    net6: String,
    /// Takes the rig down when its standard input ends: when this is dropped, and when the test
    /// is killed before it can drop anything.
    guard: Child,
}

impl Rig {
    /// Makes the hosts. None if that is not possible here, which is said on standard error.
    pub(crate) fn up(scenario: &'static str, number: u8) -> Option<Self> {
        if let Some(why) = obstacle() {
            cannot(scenario, &why);
            return None;
        }
        let name = format!("dm{}-{scenario}", std::process::id());
        // Interrupting the test from a terminal must not end the guard with it.
        let guard = Command::new("bash")
            .args(["-c", "trap '' INT TERM HUP; cat >/dev/null; exec bash \"$0\" down", SCRIPT])
            .env("RIG", &name)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("bash starts");
        let rig = Self {
            name,
            scenario,
            net4: format!("10.77.{number}"),
            net6: format!("fd77:0:0:{number}:"),
            guard,
        };
        let up = run(rig.command(&["up", &HOSTS.to_string()]), "");
        if up.code != Some(0) {
            cannot(scenario, up.stderr.trim());
            return None;
        }
        Some(rig)
    }

    /// The IP address of a host, or one more of its own, counted from 1.
    pub(crate) fn ip(&self, ip: Ip, number: usize) -> String {
        match ip {
            Ip::V4 => format!("{}.{number}", self.net4),
            Ip::V6 => format!("{}:{number}", self.net6),
        }
    }

    /// A command that runs on a host.
    pub(crate) fn on(&self, host: usize, program: &str) -> Command {
        self.command(&["exec", &host.to_string(), program])
    }

    /// Does something to the network.
    #[track_caller]
    pub(crate) fn switch(&self, args: &[&str]) {
        run(self.command(args), "").exits(0);
    }

    /// Drops everything between two hosts, silently.
    pub(crate) fn cut(&self, one: usize, other: usize) {
        self.switch(&["cut", &one.to_string(), &other.to_string()]);
    }

    /// Undoes every cut.
    pub(crate) fn heal(&self) {
        self.switch(&["heal", "all"]);
    }

    /// Lets everything that leaves a host take longer or get lost. False if that is not possible
    /// here, which is said on standard error.
    pub(crate) fn impair(&self, host: usize, delay_ms: u32, loss_percent: u32) -> bool {
        let args = ["netem", &host.to_string(), &delay_ms.to_string(), &loss_percent.to_string()];
        let done = run(self.command(&args), "");
        if done.code != Some(0) {
            cannot(self.scenario, done.stderr.trim());
        }
        done.code == Some(0)
    }

    /// Gives a host another address instead of the one that it has.
    pub(crate) fn readdress(&self, host: usize, old: &str, new: &str) {
        let bits = if old.contains(':') { 64 } else { 24 };
        // In this order: without its first address a host loses the others too.
        for (what, ip) in [("del", old), ("add", new)] {
            let mut command = self.on(host, "ip");
            command.args(["addr", what, &format!("{ip}/{bits}"), "dev", "eth0"]);
            if old.contains(':') && what == "add" {
                command.arg("nodad");
            }
            run(command, "").exits(0);
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("bash");
        command.arg(SCRIPT).args(args);
        command.env("RIG", &self.name);
        command.env("RIG_NET4", &self.net4).env("RIG_NET6", &self.net6);
        command
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// Says something that is seen even if the test passes.
pub(crate) fn say(scenario: &str, what: &str) {
    // Written directly: what a test prints is kept back by its harness.
    let _ = writeln!(std::io::stderr(), "hosts, {scenario}: {what}");
}

/// What is missing here, if anything.
fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    let missing = |program: &&str| {
        let (out, errors) = (Stdio::null(), Stdio::null());
        Command::new(program).arg("--help").stdout(out).stderr(errors).status().is_err()
    };
    let program = ["bash", "ip", "nft"].into_iter().find(missing)?;
    Some(format!("no program {program}"))
}

/// Says that a scenario cannot run here, and why; fails if it has to.
fn cannot(scenario: &str, why: &str) {
    let required = std::env::var(WANTED).is_ok_and(|wanted| wanted == "required");
    assert!(!required, "{WANTED}=required, and {scenario} cannot run here: {why}");
    let _ = writeln!(std::io::stderr(), "SKIPPED: hosts, {scenario}: {why}");
}
