//! Why the daemon's program ends, for people and for scripts.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use super::logging;
use crate::config::{PathError, Problems};
use crate::model::escaped;

/// Something went wrong.
pub const FAILURE: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// The configuration is wrong (`EX_CONFIG` of sysexits): restarting does not help.
pub const CONFIG: u8 = 78;

/// An end with an exit code and what is to be said about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stop {
    /// The exit code.
    pub code: u8,
    /// One line, or one line for each problem.
    pub message: String,
}

impl Stop {
    /// Something went wrong.
    pub fn failure(message: impl fmt::Display) -> Self {
        Self { code: FAILURE, message: message.to_string() }
    }

    /// The command line is wrong.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { code: USAGE, message: message.to_string() }
    }

    /// The configuration is wrong.
    pub fn config(message: impl fmt::Display) -> Self {
        Self { code: CONFIG, message: message.to_string() }
    }
}

/// Says on standard error why we stop, if there is anything to say, and gives the exit code.
///
/// A configuration's problems begin with file and line, as editors expect it, so nothing is put
/// before them.
pub fn report(result: Result<(), Stop>) -> ExitCode {
    let Err(stop) = result else { return ExitCode::SUCCESS };
    let prefix = if stop.code == CONFIG { "" } else { "distmsg: " };
    // By this the journal tells how serious a line is: sd-daemon(3).
    let level = if logging::stderr_is_journal() { "<3>" } else { "" };
    for line in stop.message.lines() {
        // When standard error is gone, the exit code still tells.
        let _ = writeln!(io::stderr(), "{level}{prefix}{}", safe(line));
    }
    ExitCode::from(stop.code)
}

/// A line that cannot reach the terminal, whatever path is named in it. Backslashes are left alone:
/// what was escaped before must not be again.
fn safe(line: &str) -> String {
    line.split('\\').map(escaped).collect::<Vec<_>>().join("\\")
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Stop {}

impl From<Problems> for Stop {
    fn from(problems: Problems) -> Self {
        Self::config(problems)
    }
}

impl From<PathError> for Stop {
    fn from(error: PathError) -> Self {
        Self::config(error)
    }
}

/// Results and chatter that could not be written.
impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // Whoever read us has seen enough.
            io::ErrorKind::BrokenPipe => Self { code: 0, message: String::new() },
            _ => Self::failure(format_args!("cannot write the output: {error}")),
        }
    }
}
