//! `peers`: who is known, who is linked, and how.

use std::time::Duration;

use clap::Args;

use crate::control::protocol::{Page, Peer, PeersPage, Request};
use crate::ctl::context::{Context, answered};
use crate::ctl::exit::{Exit, Stop};
use crate::ctl::output::chat;
use crate::ctl::table::Table;
use crate::ctl::text;
use crate::model::escaped;

/// List the peers that are known, and their links
///
/// Aliases are yours; a name in quotes is what a peer calls itself, which anybody may.
#[derive(Debug, Args)]
#[command(
    after_help = "On a terminal that is too narrow, IDs are cut: any unique beginning names a \
    peer. In a pipe they are always whole.\n\n\
    Examples:\n  \
    distmsgctl peers\n  \
    distmsgctl peers --linked\n  \
    distmsgctl peers --json | jq -r 'select(.link) | .peer'"
)]
pub(crate) struct Peers {
    /// Only peers with a link
    #[arg(long)]
    linked: bool,
}

pub(crate) async fn run(args: Peers, context: &mut Context) -> Result<Exit, Stop> {
    let (client, _events) = context.connect().await?;
    let mut table = Table::new(["ALIAS", "ID", "LINK", "RTT", "ADDRESS", "NAME", "NOTE"]);
    let mut page = Page::default();
    let mut listed = false;
    loop {
        let PeersPage { mut peers, next } =
            answered(Duration::ZERO, client.call(&Request::Peers(page))).await?;
        peers.retain(|peer| !args.linked || peer.link.is_some());
        listed |= !peers.is_empty();
        if context.json {
            peers.iter().for_each(|peer| context.out.object(peer));
        } else if !peers.is_empty() {
            write(&peers, &mut table, context);
        }
        context.out.flush()?;
        let Some(next) = next else { break };
        page = Page { after: Some(next), limit: None };
    }
    if !listed && !context.json {
        chat("no peers; connect to one with 'connect ADDRESS'");
    }
    Ok(Exit::Done)
}

fn write(peers: &[Peer], table: &mut Table<7>, context: &mut Context) {
    let mut rows: Vec<[String; 7]> = peers.iter().map(row).collect();
    if !table.fits(&rows, context.out.columns) {
        for [_, id, ..] in &mut rows {
            *id = text::short_id(id);
        }
    }
    table.write(&rows, &mut context.out);
}

fn row(peer: &Peer) -> [String; 7] {
    let (link, rtt, address) = match &peer.link {
        Some(link) => {
            let rtt = link.rtt_ms.map(|ms| format!("{ms:.1} ms")).unwrap_or_default();
            (link.direction.clone(), rtt, Some(&link.address))
        }
        None if peer.connected => ("dialling".into(), String::new(), peer.dial.as_ref()),
        None => (String::new(), String::new(), peer.addresses.first()),
    };
    let mut notes = Vec::new();
    if peer.queued > 0 {
        notes.push(format!("{} queued", peer.queued));
    }
    if peer.link.is_none() && peer.connected {
        notes.extend(peer.last_error.clone());
    }
    [
        escaped(peer.alias.as_deref().unwrap_or_default()),
        escaped(&peer.peer),
        escaped(&link),
        rtt,
        escaped(address.map(String::as_str).unwrap_or_default()),
        text::own_name(peer.name.as_deref()),
        text::one_line(&notes.join("; ")),
    ]
}
