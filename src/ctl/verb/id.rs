//! `id`: who this node is.

use clap::Args;
use serde::Serialize;

use crate::control::protocol::{self, Request};
use crate::ctl::context::Context;
use crate::ctl::exit::{Exit, Stop};

/// Print this node's full peer ID, and nothing else
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  distmsgctl id\n  ssh box distmsgctl id")]
pub(crate) struct Id {}

#[derive(Serialize)]
struct Identity {
    peer: String,
    name: Option<String>,
}

pub(crate) async fn run(_: Id, context: &mut Context) -> Result<Exit, Stop> {
    let status: protocol::Status = context.call(&Request::Status {}).await?;
    if context.json {
        context.out.object(&Identity { peer: status.peer, name: status.name });
    } else {
        context.out.line(&status.peer);
    }
    context.out.flush()?;
    Ok(Exit::Done)
}
