//! `listeners`: who has read how far; and the end of a listener.

use clap::Args;

use crate::control::protocol::{Done, ListenerRef, ListenerStatus, Request, Status};
use crate::ctl::context::Context;
use crate::ctl::exit::{Exit, Stop};
use crate::ctl::output::chat;
use crate::ctl::table::Table;
use crate::ctl::text::Clock;
use crate::model::escaped;

/// List the named listeners, or remove one
///
/// A message is kept until every listener has acknowledged it, so one that nobody uses any more
/// keeps everything. There may be 256.
#[derive(Debug, Args)]
#[command(
    after_help = "POSITION is the cursor up to which all is acknowledged; LEASED counts messages \
    that a client has and did not acknowledge yet. LAST SEEN is when the last client left, if one \
    did since the daemon started.\n\n\
    A name that is used again after it was removed begins at the oldest message kept. Without any \
    listener nothing counts as acknowledged, and all is kept.\n\n\
    Examples:\n  \
    distmsgctl listeners\n  \
    distmsgctl listeners --remove old-backup"
)]
pub(crate) struct Listeners {
    /// Remove this listener, unless somebody listens by its name
    #[arg(long, value_name = "LISTENER")]
    remove: Option<String>,
}

pub(crate) async fn run(args: Listeners, context: &mut Context) -> Result<Exit, Stop> {
    if let Some(name) = args.remove {
        let request = Request::RemoveListener(ListenerRef { name: name.clone() });
        let done: Done = context.call(&request).await?;
        return context.done(&done, || chat(&format!("removed listener {name}")));
    }
    let status: Status = context.call(&Request::Status {}).await?;
    if context.json {
        status.listeners.iter().for_each(|listener| context.out.object(listener));
    } else if status.listeners.is_empty() {
        chat("no listeners yet; 'listen' makes one");
    } else {
        let mut clock = Clock::new();
        let rows: Vec<_> = status.listeners.iter().map(|of| row(of, &mut clock)).collect();
        Table::new(["NAME", "UNREAD", "POSITION", "LEASED", "CLIENTS", "LAST SEEN"])
            .write(&rows, &mut context.out);
    }
    context.out.flush()?;
    Ok(Exit::Done)
}

fn row(listener: &ListenerStatus, clock: &mut Clock) -> [String; 6] {
    let seen = match (&listener.last_seen, listener.clients) {
        (_, 1..) => "now".to_owned(),
        (Some(seen), 0) => clock.local(seen).to_owned(),
        (None, 0) => "unknown".to_owned(),
    };
    [
        escaped(&listener.name),
        listener.unread.to_string(),
        listener.position.to_string(),
        listener.leased.to_string(),
        listener.clients.to_string(),
        seen,
    ]
}
