//! A client's way to an interface port: to the right key, or in clear text to this machine.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::client::{CallError, Client, Events};
use super::super::protocol::{Authenticate, Done, Failure, Request, TokenText};
use super::listen::prepare;
use super::tls::client_config;
use super::token_file::Credentials;
use crate::model::{InterfaceAddress, PeerId};

/// From the first packet to the answer to `authenticate`.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum DialError {
    /// The host's name has no address.
    #[error("the host's name has no address: {0}")]
    Resolve(io::Error),
    /// `localhost` is another machine, and the token would go there in clear text.
    #[error("it is {0} here, which is no loopback address")]
    NotLoopback(IpAddr),
    /// Nobody answers, or not in time.
    #[error("{0}")]
    Connect(io::Error),
    /// Whoever answers does not speak TLS as we do.
    #[error("{0}")]
    Tls(io::Error),
    /// The key of another peer answered. It was sent nothing.
    #[error("{0} answers there")]
    OtherPeer(PeerId),
    /// It was closed, and nothing was said.
    #[error("it closed the connection without a word")]
    Closed,
    /// Nothing was said for ten seconds.
    #[error("it says nothing")]
    Silent,
    /// It answered and said no.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// It said something else.
    #[error("{0}")]
    Protocol(String),
}

/// Connects to an interface port and authenticates. The token is sent to the peer that was named
/// and to nobody else; if none was, to a loopback address.
///
/// # Errors
/// When nobody answers, or somebody else does, or the token is wrong.
pub async fn dial(
    target: &InterfaceAddress,
    credentials: &Credentials,
) -> Result<(Client, Events), DialError> {
    timeout(TIMEOUT, dial_patiently(target, credentials)).await.unwrap_or(Err(DialError::Silent))
}

async fn dial_patiently(
    target: &InterfaceAddress,
    credentials: &Credentials,
) -> Result<(Client, Events), DialError> {
    let address = target.address();
    let found = lookup_host((address.host(), address.port())).await.map_err(DialError::Resolve)?;
    let found: Vec<SocketAddr> = found.collect();
    let other = found.iter().find(|found| !found.ip().is_loopback());
    if let (None, Some(other)) = (target.peer(), other) {
        return Err(DialError::NotLoopback(other.ip()));
    }
    let stream = TcpStream::connect(&*found).await.map_err(DialError::Connect)?;
    prepare(&stream);
    let (client, events) = match target.peer() {
        Some(peer) => Client::over(secure(stream, peer).await?),
        None => Client::over(stream),
    };
    let token = TokenText::from(std::mem::take(&mut *credentials.0.to_text()));
    let shown = Request::Authenticate(Authenticate { token });
    match client.call::<Done>(&shown).await {
        Ok(Done {}) => Ok((client, events)),
        Err(CallError::Closed) => Err(DialError::Closed),
        Err(CallError::Silent) => Err(DialError::Silent),
        Err(CallError::Failure(failure)) => Err(DialError::Refused(failure)),
        Err(CallError::Protocol(what)) => Err(DialError::Protocol(what)),
    }
}

async fn secure(stream: TcpStream, peer: PeerId) -> Result<TlsStream<TcpStream>, DialError> {
    let of_us = |error: rustls::Error| DialError::Tls(io::Error::other(error));
    let (config, pin) = client_config(peer).map_err(of_us)?;
    // The library wants a name; it is neither sent nor checked.
    let name = ServerName::try_from("distmsg").map_err(|e| DialError::Tls(io::Error::other(e)))?;
    let connected = TlsConnector::from(Arc::clone(&config)).connect(name, stream).await;
    connected.map_err(|error| match (pin.other(), error.kind()) {
        (Some(other), _) => DialError::OtherPeer(other),
        // What does not speak TLS, or not ours, hangs up.
        (None, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => DialError::Closed,
        (None, _) => DialError::Tls(error),
    })
}
