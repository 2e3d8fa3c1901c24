//! The prompt's own connection: what arrives is shown, acknowledging nothing, and the names of
//! peers and listeners are fetched for the tab key.

use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use super::complete::Names;
use crate::config::Endpoint;
use crate::control::client::{Client, Events};
use crate::control::protocol::{
    Event, Page, PeersPage, Request, Status, Subscribe, Subscribed, Topic,
};
use crate::ctl::context::{self, answered};
use crate::ctl::exit::{Failed, Stop};
use crate::ctl::message::{inline_body, push_line};
use crate::ctl::output::{Output, Style};
use crate::ctl::text::{self, Clock};

/// Peers offered by the tab key.
const PEERS_OFFERED_MAX: usize = 2_000;

/// How long the names may take. While they are fetched nothing else is shown.
const REFRESH: Duration = Duration::from_millis(300);

/// Bytes of a body shown above the line being typed.
const BODY_BYTES_SHOWN: usize = 2_048;

/// The connection, while there is one.
pub(crate) struct Watch {
    connection: Option<(Client, Events)>,
    /// What the prompt calls this node.
    pub(crate) name: String,
    pub(crate) names: Arc<Mutex<Names>>,
    clock: Clock,
    style: Output,
}

/// Something to show.
pub(crate) enum Seen {
    /// A line; true if it is a message.
    Line(String, bool),
    /// The daemon went away.
    Gone,
}

impl Watch {
    pub(crate) fn new() -> Self {
        let names = Arc::default();
        let (clock, style) = (Clock::new(), Output::new());
        Self { connection: None, name: "distmsg".into(), names, clock, style }
    }

    /// Whether the daemon was there when it was last heard of.
    pub(crate) const fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Connects and subscribes.
    pub(crate) async fn connect(&mut self, endpoint: &Endpoint) -> Result<(), Failed> {
        let (client, events) = context::connect(endpoint).await?;
        let status = client.call::<Status>(&Request::Status {});
        let status = answered(Duration::ZERO, status).await.map_err(context::failed)?;
        let topics = vec![Topic::Messages, Topic::Links];
        let subscribe = Request::Subscribe(Subscribe { topics });
        let subscribed = answered(Duration::ZERO, client.call::<Subscribed>(&subscribe)).await;
        subscribed.map_err(context::failed)?;
        self.name = match status.name {
            Some(name) => text::one_line(&name),
            None => text::short_id(&text::one_line(&status.peer)),
        };
        self.connection = Some((client, events));
        Ok(())
    }

    /// Fetches the names.
    pub(crate) async fn refresh(&mut self) {
        let Some((client, _)) = &self.connection else { return };
        if let Ok(Ok(fetched)) = timeout(REFRESH, fetch_names(client)).await {
            *self.names.lock().unwrap_or_else(PoisonError::into_inner) = fetched;
        }
    }

    /// The next thing to show. Never, while there is no connection.
    pub(crate) async fn next(&mut self) -> Seen {
        loop {
            let Some((_, events)) = &mut self.connection else { return pending().await };
            let Some(event) = events.next().await else {
                self.connection = None;
                return Seen::Gone;
            };
            match event {
                Event::Message(event) => return Seen::Line(self.message(&event.message), true),
                Event::Link(link) => {
                    let peer = text::peer_label(link.alias.as_deref(), &link.peer);
                    let peer = self.style.styled(Style::Peer, &peer);
                    let line = match (link.up, &link.reason) {
                        (true, _) => format!("{peer} is linked"),
                        (false, None) => format!("{peer} is no longer linked"),
                        (false, Some(reason)) => {
                            format!("{peer} is no longer linked: {}", text::one_line(reason))
                        }
                    };
                    return Seen::Line(line, false);
                }
                Event::Discovered(_) | Event::Traffic(_) => {}
            }
        }
    }

    fn message(&mut self, message: &crate::control::protocol::Message) -> String {
        let size = text::size(message.bytes);
        let body = inline_body(message);
        let shown = match body.as_deref() {
            None => format!("({size}, not shown)").into_bytes(),
            Some(body) if body.len() > BODY_BYTES_SHOWN => {
                let mut start = body.get(..BODY_BYTES_SHOWN).unwrap_or_default().to_vec();
                start.extend_from_slice(format!(" … ({size})").as_bytes());
                start
            }
            Some(body) => body.to_vec(),
        };
        push_line(message, &shown, &mut self.clock, &mut self.style);
        let line = std::mem::take(self.style.buffer());
        String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned()
    }
}

async fn fetch_names(client: &Client) -> Result<Names, Stop> {
    let status: Status = client.call(&Request::Status {}).await?;
    let listeners = status.listeners.into_iter().map(|listener| listener.name).collect();
    let mut found = Names { listeners, ..Names::default() };
    let mut page = Page::default();
    loop {
        let PeersPage { peers, next } = client.call(&Request::Peers(page)).await?;
        for peer in peers {
            found.aliases.extend(peer.alias);
            found.ids.push(peer.peer);
        }
        match next {
            Some(next) if found.ids.len() < PEERS_OFFERED_MAX => {
                page = Page { after: Some(next), limit: None };
            }
            _ => return Ok(found),
        }
    }
}
