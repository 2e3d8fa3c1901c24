//! Where the interface port is listened on, from start to stop.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::super::server::Server;
use super::admit::{Access, Admitted, admit};
use super::tls::server_config;
use crate::crypto::{AccessToken, Identity};
use crate::model::{Address, is_of_one_connection};

/// Connections that the kernel may hold for us before we accept them.
const BACKLOG: u32 = 256;
/// After an accept failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// A client that is gone without a word is noticed after so long a silence, and so many probes in
/// such intervals: five minutes in all.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(180);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_PROBES: u32 = 4;

/// Why there is no interface port.
#[derive(Debug, Error)]
pub enum InterfaceError {
    /// The name has no address.
    #[error(
        "cannot listen on {address} for control clients: {error}; write an IP address of this \
         machine under [interface]"
    )]
    Resolve {
        /// What was to be listened on.
        address: Address,
        /// What the resolver said.
        error: io::Error,
    },
    /// `localhost` is another machine here, or this one as others see it.
    #[error(
        "{address} is {found} here, which is no loopback address, and would be served in clear \
         text; write 127.0.0.1 or [::1] under [interface]"
    )]
    NotLoopback {
        /// What was to be listened on.
        address: Address,
        /// What it stands for.
        found: IpAddr,
    },
    /// The system does not let us listen there.
    #[error(
        "cannot listen on {address} for control clients: {error}; {} under [interface]",
        remedy(error)
    )]
    Bind {
        /// What was to be listened on.
        address: Address,
        /// What the system said.
        error: io::Error,
    },
    /// The identity is of no use for TLS.
    #[error("the identity key cannot be used for TLS: {0}; it must be an Ed25519 key")]
    Identity(String),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "stop what listens there, or choose another port",
        io::ErrorKind::AddrNotAvailable => "write an address of this machine",
        io::ErrorKind::PermissionDenied => "choose a port above 1023",
        _ => "choose another address",
    }
}

/// A bound interface port where nobody is served yet.
#[derive(Debug)]
pub struct InterfaceListener {
    listeners: Vec<TcpListener>,
    /// Loopback alone: clear text is taken too.
    clear: bool,
}

impl InterfaceListener {
    /// Listens on all that an address stands for. What is written decides whether clear text is
    /// taken: on `127.0.0.0/8`, `::1` and `localhost`. A name is looked up once, now; unless it is
    /// `localhost`, it takes TLS only, whatever it stands for.
    ///
    /// # Errors
    /// When nothing can be listened on, or `localhost` is no loopback address.
    pub async fn bind(address: &Address) -> Result<Self, InterfaceError> {
        let failed = |error| InterfaceError::Bind { address: address.clone(), error };
        let resolved = resolve(address).await?;
        let mut listeners = Vec::new();
        let mut problem = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for socket_address in resolved {
            match listen_on(socket_address) {
                Ok(listener) => listeners.push(listener),
                // Of a name's addresses some may not exist here, such as `::1` without IPv6.
                Err(error) if is_of_another_machine(&error) => problem = error,
                // Where somebody else listens, clients would show the token to them.
                Err(error) => return Err(failed(error)),
            }
        }
        if listeners.is_empty() {
            return Err(failed(problem));
        }
        Ok(Self { listeners, clear: address.is_loopback() })
    }

    /// Where it listens, with the ports that were chosen.
    pub fn listening(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Serves whoever has the token, on the current tokio runtime. Clients find the certificate of
    /// this identity.
    ///
    /// # Errors
    /// When the identity is of no use for TLS.
    pub fn serve(
        self,
        identity: &Arc<Identity>,
        token: AccessToken,
        server: Server,
    ) -> Result<Interface, InterfaceError> {
        let listening = self.listening();
        let tls = server_config(identity).map_err(|e| InterfaceError::Identity(e.to_string()))?;
        let (running_sender, running) = watch::channel(());
        let access = Arc::new(Access::new(token, tls, self.clear, server, running));
        let accept = |listener| tokio::spawn(accept_all(listener, Arc::clone(&access)));
        let tasks = self.listeners.into_iter().map(accept).collect();
        Ok(Interface { listening, tasks, running: running_sender })
    }
}

/// The interface port of a node. Dropped, it accepts nobody any more, and the connections that came
/// by it end.
#[derive(Debug)]
pub struct Interface {
    listening: Vec<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
    /// Everything stops when this is dropped.
    running: watch::Sender<()>,
}

impl Interface {
    /// Where it listens.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Stops, and returns when its addresses are free again.
    pub async fn stop(self) {
        drop(self.running);
        for task in self.tasks {
            // It ends by itself now; had it panicked, its listener would be gone as well.
            let _ = task.await;
        }
    }
}

async fn resolve(address: &Address) -> Result<Vec<SocketAddr>, InterfaceError> {
    if let Some(ip) = address.ip() {
        return Ok(vec![SocketAddr::new(ip, address.port())]);
    }
    let found = lookup_host((address.host(), address.port())).await;
    let found =
        found.map_err(|error| InterfaceError::Resolve { address: address.clone(), error })?;
    let found: BTreeSet<SocketAddr> = found.collect();
    if address.is_loopback()
        && let Some(other) = found.iter().find(|found| !found.ip().is_loopback())
    {
        return Err(InterfaceError::NotLoopback { address: address.clone(), found: other.ip() });
    }
    Ok(found.into_iter().collect())
}

/// Whether an address cannot be listened on because this machine has none of its kind.
fn is_of_another_machine(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    // Otherwise a restarted daemon could not listen until old connections have timed out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept_all(listener: TcpListener, access: Arc<Access>) {
    let mut troubled = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = access.stopped() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                troubled = false;
                prepare(&stream);
                tokio::spawn(serve_one(Arc::clone(&access), stream, address));
            }
            // The connection was gone before we took it: that is its own problem.
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if !troubled {
                    warn!(%error, "cannot accept clients of the interface port for now");
                }
                troubled = true;
                tokio::select! {
                    () = access.stopped() => return,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
}

/// Options of a connection, at either end. One that refuses them still works.
pub(super) fn prepare(stream: &TcpStream) {
    use rustix::net::sockopt;
    // Lines are written whole: waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL);
    let _ = sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES);
}

async fn serve_one(access: Arc<Access>, stream: TcpStream, address: SocketAddr) {
    let place = access.gate.enter(address.ip());
    let admitted = tokio::select! {
        biased;
        () = access.stopped() => return,
        admitted = admit(&access, stream, address, place) => admitted,
    };
    if let Some(Admitted { client, reader, writer }) = admitted {
        debug!(%address, "a client authenticated on the interface port");
        access.server.serve_until(client, reader, writer, access.stopped()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_not_served_by_halves() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("bound").port();
        let localhost = Address::new("localhost", port).expect("an address");
        let error = InterfaceListener::bind(&localhost).await.expect_err("taken").to_string();
        assert!(error.contains("stop what listens there, or choose another port"), "{error}");
        drop(taken);
        let listening = InterfaceListener::bind(&localhost).await.expect("free").listening();
        assert!(listening.contains(&([127, 0, 0, 1], port).into()), "{listening:?}");
        assert!(listening.iter().all(|at| at.ip().is_loopback() && at.port() == port));
    }

    #[tokio::test]
    async fn what_is_no_address_of_this_machine_is_said_to_be_none() {
        for (host, why) in [
            ("192.0.2.1", "write an address of this machine under [interface]"),
            ("name.invalid", "write an IP address of this machine under [interface]"),
        ] {
            let address = Address::new(host, 8080).expect("an address");
            let error = InterfaceListener::bind(&address).await.expect_err(host).to_string();
            assert!(error.contains(why), "{host}: {error}");
        }
    }
}
