//! `connect`: links to a peer, keeps the link, and makes sure who it is.

use std::time::Duration;

use clap::Args;

use crate::control::protocol::{self, Connected, Probe, Probed, Request};
use crate::ctl::context::{Context, answered};
use crate::ctl::exit::{Exit, Failed, Stop};
use crate::ctl::output::say;
use crate::ctl::progress::shown;
use crate::ctl::{text, when};
use crate::model::{Address, Name, PeerId, PeerIdError};

/// Link to a peer, keep the link and redial it
///
/// With PEER_ID, another key at ADDRESS is an error. Without it, the ID found is shown and, on a
/// terminal, to be confirmed.
#[derive(Debug, Args)]
#[command(
    allow_missing_positional = true,
    after_help = "Returns once the link is authenticated. A peer given by its ID that does not \
        answer in time is kept and dialled on (exit 4); an address alone that does not answer is \
        not kept (exit 1).\n\n\
        Examples:\n  \
        distmsgctl connect 192.0.2.7\n  \
        distmsgctl connect dm1… box.example.org:3000 --alias box\n  \
        distmsgctl connect '[2001:db8::7]:3000' --trust-on-first-use"
)]
pub(crate) struct Connect {
    /// The peer's full ID, which must answer
    #[arg(value_name = "PEER_ID")]
    peer: Option<String>,
    /// Where the peer listens.
    #[arg(
        value_name = "ADDRESS",
        help = "HOST[:PORT], with IPv6 addresses in brackets [default port: 3000]"
    )]
    address: String,
    /// The peer's alias [default: its own name, if that is free]
    #[arg(long, value_name = "NAME")]
    alias: Option<Name>,
    /// How long to wait for the link
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "10s",
        value_parser = when::duration,
        allow_hyphen_values = true
    )]
    timeout: Duration,
    /// Trust whoever answers, without asking
    #[arg(long)]
    trust_on_first_use: bool,
}

pub(crate) async fn run(args: Connect, context: &mut Context) -> Result<Exit, Stop> {
    let expected = args.peer.as_deref().map(peer_id).transpose()?;
    if let Some(id) = meant_as_id(&args.address) {
        let peer = peer_id(id)?;
        let text = format!("an address is missing; write 'connect {peer} HOST[:PORT]'");
        return Err(Failed::usage(text).into());
    }
    let address = Address::parse_with_default_port(&args.address)
        .map_err(|error| Failed::usage(format!("address: {error}")))?;
    let peer = match expected {
        Some(peer) => peer.to_string(),
        None => found_at(&address, &args, context).await?,
    };
    let request = Request::Connect(protocol::Connect {
        peer,
        address: address.to_string(),
        alias: args.alias.as_ref().map(Name::to_string),
        timeout_ms: when::millis(args.timeout),
    });
    let (client, _events) = context.connect().await?;
    let what = || format!("connecting to {address}");
    let connected = answered(args.timeout, client.call::<Connected>(&request));
    let connected = shown(context.json, args.timeout, what, connected).await.map_err(|error| {
        let failed = crate::ctl::context::failed(error);
        match &*failed.code {
            // The peer is known by its ID now, and the daemon goes on dialling it.
            "unreachable" | "timeout" | "not_delivered" => failed.exiting(Exit::StillQueued),
            _ => failed,
        }
    })?;
    if context.json {
        context.out.object(&connected);
    } else {
        context.out.line(&line(&connected));
    }
    context.out.flush()?;
    Ok(Exit::Done)
}

fn peer_id(text: &str) -> Result<PeerId, Failed> {
    text.parse().map_err(|error| Failed::usage(format!("peer ID '{text}': {error}")))
}

/// What stands here for an address and can only have been meant as an ID, although a host could
/// have that name: nobody is looked up by the name of a mistyped ID.
fn meant_as_id(text: &str) -> Option<&str> {
    // As long as the shortest beginnings that we show of IDs.
    const LIKE_AN_ID_CHARS: usize = 11;
    let host = text.split_once(':').map_or(text, |(host, _)| host);
    let is_id = match host.parse::<PeerId>() {
        Ok(_) | Err(PeerIdError::Checksum) => true,
        Err(PeerIdError::Length(length)) => {
            length >= LIKE_AN_ID_CHARS && host.bytes().all(|byte| byte.is_ascii_alphanumeric())
        }
        Err(PeerIdError::Prefix) => false,
    };
    is_id.then_some(host)
}

/// Asks who answers at the address, and whether that is the one meant.
async fn found_at(address: &Address, args: &Connect, context: &Context) -> Result<String, Stop> {
    if !args.trust_on_first_use && !context.can_ask() {
        return Err(Failed::usage(format!(
            "who is to answer at {address}? Write 'connect PEER_ID {address}' with the ID that \
             'distmsgctl id' prints there, or add --trust-on-first-use"
        ))
        .into());
    }
    let timeout_ms = when::millis(args.timeout);
    let probe = Request::Probe(Probe { address: address.to_string(), timeout_ms });
    let (client, _events) = context.connect().await?;
    let what = || format!("asking who answers at {address}");
    let probed = answered(args.timeout, client.call::<Probed>(&probe));
    let probed = shown(context.json, args.timeout, what, probed).await.map_err(|error| {
        let failed = crate::ctl::context::failed(error);
        // Nothing is kept of a peer that was never seen: not "nothing came", but a failure.
        if failed.code == "timeout" { failed.exiting(Exit::Failure) } else { failed }
    })?;
    if args.trust_on_first_use {
        return Ok(probed.peer);
    }
    let own_name = match text::own_name(probed.name.as_deref()) {
        name if name.is_empty() => "has no name".to_owned(),
        name => format!("calls itself {name}"),
    };
    say(&format!(
        "The peer at {address} {own_name}. Its ID is\n  {}",
        text::one_line(&probed.peer)
    ));
    if !context.confirm("Is that what 'distmsgctl id' prints there? [y/N] ").await? {
        return Err(Failed::local("not connected; nothing was kept").into());
    }
    Ok(probed.peer)
}

fn line(connected: &Connected) -> String {
    let id = text::one_line(&connected.peer);
    let address = text::one_line(&connected.address);
    match (&connected.alias, &connected.name) {
        (Some(alias), _) => format!("connected to {} {id} at {address}", text::one_line(alias)),
        (None, Some(_)) => {
            let name = text::own_name(connected.name.as_deref());
            format!("connected to {id} (calls itself {name}) at {address}")
        }
        (None, None) => format!("connected to {id} at {address}"),
    }
}
