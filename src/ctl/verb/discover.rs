//! `discover`: merges the tables of all neighbours into ours.

use std::time::Duration;

use clap::Args;

use crate::control::protocol::{self, DiscoverCounts, DiscoveredEvent, Event, Request};
use crate::ctl::context::{Context, answered};
use crate::ctl::exit::{Exit, Failed, Stop};
use crate::ctl::output::{Style, chat};
use crate::ctl::{text, when};
use crate::model::escaped;

/// Merge the peer tables of all neighbours into ours
///
/// Shows each peer as it is learned, and ends with counts.
#[derive(Debug, Args)]
#[command(after_help = "Every record is verified before it is kept, whoever told it. If no \
    neighbour answers in time, that is exit 5.\n\n\
    Examples:\n  distmsgctl discover\n  distmsgctl discover --json | jq -r 'select(.new) | .peer'")]
pub(crate) struct Discover {
    /// How long to wait for the neighbours
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "30s",
        value_parser = when::duration,
        allow_hyphen_values = true
    )]
    timeout: Duration,
}

pub(crate) async fn run(args: Discover, context: &mut Context) -> Result<Exit, Stop> {
    let (client, mut events) = context.connect().await?;
    let timeout_ms = when::millis(args.timeout);
    let request = Request::Discover(protocol::Discover { timeout_ms });
    let mut pending =
        std::pin::pin!(answered(args.timeout, client.call::<DiscoverCounts>(&request)));
    chat("asking the neighbours …");
    let counts = loop {
        tokio::select! {
            // Events first: what was learned before the counts is shown before them.
            biased;
            Some(event) = events.next() => {
                if let Event::Discovered(learned) = event {
                    show(&learned, context);
                    context.out.flush()?;
                }
            }
            counts = &mut pending => break counts?,
        }
    };
    if context.json {
        context.out.object(&counts);
    } else {
        context.out.line(&summary(&counts));
    }
    context.out.flush()?;
    match counts {
        DiscoverCounts { asked: 0, .. } => {
            chat("no neighbour is linked; connect to one with 'connect ADDRESS'");
            Ok(Exit::Done)
        }
        DiscoverCounts { answered: 0, .. } => {
            let waited = when::spoken(args.timeout);
            let why = format!("no neighbour answered within {waited}; see 'distmsgctl peers'");
            Err(Failed::new(Exit::NothingCame, "timeout", why).into())
        }
        _ => Ok(Exit::Done),
    }
}

fn show(learned: &DiscoveredEvent, context: &mut Context) {
    if context.json {
        context.out.object(learned);
        return;
    }
    let what = if learned.new { "new" } else { "updated" };
    let peer = context.out.styled(Style::Peer, &escaped(&learned.peer));
    let mut line = format!("{what} {peer}");
    if learned.name.is_some() {
        line.push_str(&format!(" {}", text::own_name(learned.name.as_deref())));
    }
    if !learned.addresses.is_empty() {
        line.push_str(&format!(" at {}", escaped(&learned.addresses.join(" "))));
    }
    let via = context.out.styled(Style::Dim, &format!("via {}", escaped(&learned.via)));
    context.out.line(&format!("{line} {via}"));
}

fn summary(counts: &DiscoverCounts) -> String {
    format!(
        "{} of {} answered: {} new, {} updated, {} known",
        counts.answered,
        text::count(counts.asked, "neighbour"),
        counts.new,
        counts.updated,
        text::count(counts.known, "peer")
    )
}
