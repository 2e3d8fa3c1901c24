//! `inbox`: lists what arrived, and acknowledges nothing.

use std::time::Duration;

use clap::Args;

use crate::control::protocol::{InboxPage, InboxQuery, Request};
use crate::ctl::context::{Context, answered};
use crate::ctl::exit::{Exit, Stop};
use crate::ctl::message::{inline_body, push_line};
use crate::ctl::output::chat;
use crate::ctl::text::{self, Clock};

/// Messages asked for at once.
const PAGE: u32 = 500;

/// List the messages that are kept, oldest first; acknowledges nothing
#[derive(Debug, Args)]
#[command(
    after_help = "Each line is the message's number here, its time, its sender and its body. \
    Bodies of more than 128 KiB are not shown; 'listen --json' brings them whole.\n\n\
    Examples:\n  \
    distmsgctl inbox\n  \
    distmsgctl inbox --from box --limit 20\n  \
    distmsgctl inbox --after 1041 --json"
)]
pub(crate) struct Inbox {
    /// Only messages of this peer: alias, full ID or a unique beginning of it
    #[arg(long, value_name = "PEER")]
    from: Option<String>,
    /// Only messages after the one with this number
    #[arg(long, value_name = "NUMBER", value_parser = text::number, allow_negative_numbers = true)]
    after: Option<u64>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = text::number, allow_negative_numbers = true)]
    limit: Option<u64>,
}

pub(crate) async fn run(args: Inbox, context: &mut Context) -> Result<Exit, Stop> {
    let (client, _events) = context.connect().await?;
    let mut clock = Clock::new();
    let mut wanted = args.limit.unwrap_or(u64::MAX);
    let mut after = args.after;
    let mut listed = false;
    while wanted > 0 {
        let limit = u32::try_from(wanted).unwrap_or(PAGE).min(PAGE);
        let query = InboxQuery { after, limit: Some(limit), from: args.from.clone() };
        let InboxPage { messages, next } =
            answered(Duration::ZERO, client.call(&Request::Inbox(query))).await?;
        for message in messages {
            if wanted == 0 {
                break;
            }
            wanted -= 1;
            listed = true;
            if context.json {
                context.out.object(&message);
                continue;
            }
            let body = inline_body(&message);
            let too_large = format!("({}, not shown)", text::size(message.bytes));
            let shown = body.as_deref().unwrap_or(too_large.as_bytes());
            let number = format!("{} ", message.cursor);
            context.out.buffer().extend_from_slice(number.as_bytes());
            push_line(&message, shown, &mut clock, &mut context.out);
        }
        context.out.flush()?;
        let Some(next) = next else { break };
        after = Some(next);
    }
    if !listed && !context.json {
        chat("no messages");
    }
    Ok(Exit::Done)
}
