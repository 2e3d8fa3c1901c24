//! `send`: the truth about a delivery, as an exit code.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::control::client::CallError;
use crate::control::protocol::{self, Sent, Wait};
use crate::ctl::body::{self, Allowance};
use crate::ctl::context::{self, Context, answered, carrying, interrupted};
use crate::ctl::exit::{Exit, Failed, Stop};
use crate::ctl::input::Input;
use crate::ctl::output::{chat, say};
use crate::ctl::progress::shown;
use crate::ctl::{lines, text, when};
use crate::model::limits::{KEY_BYTES_MAX, SUBJECT_BYTES_MAX};

/// Send a message, and tell by the exit code what became of it
///
/// Exit 0 means that what was waited for is true: by default, that the recipient's node has proved
/// to have the message on its disk. Exit 4 means that it is not true yet: the message is queued and
/// will be delivered when that is possible.
#[derive(Debug, Args)]
#[command(after_help = "Without BODY, --file and --lines the body is standard input, to its end. \
    With --lines each line is a message, without its newline; the timeout runs for each of them \
    from when it is queued, a line that was not delivered is named on standard error, the stream \
    goes on, and the exit code is the worst: of 0, 4, 5, 8, 7, 6, 2, 1 and 3 the one furthest to \
    the right. With --id KEY and --lines, line 7 has the key KEY-7.\n\n\
    Examples:\n  \
    distmsgctl send box 'the cellar is flooding'\n  \
    distmsgctl send box --file photo.jpg --timeout 1m\n  \
    journalctl -f | distmsgctl send box --lines --wait queued\n  \
    distmsgctl send box --id backup-$(date +%F) done")]
pub(crate) struct Send {
    /// Alias, full ID or a unique beginning of it; a full ID need not be known
    #[arg(value_name = "PEER")]
    peer: String,
    /// The body; '' is one
    #[arg(value_name = "BODY", allow_negative_numbers = true)]
    body: Option<OsString>,
    /// The body is a file's contents
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "body",
        value_hint = clap::ValueHint::FilePath
    )]
    file: Option<PathBuf>,
    /// Every line is a message
    #[arg(long, conflicts_with = "body")]
    lines: bool,
    /// What must be true before we return: on our disk, handed to a link, or on the recipient's
    /// disk
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = WaitFor::Delivered)]
    wait: WaitFor,
    /// How long to wait for it; afterwards the message stays queued
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "10s",
        value_parser = when::duration,
        allow_hyphen_values = true
    )]
    timeout: Duration,
    /// Make a retry safe: with the same key nothing is sent twice, and another message is refused
    #[arg(long, value_name = "KEY", value_parser = key)]
    id: Option<String>,
    /// What it is about
    #[arg(long, value_name = "SUBJECT", value_parser = subject)]
    subject: Option<String>,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum WaitFor {
    /// It is on our disk
    Queued,
    /// It was handed to a link
    Sent,
    /// The recipient's node proved that it is on its disk
    Delivered,
}

fn key(text: &str) -> Result<String, String> {
    match text.len() {
        1..=KEY_BYTES_MAX => Ok(text.to_owned()),
        _ => Err(format!("a key has 1 to {KEY_BYTES_MAX} bytes")),
    }
}

fn subject(text: &str) -> Result<String, String> {
    match text.len() {
        0..=SUBJECT_BYTES_MAX => Ok(text.to_owned()),
        _ => Err(format!("a subject has at most {SUBJECT_BYTES_MAX} bytes")),
    }
}

pub(crate) async fn run(mut args: Send, context: &mut Context) -> Result<Exit, Stop> {
    let send = args.request();
    context.out.needs_no_reader();
    // First of all, so that nobody types a message for a daemon that is not there.
    let (client, _events) = context.connect().await?;
    // Before anybody is told what ctrl-C does.
    let mut stopped = std::pin::pin!(interrupted());
    if args.lines {
        let (input, name) = args.input(context)?;
        return lines::run(send, args.timeout, input, &name, &client, context, stopped).await;
    }
    let body = tokio::select! {
        body = args.body(context) => body?,
        // Nothing was sent yet, so there is nothing to say.
        exit = &mut stopped => return Ok(exit),
    };
    let patience = args.timeout + carrying(body.len());
    let sent = client.send_body(send.clone(), &body);
    let whole = client.unwritten();
    let what = || args.waits_for(whole, client.unwritten());
    let sent = shown(context.json, args.timeout, what, answered(patience, sent));
    let sent: Sent = tokio::select! {
        sent = sent => match sent {
            Err(error @ (CallError::Closed | CallError::Silent)) => {
                let error = context::failed(error);
                let known = error.message;
                return Err(unheard(send, Exit::Unreachable, error.code, &known).into());
            }
            sent => sent?,
        },
        exit = &mut stopped => return Err(last_word(send, exit).into()),
    };
    if context.json {
        context.out.object(&sent);
        context.out.flush()?;
    } else if sent.duplicate {
        // Said to scripts too: this time nothing was sent.
        say(&format!(
            "{} before with this key ({}); nothing new is sent",
            word(sent.state),
            sent.id
        ));
    } else {
        chat(&format!("{} ({})", word(sent.state), sent.id));
    }
    Ok(Exit::Done)
}

impl Send {
    fn request(&self) -> protocol::Send {
        protocol::Send {
            peer: self.peer.clone(),
            body: None,
            body_base64: None,
            upload: None,
            subject: self.subject.clone(),
            wait: match self.wait {
                WaitFor::Queued => Wait::Queued,
                WaitFor::Sent => Wait::Sent,
                WaitFor::Delivered => Wait::Delivered,
            },
            timeout_ms: Some(when::millis(self.timeout)),
            key: self.id.clone(),
        }
    }

    /// What is waited for when of the whole request so many bytes are left to be handed over.
    fn waits_for(&self, whole: usize, left: usize) -> String {
        if let Some(percent) = left.saturating_mul(100).checked_div(whole).filter(|&left| left > 0)
        {
            return format!("handing it to the daemon, {} % done", 100 - percent);
        }
        let peer = text::named(&self.peer);
        match self.wait {
            WaitFor::Queued => "waiting until it is on the disk here".to_owned(),
            WaitFor::Sent => format!("waiting for a link on the way to {peer}"),
            WaitFor::Delivered => format!("waiting for the proof that {peer} has it"),
        }
    }

    /// The one body.
    async fn body(&mut self, context: &Context) -> Result<Vec<u8>, Stop> {
        if let Some(body) = self.body.take() {
            return Ok(body.into_vec());
        }
        let mut allowance = Allowance::new(&context.endpoint);
        if let Some(path) = &self.file {
            return body::from_file(path, &mut allowance).await;
        }
        let (input, name) = self.input(context)?;
        body::whole(input, &name, &mut allowance).await
    }

    /// The file or standard input, and what it is called.
    fn input(&self, context: &Context) -> Result<(Input, String), Stop> {
        if let Some(path) = &self.file {
            let name = path.display().to_string();
            let why = |error| Failed::local(format!("cannot read {name}: {error}"));
            let input = std::fs::File::open(path).and_then(Input::file).map_err(why)?;
            return Ok((input, name));
        }
        if context.scripted {
            return Err(Failed::usage(
                "standard input is the script itself; give the body as an argument or with --file",
            )
            .into());
        }
        if io::stdin().is_terminal() {
            say(match self.lines {
                true => "each line is sent as you end it; ctrl-D on an empty line leaves",
                false => "type the message; ctrl-D on an empty line sends it, ctrl-C does not",
            });
        }
        let why = |error| Failed::local(format!("cannot read standard input: {error}"));
        Ok((Input::stdin().map_err(why)?, "standard input".to_owned()))
    }
}

/// What is known about a message whose sender does not want to wait any longer: the request was
/// given to the daemon, and its answer would have come at the end of the wait.
fn last_word(send: protocol::Send, exit: Exit) -> Failed {
    unheard(send, exit, "interrupted".into(), "interrupted")
}

/// What is known about a message of which nobody was told.
fn unheard(send: protocol::Send, exit: Exit, code: Cow<'static, str>, why: &str) -> Failed {
    let retry = match &send.key {
        Some(key) => format!("; a retry with --id {key} is safe"),
        None => String::new(),
    };
    let known = format!("{why}; the message may be queued, which 'distmsgctl outbox' shows{retry}");
    let mut failed = Failed::new(exit, code, known);
    failed.peer = Some(send.peer);
    failed
}

/// A state as people say it.
const fn word(state: Wait) -> &'static str {
    match state {
        Wait::Queued => "queued",
        Wait::Sent => "sent",
        Wait::Delivered => "delivered",
    }
}
