//! `alias`: what the operator calls a peer.

use clap::Args;

use crate::control::protocol::{Done, Request, SetAlias};
use crate::ctl::context::Context;
use crate::ctl::exit::{Exit, Stop};
use crate::ctl::output::chat;
use crate::model::Name;

/// Give a peer an alias, or take it away
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    distmsgctl alias dm1q7x box\n  \
    distmsgctl alias box cellar\n  \
    distmsgctl alias cellar --remove")]
pub(crate) struct Alias {
    /// Alias, full ID or a unique beginning of it
    #[arg(value_name = "PEER")]
    peer: String,
    /// The new alias: letters, digits, '.', '_' and '-'
    #[arg(value_name = "NAME", required_unless_present = "remove")]
    name: Option<Name>,
    /// Take the alias away
    #[arg(long, conflicts_with = "name")]
    remove: bool,
}

pub(crate) async fn run(args: Alias, context: &mut Context) -> Result<Exit, Stop> {
    let alias = args.name.as_ref().map(Name::to_string);
    let request = Request::Alias(SetAlias { peer: args.peer.clone(), alias });
    let done: Done = context.call(&request).await?;
    context.done(&done, || match &args.name {
        Some(name) => chat(&format!("{} is now {name}", args.peer)),
        None => chat(&format!("{} has no alias now", args.peer)),
    })
}
