//! `ping`: a sign of life, end to end.

use std::time::Duration;

use clap::Args;

use crate::control::protocol::{self, Pong, Request};
use crate::ctl::context::{Context, answered, failed};
use crate::ctl::exit::{Exit, Stop};
use crate::ctl::progress::shown;
use crate::ctl::{text, when};

/// Ask a peer's node for a sign of life, end to end
///
/// The answer proves that it came from the peer itself, however many relays are between.
#[derive(Debug, Args)]
#[command(after_help = "No answer in time is exit 5. The first ping includes finding the way.\n\n\
    Examples:\n  distmsgctl ping box\n  distmsgctl ping dm1q7x --timeout 2s")]
pub(crate) struct Ping {
    /// Alias, full ID or a unique beginning of it
    #[arg(value_name = "PEER")]
    peer: String,
    /// How long to wait
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "10s",
        value_parser = when::duration,
        allow_hyphen_values = true
    )]
    timeout: Duration,
}

pub(crate) async fn run(args: Ping, context: &mut Context) -> Result<Exit, Stop> {
    let timeout_ms = when::millis(args.timeout);
    let request = Request::Ping(protocol::Ping { peer: args.peer.clone(), timeout_ms });
    let (client, _events) = context.connect().await?;
    let what = || format!("looking for {}", text::named(&args.peer));
    let pong = answered(args.timeout, client.call::<Pong>(&request));
    let pong = shown(context.json, args.timeout, what, pong).await.map_err(|error| {
        let failed = failed(error);
        match &*failed.code {
            "timeout" | "not_delivered" | "unreachable" => failed.exiting(Exit::NothingCame),
            _ => failed,
        }
    })?;
    if context.json {
        context.out.object(&pong);
    } else {
        let attempts = text::count(pong.attempts.into(), "attempt");
        let peer = text::one_line(&pong.peer);
        context.out.line(&format!("{peer} answered in {:.2} ms, {attempts}", pong.rtt_ms));
    }
    context.out.flush()?;
    Ok(Exit::Done)
}
