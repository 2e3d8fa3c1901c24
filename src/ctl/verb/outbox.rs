//! `outbox`: lists what is not delivered yet, and what never will be.

use std::time::Duration;

use clap::Args;

use crate::control::protocol::{
    GivenUpMessage, GivenUpReason, OutboxPage, Page, QueuedMessage, Request,
};
use crate::ctl::context::{Context, answered};
use crate::ctl::exit::{Exit, Stop};
use crate::ctl::output::chat;
use crate::ctl::table::Table;
use crate::ctl::text::{self, Clock};
use crate::model::escaped;

/// Messages asked for at once.
const PAGE: u32 = 500;

/// List the messages that are not delivered yet, oldest first, and those lately given up
#[derive(Debug, Args)]
#[command(after_help = "Last come those that were given up within seven days, at most 100: they \
    expired, or are too large for the recipient. Their state is 'given up'.\n\n\
    Examples:\n  distmsgctl outbox\n  \
    distmsgctl outbox --json | jq -r 'select(.state == \"given up\") | .id'")]
pub(crate) struct Outbox {
    /// At most so many
    #[arg(long, value_name = "N", value_parser = text::number, allow_negative_numbers = true)]
    limit: Option<u64>,
}

pub(crate) async fn run(args: Outbox, context: &mut Context) -> Result<Exit, Stop> {
    let (client, _events) = context.connect().await?;
    let mut clock = Clock::new();
    let mut table = Table::new(["ID", "TO", "QUEUED", "EXPIRES", "SIZE", "STATE"]);
    let mut wanted = args.limit.unwrap_or(u64::MAX);
    let mut after = None;
    let mut listed = false;
    let mut given_up = Vec::new();
    while wanted > 0 {
        let limit = u32::try_from(wanted).unwrap_or(PAGE).min(PAGE);
        let page = Page { after, limit: Some(limit) };
        let OutboxPage { mut messages, next, given_up: more } =
            answered(Duration::ZERO, client.call(&Request::Outbox(page))).await?;
        given_up.extend(more);
        messages.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
        wanted -= messages.len() as u64;
        listed |= !messages.is_empty();
        if context.json {
            messages.iter().for_each(|message| context.out.object(message));
        } else if !messages.is_empty() {
            let rows: Vec<_> = messages.iter().map(|message| row(message, &mut clock)).collect();
            table.write(&rows, &mut context.out);
        }
        context.out.flush()?;
        if next.is_none() {
            break;
        }
        after = next;
    }
    given_up.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
    listed |= !given_up.is_empty();
    if context.json {
        given_up.iter().for_each(|message| context.out.object(message));
    } else if !given_up.is_empty() {
        let rows: Vec<_> = given_up.iter().map(|message| last_row(message, &mut clock)).collect();
        table.write(&rows, &mut context.out);
    }
    context.out.flush()?;
    if !listed && !context.json {
        chat("nothing is waiting");
    }
    Ok(Exit::Done)
}

fn row(message: &QueuedMessage, clock: &mut Clock) -> [String; 6] {
    [
        escaped(&message.id),
        text::peer_label(message.alias.as_deref(), &message.to),
        clock.local(&message.queued).to_owned(),
        clock.local(&message.expires).to_owned(),
        text::size(message.bytes),
        escaped(&message.state),
    ]
}

/// The row of a message that was given up: it has no other time to expire.
fn last_row(message: &GivenUpMessage, clock: &mut Clock) -> [String; 6] {
    [
        escaped(&message.id),
        text::peer_label(message.alias.as_deref(), &message.to),
        clock.local(&message.queued).to_owned(),
        clock.local(&message.given_up).to_owned(),
        text::size(message.bytes),
        format!("given up: {}", reason(message.reason)),
    ]
}

/// Why a message was given up, as people say it.
pub(super) const fn reason(reason: GivenUpReason) -> &'static str {
    match reason {
        GivenUpReason::Expired => "expired",
        GivenUpReason::TooLarge => "too large for the recipient",
    }
}
