//! `forget`: removes a peer.

use clap::Args;

use crate::control::protocol::{Done, PeerRef, Request};
use crate::ctl::context::Context;
use crate::ctl::exit::{Exit, Stop};
use crate::ctl::output::chat;

/// Forget everything about a peer but its messages
#[derive(Debug, Args)]
#[command(
    after_help = "Its link, alias, addresses and routes go. It comes back when it connects, \
    or with the next discover.\n\n\
    Examples:\n  distmsgctl forget box"
)]
pub(crate) struct Forget {
    /// Alias, full ID or a unique beginning of it
    #[arg(value_name = "PEER")]
    peer: String,
}

pub(crate) async fn run(args: Forget, context: &mut Context) -> Result<Exit, Stop> {
    let request = Request::Forget(PeerRef { peer: args.peer.clone() });
    let done: Done = context.call(&request).await?;
    context.done(&done, || chat(&format!("forgot {}", args.peer)))
}
