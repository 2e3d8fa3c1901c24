//! `status`: what the daemon is and how it does.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use crate::config::Endpoint;
use crate::control::protocol::{self, Request};
use crate::ctl::context::Context;
use crate::ctl::exit::{Exit, Stop};
use crate::ctl::text;
use crate::ctl::verb::outbox;
use crate::model::escaped;

/// Show what the daemon is and how it does
///
/// Exits 0 whenever the daemon answers.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  distmsgctl status\n  distmsgctl status --json | jq .peers")]
pub(crate) struct Status {}

/// The daemon's answer, and by which way it came.
#[derive(Serialize)]
struct Answer<'a> {
    /// `socket` or `endpoint`.
    #[serde(flatten)]
    way: BTreeMap<&'static str, &'a str>,
    #[serde(flatten)]
    status: &'a protocol::Status,
}

pub(crate) async fn run(_: Status, context: &mut Context) -> Result<Exit, Stop> {
    let status: protocol::Status = context.call(&Request::Status {}).await?;
    let (way, label) = match &context.endpoint {
        Endpoint::Socket(socket) => (socket.path.display().to_string(), "socket"),
        Endpoint::Interface(interface) => (interface.address.to_string(), "endpoint"),
    };
    if context.json {
        let way = BTreeMap::from([(label, &*way)]);
        context.out.object(&Answer { way, status: &status });
    } else {
        for (label, value) in lines((label, way), &status) {
            context.out.line(&format!("{label:<10} {}", escaped(&value)));
        }
    }
    context.out.flush()?;
    Ok(Exit::Done)
}

fn lines(way: (&'static str, String), status: &protocol::Status) -> Vec<(&'static str, String)> {
    let or_none = |list: &[String]| match list {
        [] => "nothing".to_owned(),
        list => list.join(" "),
    };
    let mut lines = vec![
        ("peer", status.peer.clone()),
        ("name", status.name.clone().unwrap_or_else(|| "none".into())),
        ("network", status.network.clone()),
        way,
        ("state", status.state_dir.clone()),
        (
            "daemon",
            format!(
                "distmsg {}, process {}, up {}",
                status.version,
                status.pid,
                text::ago(status.uptime_s)
            ),
        ),
        ("listening", or_none(&status.listen)),
        ("advertises", or_none(&status.advertise)),
        ("peers", format!("{} known, {}", status.peers, text::count(status.links, "link"))),
        ("outbox", stored(status.outbox_messages, status.outbox_bytes)),
        ("inbox", stored(status.inbox_messages, status.inbox_bytes)),
    ];
    if !status.interface.is_empty() {
        lines.push(("interface", status.interface.join(" ")));
    }
    if let Some(last) = &status.last_given_up {
        let told = format!(
            "{}, the last one for {}: {}; see 'distmsgctl outbox'",
            text::count(status.given_up, "message"),
            text::peer_label(last.alias.as_deref(), &last.to),
            outbox::reason(last.reason)
        );
        lines.push(("given up", told));
    }
    for listener in &status.listeners {
        let attached = text::count(listener.clients, "client");
        let told = format!("{}: {} unread, {attached} attached", listener.name, listener.unread);
        lines.push(("listener", told));
    }
    lines.extend(status.warnings.iter().map(|warning| ("warning", warning.clone())));
    lines
}

fn stored(messages: u64, bytes: u64) -> String {
    format!("{}, {}", text::count(messages, "message"), text::size(bytes))
}
