//! Logs: to the journal when systemd connected us with it, to standard error otherwise.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::exit::Stop;
use super::journal::Journal;
use super::outlet::{Outlet, one_line};
use crate::config::Environment;
use crate::model::Level;

const LOG_VARIABLE: &str = "DISTMSG_LOG";
const STREAM_VARIABLE: &str = "JOURNAL_STREAM";
/// Bytes of a filter in the variable.
const FILTER_BYTES_MAX: usize = 4 * 1024;

/// Why there are no logs.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// The variable says something else.
    #[error(
        "DISTMSG_LOG: not a level or filter ({0}); write error, warn, info, debug, trace, or a \
         filter such as distmsg::link=debug"
    )]
    Filter(String),
    /// There is no thread to write them.
    #[error("cannot start logging: {0}")]
    Thread(#[from] io::Error),
    /// Logging was started twice in this process.
    #[error("cannot start logging: {0}")]
    Started(#[from] TryInitError),
}

impl From<LoggingError> for Stop {
    fn from(error: LoggingError) -> Self {
        match error {
            LoggingError::Filter(_) => Self::config(error),
            LoggingError::Started(_) | LoggingError::Thread(_) => Self::failure(error),
        }
    }
}

/// How much is logged, to be changed while the daemon runs.
#[derive(Debug, Clone)]
pub struct Verbosity {
    handle: reload::Handle<EnvFilter, Registry>,
    /// What `DISTMSG_LOG` says, which was right at the start.
    variable: Option<OsString>,
    /// What passes, in the words of whoever said it last.
    current: Arc<Mutex<String>>,
}

impl Verbosity {
    fn new(
        handle: reload::Handle<EnvFilter, Registry>,
        level: Level,
        variable: Option<&OsStr>,
    ) -> Self {
        let variable = variable.map(OsStr::to_owned);
        let current = Arc::new(Mutex::new(words(level, variable.as_deref())));
        Self { handle, variable, current }
    }

    /// Logs from this level on, whatever was said before.
    pub fn set(&self, level: Level) {
        self.replace(of_level(level), words(level, None));
    }

    /// Logs as much as at a start with this level in the configuration.
    pub fn begin_again(&self, level: Level) {
        if let Ok(filter) = filter(level, self.variable.as_deref()) {
            self.replace(filter, words(level, self.variable.as_deref()));
        }
    }

    /// The level from which on is logged, or the filter that decides.
    pub fn current(&self) -> String {
        self.words().clone()
    }

    fn replace(&self, filter: EnvFilter, words: String) {
        // It fails only if logging has ended, and then nobody would read about that.
        if self.handle.reload(filter).is_ok() {
            *self.words() = words;
        }
    }

    fn words(&self) -> MutexGuard<'_, String> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What [`filter`] makes a filter of.
fn words(level: Level, variable: Option<&OsStr>) -> String {
    let variable = variable.map(|variable| variable.to_string_lossy().into_owned());
    variable.unwrap_or_else(|| level.word().to_owned())
}

/// Logs, from the start to the end: what was logged is written when it is dropped.
#[derive(Debug)]
pub struct Logging {
    /// How much is logged.
    pub verbosity: Verbosity,
    way: Way,
}

/// Where the log goes.
#[derive(Debug)]
enum Way {
    Journal(Journal),
    Lines(Outlet<Vec<u8>>),
}

impl Drop for Logging {
    fn drop(&mut self) {
        match &self.way {
            Way::Journal(journal) => journal.finish(),
            Way::Lines(lines) => lines.finish(),
        }
    }
}

/// Starts logging, as much as `DISTMSG_LOG` says or else the configuration.
///
/// # Errors
/// When the variable holds no level and no filter, or logging was started before.
pub fn start(level: Level, environment: &Environment) -> Result<Logging, LoggingError> {
    let variable = environment.var(LOG_VARIABLE).map(|filter| filter.as_os_str());
    let filter = filter(level, variable)?;
    let stream = environment.var(STREAM_VARIABLE).map(|stream| stream.as_os_str());
    // Where there is no journal to connect with, standard error leads to it without the fields.
    let journal = is_journal(stream, stderr_file()).then(Journal::start).and_then(Result::ok);
    let (layer, way): (Box<dyn Layer<Registry> + Send + Sync>, _) = match journal {
        Some(journal) => (Box::new(journal.clone()), Way::Journal(journal)),
        None => {
            let terminal = io::stderr().is_terminal();
            let colour = terminal && environment.var("NO_COLOR").is_none();
            let lines = Outlet::of_lines(io::stderr())?;
            let layer = fmt::layer().with_writer(OneLine(lines.clone()));
            (Box::new(layer.with_ansi(colour).with_target(!terminal)), Way::Lines(lines))
        }
    };
    let (filter, handle) = reload::Layer::new(filter);
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?;
    Ok(Logging { verbosity: Verbosity::new(handle, level, variable), way })
}

/// What passes: of ours from this level on, of the libraries only what is serious.
fn of_level(level: Level) -> EnvFilter {
    EnvFilter::new(format!("warn,distmsg={level}"))
}

/// What passes at the start.
fn filter(level: Level, variable: Option<&OsStr>) -> Result<EnvFilter, LoggingError> {
    let Some(variable) = variable else { return Ok(of_level(level)) };
    let text = variable.to_str().filter(|text| text.len() <= FILTER_BYTES_MAX);
    let text = text.ok_or_else(|| LoggingError::Filter("not UTF-8, or too long".to_owned()))?;
    match text.to_ascii_lowercase().parse() {
        Ok(level) => Ok(of_level(level)),
        // A lone word would be taken for the name of a target, and nothing would be logged.
        Err(_) if !text.contains('=') => Err(LoggingError::Filter("unknown level".to_owned())),
        Err(_) => EnvFilter::try_new(text).map_err(|error| LoggingError::Filter(error.to_string())),
    }
}

/// Whether standard error leads to the journal.
pub fn stderr_is_journal() -> bool {
    is_journal(std::env::var_os(STREAM_VARIABLE).as_deref(), stderr_file())
}

/// Device and inode of standard error.
fn stderr_file() -> Option<(u64, u64)> {
    let found = rustix::fs::fstat(io::stderr()).ok()?;
    Some((found.st_dev, found.st_ino))
}

/// Whether standard error is what systemd says leads to the journal (systemd.exec(5)). The variable
/// alone proves nothing: whoever we were started by may have redirected it.
fn is_journal(stream: Option<&OsStr>, stderr: Option<(u64, u64)>) -> bool {
    let parsed = stream.and_then(OsStr::to_str).and_then(|stream| {
        let (device, inode) = stream.split_once(':')?;
        Some((device.parse().ok()?, inode.parse().ok()?))
    });
    parsed.is_some() && parsed == stderr
}

/// Standard error, where each event is one line whatever is in it: no peer can forge another line.
struct OneLine(Outlet<Vec<u8>>);

impl<'a> MakeWriter<'a> for OneLine {
    type Writer = OneLineWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLineWriter(&self.0)
    }
}

/// The formatter hands over each event whole, in one write.
struct OneLineWriter<'a>(&'a Outlet<Vec<u8>>);

impl Write for OneLineWriter<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event.strip_suffix(b"\n").unwrap_or(event));
        self.0.say((one_line(&text) + "\n").into_bytes());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_counts_more_than_the_configuration() {
        let shown = |variable: Option<&str>| {
            filter(Level::Info, variable.map(OsStr::new)).map(|filter| filter.to_string())
        };
        for (variable, expected) in [
            (None, &["warn", "distmsg=info"][..]),
            (Some("debug"), &["warn", "distmsg=debug"]),
            (Some("TRACE"), &["warn", "distmsg=trace"]),
            (Some("distmsg::link=debug"), &["distmsg::link=debug"]),
        ] {
            let shown = shown(variable).expect("a filter");
            let parts: Vec<&str> = shown.split(',').collect();
            assert!(expected.iter().all(|part| parts.contains(part)), "{shown}");
        }
        for wrong in ["loud", "distmsg=loud"] {
            let error = shown(Some(wrong)).expect_err(wrong).to_string();
            assert!(error.starts_with("DISTMSG_LOG: not a level or filter"), "{error}");
        }
    }

    #[test]
    fn how_much_is_logged_can_be_changed_while_running() {
        let (layer, handle) = reload::Layer::new(of_level(Level::Warn));
        let log = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let writer = log.clone();
        let lines = fmt::layer().with_writer(move || Shared(writer.clone())).with_filter(layer);
        let verbosity = Verbosity::new(handle, Level::Warn, None);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            tracing::info!(target: "distmsg", "before");
            verbosity.set(Level::Info);
            tracing::info!(target: "distmsg", "after");
            tracing::info!(target: "rustls", "of others");
        });
        let log = String::from_utf8(log.lock().expect("whole").clone()).expect("text");
        assert!(!log.contains("before") && log.contains("after"), "{log}");
        assert!(!log.contains("of others"), "{log}");
    }

    /// A log that the test can read.
    struct Shared(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("whole").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_journal_is_where_systemd_says_and_standard_error_leads() {
        let stream = |text: &'static str| Some(OsStr::new(text));
        assert!(is_journal(stream("8:42"), Some((8, 42))));
        assert!(!is_journal(stream("8:42"), Some((8, 43))));
        assert!(!is_journal(stream("8:42"), None));
        assert!(!is_journal(stream("nonsense"), None));
        assert!(!is_journal(None, Some((8, 42))));
        assert!(!is_journal(None, None));
    }

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(one_line("a\nforged\r"), "a\\nforged\\r");
        assert_eq!(one_line("next"), "next");
    }
}
