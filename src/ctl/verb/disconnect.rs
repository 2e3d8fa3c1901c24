//! `disconnect`: ends a link for good.

use clap::Args;

use crate::control::protocol::{Done, PeerRef, Request};
use crate::ctl::context::Context;
use crate::ctl::exit::{Exit, Stop};
use crate::ctl::output::chat;

/// End the link to a peer and no longer redial it
#[derive(Debug, Args)]
#[command(after_help = "The peer stays known; 'forget' removes it.\n\n\
    Examples:\n  distmsgctl disconnect box\n  distmsgctl disconnect dm1q7x")]
pub(crate) struct Disconnect {
    /// Alias, full ID or a unique beginning of it
    #[arg(value_name = "PEER")]
    peer: String,
}

pub(crate) async fn run(args: Disconnect, context: &mut Context) -> Result<Exit, Stop> {
    let request = Request::Disconnect(PeerRef { peer: args.peer.clone() });
    let done: Done = context.call(&request).await?;
    context.done(&done, || chat(&format!("disconnected {}", args.peer)))
}
