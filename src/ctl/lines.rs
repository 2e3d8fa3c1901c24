//! `send --lines`: a message per line, many on their way at once.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::body::Allowance;
use super::context::{self, Context, GRACE, answered, carrying};
use super::exit::{Exit, Failed, Stop};
use super::input::{Input, Line, Lines};
use super::output::{chat, explain};
use super::text;
use crate::control::client::{CallError, Client, Pending};
use crate::control::protocol::{InboxPage, InboxQuery, Request, Send, Sent};

/// Lines that may be unanswered: enough to keep a link with a long way full.
const OUTSTANDING_MAX: usize = 4_096;

/// Bytes of lines that may be unanswered.
const OUTSTANDING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Sends each line of an input. The stream goes on whatever becomes of a line; it ends early only
/// when no line could fare better. Each line is answered for within `timeout` from when the daemon
/// queued it; all of it ends when `stopped` does.
pub(crate) async fn run(
    send: Send,
    timeout: Duration,
    input: Input,
    input_name: &str,
    client: &Client,
    context: &mut Context,
    stopped: impl Future<Output = Exit>,
) -> Result<Exit, Stop> {
    let mut stream = Stream::new(send, timeout, client, context);
    let result = tokio::select! {
        result = stream.run(input, input_name) => result,
        exit = stopped => {
            let known = format!("interrupted; {} done", text::count(stream.delivered, "line"));
            Err(Failed::new(exit, "interrupted", known).into())
        }
    };
    stream.context.out.flush()?;
    let Stream { outstanding, delivered, worst, .. } = stream;
    match result {
        Ok(()) => {
            chat(&format!("{} done", text::count(delivered, "line")));
            Ok(worst)
        }
        Err(Stop::Failed(mut failed)) => {
            // Of a peer that does not exist nothing is queued; otherwise nobody knows.
            let unknown = !matches!(failed.exit, Exit::NoSuch | Exit::Usage);
            if let Some(first) = outstanding.front().filter(|_| unknown) {
                let unanswered = text::count(outstanding.len() as u64, "line");
                let note = format!("; {unanswered} unanswered, from line {} on", first.number);
                failed.message.push_str(&note);
            }
            failed.exit = worst.worse(failed.exit);
            Err(Stop::Failed(failed))
        }
        Err(quiet) => Err(quiet),
    }
}

/// Fails if nobody is called so, which is wrong even if no line ever comes: asks for what came from
/// there after all that can have come.
async fn known(peer: &str, client: &Client) -> Result<(), Stop> {
    let query = InboxQuery { after: Some(u64::MAX), limit: Some(1), from: Some(peer.to_owned()) };
    answered(Duration::ZERO, client.call::<InboxPage>(&Request::Inbox(query))).await?;
    Ok(())
}

/// A line that the daemon was given and has not answered for.
struct Outstanding {
    number: u64,
    bytes: usize,
    answer: Pending<Sent>,
}

struct Stream<'a> {
    client: &'a Client,
    context: &'a mut Context,
    /// The request but for its body and key.
    send: Send,
    /// What each line may wait for.
    timeout: Duration,
    /// The key that each line's number is added to.
    key: Option<String>,
    lines: Lines,
    allowance: Allowance,
    /// In the order they were sent, which is nearly that of their answers.
    outstanding: VecDeque<Outstanding>,
    outstanding_bytes: usize,
    /// When the oldest of them was sent, or the last answer came: the daemon was heard or not yet
    /// due then.
    waiting_since: Instant,
    /// The number of the last line that was read.
    number: u64,
    /// Lines for which what was waited for is true.
    delivered: u64,
    worst: Exit,
}

#[derive(Serialize)]
struct LineSent<'a> {
    line: u64,
    #[serde(flatten)]
    sent: &'a Sent,
}

impl<'a> Stream<'a> {
    fn new(
        mut send: Send,
        timeout: Duration,
        client: &'a Client,
        context: &'a mut Context,
    ) -> Self {
        let key = send.key.take();
        let allowance = Allowance::new(&context.endpoint);
        let lines = Lines::new(allowance.bytes_max());
        Self {
            client,
            context,
            send,
            timeout,
            key,
            lines,
            allowance,
            outstanding: VecDeque::new(),
            outstanding_bytes: 0,
            waiting_since: Instant::now(),
            number: 0,
            delivered: 0,
            worst: Exit::Done,
        }
    }

    async fn run(&mut self, mut input: Input, input_name: &str) -> Result<(), Stop> {
        known(&self.send.peer, self.client).await?;
        let mut read = Vec::new();
        let mut at = 0;
        let mut ended = false;
        loop {
            let mut rest = read.get(at..).unwrap_or_default();
            while self.has_room()
                && let Some(line) = self.lines.next(&mut rest)
            {
                self.take(line).await?;
            }
            at = read.len() - rest.len();
            if ended && self.outstanding.is_empty() {
                return Ok(());
            }
            let wants_input = !ended && at == read.len() && self.has_room();
            let (waits, silent_at) = (!self.outstanding.is_empty(), self.silent_at());
            tokio::select! {
                biased;
                settled = poll_fn(|task| self.poll_settle(task)) => settled?,
                () = sleep_until(silent_at), if waits => return Err(CallError::Silent.into()),
                next = input.next(), if wants_input => match next {
                    Some(bytes) => {
                        let why = |error| format!("cannot read {input_name}: {error}");
                        read = bytes.map_err(|error| Failed::local(why(error)))?;
                        at = 0;
                    }
                    None => {
                        ended = true;
                        if let Some(line) = self.lines.last() {
                            self.take(Line::Whole(line)).await?;
                        }
                    }
                },
            }
            // All answers that had come are written at once.
            if !self.context.out.buffer().is_empty() {
                self.context.out.flush_beside().await?;
            }
        }
    }

    fn has_room(&self) -> bool {
        self.outstanding.len() < OUTSTANDING_MAX && self.outstanding_bytes < OUTSTANDING_BYTES_MAX
    }

    /// When the daemon should have answered for a line at the latest.
    fn silent_at(&self) -> Instant {
        self.waiting_since + self.timeout + carrying(self.outstanding_bytes) + GRACE
    }

    /// Sends a line, or refuses it.
    async fn take(&mut self, line: Line) -> Result<(), Stop> {
        match line {
            Line::Whole(body) => {
                self.number += 1;
                self.send.key = self.key.as_ref().map(|key| format!("{key}-{}", self.number));
                let bytes = body.len();
                answered(carrying(self.outstanding_bytes), self.client.ready()).await?;
                let answer = self.client.send_body(self.send.clone(), &body);
                if self.outstanding.is_empty() {
                    self.waiting_since = Instant::now();
                }
                self.outstanding.push_back(Outstanding { number: self.number, bytes, answer });
                self.outstanding_bytes += bytes;
            }
            Line::Full(bytes) => match self.allowance.ask(bytes).await {
                Ok(()) => self.lines.allow(self.allowance.bytes_max()),
                Err(Stop::Failed(mut failed)) if failed.exit == Exit::Refused => {
                    self.number += 1;
                    failed.line = Some(self.number);
                    self.name_failure(&failed);
                    self.lines.skip();
                }
                Err(stop) => return Err(stop),
            },
        }
        Ok(())
    }

    /// Takes the answers that have come. Ready once there was one.
    fn poll_settle(&mut self, task: &mut Task<'_>) -> Poll<Result<(), Stop>> {
        let mut settled = false;
        while let Some(first) = self.outstanding.front_mut() {
            let Poll::Ready(answer) = Pin::new(&mut first.answer).poll(task) else { break };
            let (number, bytes) = (first.number, first.bytes);
            settled = true;
            if let Err(stop) = self.settle(number, answer) {
                return Poll::Ready(Err(stop));
            }
            self.outstanding.pop_front();
            self.outstanding_bytes -= bytes;
        }
        if settled {
            self.waiting_since = Instant::now();
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// What became of a line.
    fn settle(&mut self, number: u64, answer: Result<Sent, CallError>) -> Result<(), Stop> {
        let error = match answer {
            Ok(sent) => {
                self.delivered += 1;
                if self.context.json {
                    self.context.out.object(&LineSent { line: number, sent: &sent });
                }
                return Ok(());
            }
            Err(error) => error,
        };
        let mut failed = context::failed(error);
        if is_hopeless(&failed) {
            return Err(failed.into());
        }
        failed.line = Some(number);
        self.name_failure(&failed);
        Ok(())
    }

    fn name_failure(&mut self, failed: &Failed) {
        explain(failed, self.context.json);
        self.worst = self.worst.worse(failed.exit);
    }
}

/// Whether every other line would fail in the same way: it is not about the line.
fn is_hopeless(failed: &Failed) -> bool {
    matches!(failed.exit, Exit::Unreachable | Exit::NoSuch | Exit::Usage)
        || matches!(
            &*failed.code,
            "protocol" | "parse_error" | "invalid_request" | "method_not_found"
        )
}
