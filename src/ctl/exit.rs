//! How a command ends: its exit code, and the one line that explains it.

use std::borrow::Cow;
use std::process::ExitCode;

use serde::Serialize;

use super::text;
use crate::control::protocol::{ErrorCode, Failure};

/// The exit codes: a contract with scripts. Never renumber one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// Failed, for a reason that has no code of its own.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The daemon cannot be reached, or went away.
    Unreachable = 3,
    /// Not delivered in time, still queued; or a peer is not linked yet and dialled on.
    StillQueued = 4,
    /// Nothing came in time.
    NothingCame = 5,
    /// Another key than the expected one.
    Mismatch = 6,
    /// Refused, or too large.
    Refused = 7,
    /// No such peer, message or listener.
    NoSuch = 8,
    /// Ended by ctrl-C: 128 + SIGINT, as shells count.
    Interrupted = 130,
    /// Ended by SIGTERM: 128 + SIGTERM.
    Terminated = 143,
}

impl Exit {
    /// All of them, by number.
    pub(crate) const ALL: [Self; 11] = [
        Self::Done,
        Self::Failure,
        Self::Usage,
        Self::Unreachable,
        Self::StillQueued,
        Self::NothingCame,
        Self::Mismatch,
        Self::Refused,
        Self::NoSuch,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// What it means, for help and manual.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failure => "failure",
            Self::Usage => "usage",
            Self::Unreachable => "daemon unreachable",
            Self::StillQueued => {
                "not delivered in time, still queued; or not linked in time, still dialled"
            }
            Self::NothingCame => "nothing came in time",
            Self::Mismatch => "identity mismatch: another key answered",
            Self::Refused => "refused, or too large",
            Self::NoSuch => "no such peer, message or listener",
            Self::Interrupted => "interrupted by ctrl-C (SIGINT)",
            Self::Terminated => "ended by SIGTERM",
        }
    }

    /// The one table from the daemon's error codes to exit codes.
    pub(crate) const fn of(code: ErrorCode) -> Self {
        match code {
            ErrorCode::InvalidParams => Self::Usage,
            ErrorCode::Stopping => Self::Unreachable,
            ErrorCode::NotDelivered => Self::StillQueued,
            ErrorCode::Timeout => Self::NothingCame,
            ErrorCode::IdentityMismatch => Self::Mismatch,
            ErrorCode::Refused
            | ErrorCode::TooLarge
            | ErrorCode::OutboxFull
            | ErrorCode::StorageFull
            | ErrorCode::ListenerInUse
            | ErrorCode::Unauthorized
            | ErrorCode::KeyConflict => Self::Refused,
            // An ambiguous prefix names nobody.
            ErrorCode::NoSuchPeer
            | ErrorCode::AmbiguousPeer
            | ErrorCode::NoSuchMessage
            | ErrorCode::NoSuchListener => Self::NoSuch,
            ErrorCode::ParseError
            | ErrorCode::InvalidRequest
            | ErrorCode::MethodNotFound
            | ErrorCode::AliasTaken
            | ErrorCode::Unreachable
            | ErrorCode::Busy
            | ErrorCode::Expired
            | ErrorCode::StorageFailed => Self::Failure,
        }
    }

    /// The worse of two, for streams: 0, 4, 5, 8, 7, 6, 2, 1, 3 from good to bad. A message that is
    /// still queued will yet arrive; one that was refused will not; and without a daemon nobody
    /// knows.
    pub(crate) fn worse(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }

    const fn rank(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::StillQueued => 1,
            Self::NothingCame => 2,
            Self::NoSuch => 3,
            Self::Refused => 4,
            Self::Mismatch => 5,
            Self::Usage => 6,
            Self::Failure => 7,
            Self::Unreachable => 8,
            Self::Interrupted | Self::Terminated => 9,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command stopped before it was done.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It failed; to be explained on standard error.
    Failed(Box<Failed>),
    /// It ended with this code, and everything was said.
    Quiet(Exit),
}

/// A failure with its explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Failed {
    #[serde(skip)]
    pub(crate) exit: Exit,
    /// Stable, for scripts: the daemon's error code, or one of ours.
    pub(crate) code: Cow<'static, str>,
    /// One line, lower case, with the remedy.
    pub(crate) message: String,
    /// The message it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// The peer it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<String>,
    /// The line of input it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<u64>,
}

impl Failed {
    pub(crate) fn new(
        exit: Exit,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        let code = code.into();
        Self { exit, code, message: message.into(), id: None, peer: None, line: None }
    }

    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    /// Something on this side failed: a file, a terminal.
    pub(crate) fn local(message: impl Into<String>) -> Self {
        Self::new(Exit::Failure, "failure", message)
    }

    /// A body that no limit allows.
    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(Exit::Refused, "too_large", message)
    }

    /// The same failure, with another exit code than the table's.
    pub(crate) fn exiting(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The line for standard error.
    pub(crate) fn line(&self, json: bool) -> String {
        if json {
            #[derive(Serialize)]
            struct Wrapped<'a> {
                error: &'a Failed,
            }
            // Text and numbers always serialize.
            return serde_json::to_string(&Wrapped { error: self }).unwrap_or_default();
        }
        let place = self.line.map(|n| format!("line {n}: ")).unwrap_or_default();
        text::one_line(&format!("distmsgctl: {place}{}", self.explained()))
    }

    /// The explanation; a message that is still queued is always named.
    fn explained(&self) -> Cow<'_, str> {
        let Some(id) = &self.id else { return Cow::Borrowed(&self.message) };
        let queued = self.exit == Exit::StillQueued && !self.message.contains("queued");
        match (queued, self.message.contains(id.as_str())) {
            (true, _) => format!("{}; still queued as {id}", self.message).into(),
            (false, false) => format!("{} (message {id})", self.message).into(),
            (false, true) => Cow::Borrowed(&self.message),
        }
    }
}

impl From<Failed> for Stop {
    fn from(failed: Failed) -> Self {
        Self::Failed(Box::new(failed))
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        let code = serde_json::to_value(failure.code).ok();
        let code = code.as_ref().and_then(|value| value.as_str()).unwrap_or("failure");
        Self {
            exit: Exit::of(failure.code),
            code: Cow::Owned(code.to_owned()),
            message: failure.message,
            id: failure.id,
            peer: failure.peer,
            line: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_still_queued_is_named() {
        let mut failure = Failure::new(ErrorCode::NotDelivered, "no answer within 2s");
        failure.id = Some("00ff".into());
        let failed = Failed::from(failure);
        assert_eq!(failed.exit, Exit::StillQueued);
        assert_eq!(failed.line(false), "distmsgctl: no answer within 2s; still queued as 00ff");
        assert_eq!(
            failed.line(true),
            r#"{"error":{"code":"not_delivered","message":"no answer within 2s","id":"00ff"}}"#
        );
    }

    #[test]
    fn an_error_is_one_line_whatever_is_in_it() {
        let failed = Failed::local("a\nb\u{1b}[2J c\\d");
        assert_eq!(failed.line(false), "distmsgctl: a\\nb\\u{1b}[2J c\\d");
    }

    #[test]
    fn every_code_is_listed_once_and_in_order() {
        let codes = Exit::ALL.map(|exit| exit as u8);
        assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
        // As long as it is complete: each of these is a variant, and a new one is noticed by
        // `meaning`, whose author comes by here.
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 130, 143]);
    }

    #[test]
    fn the_worse_exit_wins_whichever_comes_first() {
        for (a, b, worse) in [
            (Exit::Done, Exit::StillQueued, Exit::StillQueued),
            (Exit::StillQueued, Exit::Refused, Exit::Refused),
            (Exit::Unreachable, Exit::Failure, Exit::Unreachable),
        ] {
            assert_eq!(a.worse(b), worse);
            assert_eq!(b.worse(a), worse);
        }
    }
}
