//! `disconnect`: ends a link for good, as far as that is ours to decide.

use clap::Args;

use crate::control::protocol::{Disconnected, PeerRef, Request};
use crate::ctl::context::Context;
use crate::ctl::exit::{Exit, Stop};
use crate::ctl::output::{chat, say};
use crate::ctl::text;

/// End the link to a peer and no longer dial it
#[derive(Debug, Args)]
#[command(
    after_help = "The peer stays known; 'forget' removes it. If it is the peer that dials us, its \
    link comes back until its operator disconnects as well: then a line on standard error says so, \
    and in JSON dialled_by_peer is true.\n\n\
    Examples:\n  distmsgctl disconnect box\n  distmsgctl disconnect dm1q7x"
)]
pub(crate) struct Disconnect {
    /// Alias, full ID or a unique beginning of it
    #[arg(value_name = "PEER")]
    peer: String,
}

pub(crate) async fn run(args: Disconnect, context: &mut Context) -> Result<Exit, Stop> {
    let request = Request::Disconnect(PeerRef { peer: args.peer.clone() });
    let done: Disconnected = context.call(&request).await?;
    context.done(&done, || match done.dialled_by_peer {
        false => chat(&format!("disconnected {}", args.peer)),
        // Said to scripts too: it may not last.
        true => say(&text::one_line(&format!(
            "disconnected {}, but it dials us and may do so again; have its operator disconnect \
             as well",
            args.peer
        ))),
    })
}
