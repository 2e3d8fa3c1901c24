//! `listen`: follows the unread of a named listener.
//!
//! What makes it safe: a message is acknowledged only after its line was written, the
//! acknowledgement's answer is waited for before leaving, and nothing is acknowledged that was not
//! asked for. What makes it fast: everything that has come is written at once and acknowledged at
//! once, and while that is on its way the next batch is taken.

use std::collections::VecDeque;
use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep_until, timeout};

use crate::control::client::{CallError, Client, Events, Pending};
use crate::control::protocol::{
    self, Ack, Done, Event, Message, MessageEvent, Request, Subscribed,
};
use crate::ctl::context::{self, Context, answered, carrying, interrupted};
use crate::ctl::exit::{Exit, Failed, Stop};
use crate::ctl::message::{fill, inline_body, push_line};
use crate::ctl::text::{self, Clock};
use crate::ctl::when;
use crate::model::limits::KEY_BYTES_MAX;

/// Messages leased to us at once. Enough to hide the way to the daemon's disk and back; and few,
/// for other processes on the same name want some too.
const WINDOW: u32 = 256;

/// Messages acknowledged by one request; the protocol allows 1,024.
const BATCH_MESSAGES_MAX: usize = 256;

/// Bytes collected before they are written.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Acknowledgements that may be on their way.
const ACKS_MAX: usize = 16;

/// How long we stay to finish what was begun, when we are to leave.
const GRACE: Duration = Duration::from_secs(5);

/// Print messages as they come, and acknowledge each once it is printed
///
/// A listener's position survives restarts. Processes with the same name share its messages; every
/// name gets all of them. A new name begins at the oldest message kept.
#[derive(Debug, Args)]
#[command(
    after_help = "A line is time, sender and body, with everything escaped that could break \
    the line. With --timeout, fewer messages than --count (without it: none) is exit 5.\n\n\
    Examples:\n  \
    distmsgctl listen\n  \
    distmsgctl listen --count 1 --timeout 30s --raw > body\n  \
    distmsgctl listen --name backup --from box --json | jq -r .body\n  \
    distmsgctl listen --name audit --since 2h"
)]
pub(crate) struct Listen {
    /// The listener's name
    #[arg(long, value_name = "LISTENER", default_value = "default", value_parser = name)]
    name: String,
    /// Leave after so many messages, and acknowledge no others
    #[arg(long, value_name = "N", value_parser = text::positive, allow_negative_numbers = true)]
    count: Option<u64>,
    /// Leave after this long
    #[arg(long, value_name = "DURATION", value_parser = when::duration, allow_hyphen_values = true)]
    timeout: Option<Duration>,
    /// Only messages of this peer: alias, full ID or a unique beginning of it
    #[arg(long, value_name = "PEER")]
    from: Option<String>,
    /// Only messages received since then: a time, or how long ago
    #[arg(long, value_name = "TIME|AGO", value_parser = when::since, allow_hyphen_values = true)]
    since: Option<String>,
    /// Write the bytes of the bodies and nothing else
    #[arg(long, conflicts_with = "json")]
    raw: bool,
}

fn name(text: &str) -> Result<String, String> {
    match text.len() {
        1..=KEY_BYTES_MAX => Ok(text.to_owned()),
        _ => Err(format!("a listener's name has 1 to {KEY_BYTES_MAX} bytes")),
    }
}

pub(crate) async fn run(args: Listen, context: &mut Context) -> Result<Exit, Stop> {
    if text::stdout_was_closed() {
        let why = "standard output is closed: nobody would see what is acknowledged; open it, or \
                   write '>/dev/null' to acknowledge unseen";
        return Err(Failed::local(why).into());
    }
    let deadline = args.timeout.map(|timeout| Instant::now() + timeout);
    // Until the daemon has answered, nobody knows whether anything came: the deadline is for later.
    let mut listening = tokio::select! {
        leave = self::leave(None) => return args.verdict(leave, 0),
        listening = Listening::begin(&args, context) => listening?,
    };
    let mut leave = pin!(leave(deadline));
    let left = loop {
        if listening.wanted == 0 {
            break None;
        }
        // What was collected and not written when we leave stays unacknowledged, and comes again.
        tokio::select! {
            biased;
            collected = listening.collect(&args, context) => collected?,
            leave = &mut leave => break Some(leave),
        }
        let mut why = None;
        {
            let mut flush = pin!(context.out.flush_beside());
            tokio::select! {
                written = &mut flush => written?,
                left = &mut leave => {
                    why = Some(left);
                    // Leaving, we finish the lines that were begun, but a reader that has stopped
                    // reading does not hold us.
                    match timeout(GRACE, flush).await {
                        Ok(written) => written?,
                        Err(_) => break why,
                    }
                }
            }
        }
        listening.acknowledge();
        if why.is_some() {
            break why;
        }
    };
    let printed = listening.printed;
    listening.finish().await?;
    match left {
        None => Ok(Exit::Done),
        Some(leave) => args.verdict(leave, printed),
    }
}

impl Listen {
    /// What it means that we leave now, with so many messages printed.
    fn verdict(&self, leave: Leave, printed: u64) -> Result<Exit, Stop> {
        let within = when::spoken(self.timeout.unwrap_or_default());
        let why = match (leave, self.count) {
            // A service that follows without end is stopped like this.
            (Leave::Signal(Exit::Terminated), None) if self.timeout.is_none() => {
                return Ok(Exit::Done);
            }
            (Leave::Signal(exit), _) => return Ok(exit),
            (Leave::Deadline, Some(count)) => {
                format!("{printed} of {} came within {within}", text::count(count, "message"))
            }
            (Leave::Deadline, None) if printed > 0 => return Ok(Exit::Done),
            (Leave::Deadline, None) => format!("no message came within {within}"),
        };
        Err(Failed::new(Exit::NothingCame, "timeout", why).into())
    }
}

/// Why we leave before we have all.
#[derive(Debug, Clone, Copy)]
enum Leave {
    /// Time is up.
    Deadline,
    /// Somebody wants us to.
    Signal(Exit),
}

async fn leave(deadline: Option<Instant>) -> Leave {
    let time_is_up = async {
        match deadline {
            Some(deadline) => sleep_until(deadline).await,
            None => pending().await,
        }
    };
    tokio::select! {
        exit = interrupted() => Leave::Signal(exit),
        () = time_is_up => Leave::Deadline,
    }
}

/// A listening at the daemon, and what is written but not acknowledged.
struct Listening {
    client: Client,
    events: Events,
    /// Events that came while a reply was waited for: at most a window of them.
    kept: VecDeque<Event>,
    subscription: u64,
    clock: Clock,
    /// Messages still to print.
    wanted: u64,
    /// Messages printed.
    printed: u64,
    /// Messages collected for writing: to be acknowledged once they are written.
    unacked: Vec<u64>,
    /// Acknowledgements on their way.
    acks: VecDeque<Pending<Done>>,
}

impl Listening {
    async fn begin(args: &Listen, context: &Context) -> Result<Self, Stop> {
        let (client, events) = context.connect().await?;
        let wanted = args.count.unwrap_or(u64::MAX);
        let request = Request::Listen(protocol::Listen {
            name: args.name.clone(),
            from: args.from.clone(),
            since: args.since.clone(),
            window: u32::try_from(wanted).unwrap_or(WINDOW).min(WINDOW),
        });
        let Subscribed { subscription } = answered(Duration::ZERO, client.call(&request)).await?;
        Ok(Self {
            client,
            events,
            kept: VecDeque::new(),
            subscription,
            clock: Clock::new(),
            wanted,
            printed: 0,
            unacked: Vec::new(),
            acks: VecDeque::new(),
        })
    }

    /// Waits for a message and collects what has come with it.
    async fn collect(&mut self, args: &Listen, context: &mut Context) -> Result<(), Stop> {
        while self.acks.len() >= ACKS_MAX {
            beside(&mut self.events, &mut self.kept, next_ack(&mut self.acks)).await?;
        }
        let first = loop {
            let waits_for_acks = !self.acks.is_empty();
            tokio::select! {
                biased;
                result = next_ack(&mut self.acks), if waits_for_acks => result?,
                event = next(&mut self.kept, &mut self.events) => break event,
            }
        };
        let mut event = first.ok_or_else(|| context::failed(CallError::Closed))?;
        loop {
            self.take(event, args, context).await?;
            let has_room = self.wanted > 0
                && self.unacked.len() < BATCH_MESSAGES_MAX
                && context.out.buffer().len() < BATCH_BYTES_MAX;
            if !has_room {
                return Ok(());
            }
            match self.next_at_once().await {
                Some(next) => event = next,
                None => return Ok(()),
            }
        }
    }

    /// An event that has come already.
    async fn next_at_once(&mut self) -> Option<Event> {
        if let Some(event) = self.kept.pop_front() {
            return Some(event);
        }
        tokio::select! {
            biased;
            event = self.events.next() => event,
            () = std::future::ready(()) => None,
        }
    }

    /// Collects a message for writing.
    async fn take(
        &mut self,
        event: Event,
        args: &Listen,
        context: &mut Context,
    ) -> Result<(), Stop> {
        let Event::Message(MessageEvent { subscription, mut message }) = event else {
            return Ok(());
        };
        if subscription != self.subscription {
            return Ok(());
        }
        if inline_body(&message).is_none() {
            let body = self.client.whole_body(&message);
            let body = answered(carrying(message.bytes as usize), body);
            let body = beside(&mut self.events, &mut self.kept, body).await?;
            fill(&mut message, body);
        }
        self.push(&message, args, context);
        self.unacked.push(message.cursor);
        self.wanted -= 1;
        Ok(())
    }

    fn push(&mut self, message: &Message, args: &Listen, context: &mut Context) {
        if context.json {
            context.out.object(message);
            return;
        }
        let body = inline_body(message).unwrap_or_default();
        if args.raw {
            context.out.buffer().extend_from_slice(&body);
        } else {
            push_line(message, &body, &mut self.clock, &mut context.out);
        }
    }

    /// Acknowledges what was written.
    fn acknowledge(&mut self) {
        let cursors = std::mem::take(&mut self.unacked);
        if cursors.is_empty() {
            return;
        }
        self.printed += cursors.len() as u64;
        let request = Request::Ack(Ack { subscription: self.subscription, cursors });
        self.acks.push_back(self.client.start(&request));
    }

    /// Waits until every acknowledgement is on disk.
    async fn finish(self) -> Result<(), Stop> {
        let mut acks = self.acks;
        // What else is leased to us goes back when we leave.
        drop(self.events);
        let all = async {
            while !acks.is_empty() {
                next_ack(&mut acks).await?;
            }
            Ok(())
        };
        timeout(GRACE, all).await.unwrap_or_else(|_| {
            Err(Failed::local(
                "the daemon did not confirm the last acknowledgements; those messages may come \
                 again",
            )
            .into())
        })
    }
}

/// The answer to the oldest acknowledgement, which is then taken off the queue. Until it came, the
/// future may be dropped.
async fn next_ack(acks: &mut VecDeque<Pending<Done>>) -> Result<(), Stop> {
    if let Some(ack) = acks.front_mut() {
        let result = ack.await;
        acks.pop_front();
        result?;
    }
    Ok(())
}

/// The next event, those that were kept first.
async fn next(kept: &mut VecDeque<Event>, events: &mut Events) -> Option<Event> {
    match kept.pop_front() {
        Some(event) => Some(event),
        None => events.next().await,
    }
}

/// Waits for a reply while keeping the events that come: the connection is not read on if nobody
/// takes them.
async fn beside<T>(
    events: &mut Events,
    kept: &mut VecDeque<Event>,
    reply: impl Future<Output = T>,
) -> T {
    let mut reply = pin!(reply);
    loop {
        tokio::select! {
            biased;
            reply = &mut reply => return reply,
            Some(event) = events.next() => kept.push_back(event),
        }
    }
}
