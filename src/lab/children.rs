//! The daemons of a lab: child processes with directories of their own.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::LabError;
use crate::ctl::api::{Client, Events};
use crate::model::limits::SOCKET_PATH_BYTES_MAX;

/// How long a daemon may take to answer for the first time.
const START_MAX: Duration = Duration::from_secs(60);
/// Between two looks whether it answers.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// What a daemon gets to end by itself.
const END_MAX: Duration = Duration::from_secs(3);
/// Daemons started at once: starting is work for the disk.
const STARTS_AT_ONCE: usize = 8;
/// Lines of a log that are shown.
const LOG_LINES: usize = 10;
/// Bytes of a log that are read.
const LOG_BYTES_MAX: u64 = 64 * 1024;

/// What a service manager tells the process that it starts, and that process alone.
const OF_THE_STARTER: [&str; 11] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "CREDENTIALS_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
    "STATE_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "JOURNAL_STREAM",
];

const NAMES: [&str; 26] = [
    "alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "karl",
    "laura", "mallory", "niaj", "olivia", "peggy", "quentin", "rupert", "sybil", "trent", "ursula",
    "victor", "wendy", "xavier", "yvonne", "zoe",
];

/// One daemon.
pub(super) struct Child {
    pub(super) name: String,
    pub(super) socket: PathBuf,
    log: PathBuf,
    process: Mutex<std::process::Child>,
}

/// All daemons of a lab. They end when this is told to, or dropped.
pub(super) struct Children(Vec<Child>);

impl Children {
    /// Starts so many daemons, a few at a time.
    pub(super) async fn start(count: usize, directory: &Path) -> Result<Self, LabError> {
        let mut children = Self(Vec::new());
        while children.0.len() < count {
            let from = children.0.len();
            for number in from..count.min(from + STARTS_AT_ONCE) {
                children.0.push(Child::start(number, directory)?);
            }
            for child in children.0.iter().skip(from) {
                child.client().await?;
            }
        }
        Ok(children)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Child> {
        self.0.iter()
    }

    pub(super) fn first(&self) -> Option<&Child> {
        self.0.first()
    }

    /// Ends all daemons: they are asked by closing their standard input, and killed if they do not
    /// listen.
    pub(super) fn end(&self) {
        for child in &self.0 {
            child.with(|process| drop(process.stdin.take()));
        }
        let deadline = Instant::now() + END_MAX;
        for child in &self.0 {
            while Instant::now() < deadline && !child.has_ended() {
                std::thread::sleep(LOOK_INTERVAL);
            }
            child.with(|process| {
                // One that has ended is only waited for.
                let _ = process.kill();
                let _ = process.wait();
            });
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.end();
    }
}

impl Child {
    fn start(number: usize, directory: &Path) -> Result<Self, LabError> {
        let failed = |what| move |error| LabError::Io(what, error);
        let name = match NAMES.get(number) {
            Some(name) => (*name).to_owned(),
            None => format!("node{}", number + 1),
        };
        let home = directory.join(&name);
        if home.join("socket").as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(LabError::TooLong(directory.to_owned()));
        }
        fs::create_dir(&home).map_err(failed("cannot make a directory"))?;
        let (config, socket, log) =
            (home.join("config.toml"), home.join("socket"), home.join("log"));
        let text = format!(
            "name = \"{name}\"\nlisten = [\"127.0.0.1:0\"]\nstate_dir = {:?}\nsocket = {:?}\n\n\
             [links]\nauto = 0\n",
            home.join("state"),
            socket,
        );
        fs::write(&config, text).map_err(failed("cannot write a configuration"))?;
        let output = File::create(&log).map_err(failed("cannot write a log"))?;
        let executable =
            std::env::current_exe().map_err(failed("cannot find this program's own file"))?;
        let mut command = Command::new(executable);
        // Whoever started the lab has nothing to do with its daemons.
        for variable in OF_THE_STARTER {
            command.env_remove(variable);
        }
        let process = command
            .args(["--no-print", "--exit-with-stdin"])
            .arg(&config)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(output)
            // Ctrl-C at the prompt is for the command that runs there: the terminal sends it to
            // our process group.
            .process_group(0)
            .spawn()
            .map_err(failed("cannot start a daemon"))?;
        Ok(Self { name, socket, log, process: Mutex::new(process) })
    }

    /// A connection to it, as soon as it answers.
    pub(super) async fn client(&self) -> Result<(Client, Events), LabError> {
        let deadline = Instant::now() + START_MAX;
        loop {
            if let Ok(connected) = Client::connect(&self.socket).await {
                return Ok(connected);
            }
            if self.has_ended() || Instant::now() > deadline {
                return Err(LabError::Child { name: self.name.clone(), log: self.last_words() });
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn has_ended(&self) -> bool {
        self.with(|process| !matches!(process.try_wait(), Ok(None)))
    }

    fn with<T>(&self, act: impl FnOnce(&mut std::process::Child) -> T) -> T {
        act(&mut self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn last_words(&self) -> String {
        let short = fs::metadata(&self.log).is_ok_and(|log| log.len() <= LOG_BYTES_MAX);
        let log =
            if short { fs::read_to_string(&self.log).unwrap_or_default() } else { String::new() };
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default().join("\n")
    }
}
