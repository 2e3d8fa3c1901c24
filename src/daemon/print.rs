//! Messages on standard output as they arrive: a client like any other, but inside.

use std::io::{self, Write as _};

use tracing::warn;

use crate::control::client::{CallError, Client, Events};
use crate::control::plain::{Clock, peer_label, push_escaped_bytes};
use crate::control::protocol::{Ack, Done, Event, Listen, MessageEvent, Request, Subscribed};
use crate::control::server::Server;

/// The listener's name.
const LISTENER: &str = "print";
/// Messages leased to it at once.
const WINDOW: u32 = 64;
/// Bytes between it and the server.
const PIPE_BYTES: usize = 64 * 1024;

/// Prints every message that listener `print` has not had, one line each, and acknowledges it.
pub(super) async fn print(server: Server) {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    tokio::spawn(async move { server.serve(theirs).await });
    let (client, events) = Client::over(ours);
    if let Err(error) = follow(client, events).await {
        warn!(%error, "messages are not printed any more");
    }
}

async fn follow(client: Client, mut events: Events) -> Result<(), PrintError> {
    let listen = Listen { name: LISTENER.to_owned(), from: None, since: None, window: WINDOW };
    let Subscribed { subscription } = client.call(&Request::Listen(listen)).await?;
    let mut clock = Clock::new();
    let mut line = Vec::new();
    while let Some(event) = events.next().await {
        let Event::Message(MessageEvent { message, .. }) = event else { continue };
        let body = client.whole_body(&message).await?;
        line.clear();
        line.extend_from_slice(clock.local(&message.received).as_bytes());
        line.push(b' ');
        line.extend_from_slice(peer_label(message.alias.as_deref(), &message.from).as_bytes());
        line.push(b' ');
        push_escaped_bytes(&mut line, &body);
        line.push(b'\n');
        line = write_beside(line).await?;
        let ack = Ack { subscription, cursors: vec![message.cursor] };
        let _: Done = client.call(&Request::Ack(ack)).await?;
    }
    Ok(())
}

/// Writes a line while everything else goes on: a terminal may have been stopped. Gives the buffer
/// back.
async fn write_beside(line: Vec<u8>) -> io::Result<Vec<u8>> {
    let writing = tokio::task::spawn_blocking(move || {
        let mut out = io::stdout();
        out.write_all(&line).and_then(|()| out.flush()).map(|()| line)
    });
    writing.await.map_err(io::Error::other)?
}

#[derive(Debug, thiserror::Error)]
enum PrintError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}
