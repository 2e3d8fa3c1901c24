//! What every node saw of a message.

use std::collections::BTreeMap;

use crate::ctl::api::{Event, Message, TrafficAction, TrafficEvent, escaped_body};

/// What one node was told.
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) events: Vec<Event>,
}

/// A line for each thing that a node saw, aligned. Relays see sizes and neighbours: that is all
/// there is to show.
pub(super) fn table(nodes: &[(&str, &str)], seen: &[Seen]) -> String {
    let names: BTreeMap<&str, &str> = nodes.iter().map(|(name, peer)| (*peer, *name)).collect();
    let mut rows = Vec::new();
    for node in seen {
        let mut what: Vec<String> = Vec::new();
        for event in &node.events {
            match event {
                Event::Traffic(traffic) => what.push(passed(traffic, &names)),
                Event::Message(event) => what.push(opened(&event.message, &names)),
                Event::Discovered(_) | Event::Link(_) => {}
            }
        }
        what.dedup();
        if what.is_empty() {
            what.push("saw nothing of it".to_owned());
        }
        rows.push((node.name.as_str(), what));
    }
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text = String::from("What every node saw of the message:\n");
    for (name, what) in rows {
        for (at, line) in what.iter().enumerate() {
            let name = if at == 0 { name } else { "" };
            text.push_str(&format!("  {name:width$}  {line}\n"));
        }
    }
    text
}

fn passed(traffic: &TrafficEvent, names: &BTreeMap<&str, &str>) -> String {
    let name =
        |peer: &String| names.get(peer.as_str()).map_or_else(|| peer.clone(), |n| (*n).to_owned());
    let next: Vec<String> = traffic.next.iter().map(name).collect();
    let (bytes, next) = (traffic.bytes, next.join(" and "));
    let previous = traffic.previous.as_ref().map(name).unwrap_or_default();
    match traffic.action {
        TrafficAction::Originated => format!("sealed it: {bytes} bytes, to {next}"),
        TrafficAction::Forwarded => {
            format!("passed on {bytes} bytes from {previous} to {next}; cannot open them")
        }
        TrafficAction::Flooded => {
            format!("passed on {bytes} bytes from {previous} to all neighbours ({next})")
        }
        TrafficAction::Delivered => format!("received {bytes} bytes from {previous}"),
        TrafficAction::Rejected => format!("sent {bytes} bytes back to {previous}: no way on"),
    }
}

fn opened(message: &Message, names: &BTreeMap<&str, &str>) -> String {
    let from = names.get(message.from.as_str()).copied().unwrap_or(&message.from);
    let body = message.body.as_deref().unwrap_or_default();
    format!("opened it: \"{}\", verified to be from {from}", escaped_body(body))
}
