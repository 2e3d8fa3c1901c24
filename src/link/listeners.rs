//! Where links are accepted, which may change while the node runs.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, lookup_host};
use tokio::task::JoinHandle;
use tracing::error;

use super::accept::listen;
use super::endpoint::Context;
use crate::model::Address;

/// Connections that the kernel may hold for us before we accept them.
const BACKLOG: u32 = 1_024;

/// Why a node cannot listen.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The name to listen on has no address.
    #[error("cannot listen on {address}: {error}; give an IP address of this machine")]
    Resolve {
        /// What was to be listened on.
        address: Address,
        /// What the resolver said.
        error: io::Error,
    },
    /// The system does not let us listen there.
    #[error("cannot listen on {address}: {error}; {}", remedy(error))]
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
        io::ErrorKind::AddrInUse => "choose another port, or stop what listens there",
        io::ErrorKind::AddrNotAvailable => "give an address of this machine",
        io::ErrorKind::PermissionDenied => "choose a port above 1023, or grant the privilege",
        _ => "choose another address",
    }
}

/// One thing to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// As it was asked for: the port may be left to the system.
    address: SocketAddr,
    /// Leave IPv4 alone.
    ipv6_only: bool,
}

/// What listens.
#[derive(Debug)]
struct Open {
    place: Place,
    /// With the port that was chosen.
    local: SocketAddr,
    /// Accepts, until it is aborted. Links that came of it live on.
    task: JoinHandle<()>,
}

/// All that listens for links of one node.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    open: Mutex<Vec<Open>>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
}

impl Listeners {
    /// Where links are accepted, with the ports that were chosen.
    pub(super) fn local(&self) -> Vec<SocketAddr> {
        self.open().iter().map(|open| open.local).collect()
    }

    /// Listens on these addresses from now on, and on no others. What stays is not touched, and
    /// links that are up live on. If one of the addresses cannot be listened on, all is as before.
    pub(super) async fn change(
        &self,
        context: &Arc<Context>,
        addresses: &[Address],
    ) -> Result<(), ListenError> {
        let _alone = self.changing.lock().await;
        let mut wanted = Vec::new();
        for address in addresses {
            wanted.push((address, places(address, addresses).await?));
        }
        let stays = self.staying(wanted.iter().flat_map(|(_, places)| places));
        let is_gone = |open: &Open| !stays.values().any(|local| *local == open.local);
        let gone: Vec<SocketAddr> =
            self.open().iter().filter(|open| is_gone(open)).map(|open| open.local).collect();
        let mut bound = Vec::new();
        let mut blocked = Vec::new();
        for (address, places) in &wanted {
            let (known, new) = places.iter().partition(|place| stays.contains_key(place));
            let known: Vec<&Place> = known;
            bound.extend(bind(address, new, !known.is_empty(), &gone, &mut blocked)?);
        }
        // What we leave ourselves may be in the way of what comes: all addresses at a port and one
        // of them, for instance.
        let mut left = Vec::new();
        if !blocked.is_empty() {
            let ports: Vec<u16> = blocked.iter().map(|(_, place)| place.address.port()).collect();
            let is_in_the_way = |open: &Open| ports.contains(&open.local.port()) && is_gone(open);
            left = self.close(is_in_the_way).await;
        }
        for (address, place) in blocked {
            match place.bind() {
                Ok(listener) => bound.push((place, listener)),
                Err(error) => {
                    drop(bound);
                    self.reopen(context, left);
                    return Err(ListenError::Bind { address, error });
                }
            }
        }
        self.close(is_gone).await;
        for (place, listener) in bound {
            self.start(context, place, listener);
        }
        Ok(())
    }

    /// Which places are served already, each by another listener, and where. A port that was left
    /// to the system may be named now, or still be left to it.
    fn staying<'a>(
        &self,
        wanted: impl Iterator<Item = &'a Place> + Clone,
    ) -> BTreeMap<Place, SocketAddr> {
        let open = self.open();
        let mut stays = BTreeMap::new();
        for is_at in [
            |open: &Open, place: &Place| open.local == place.address,
            |open: &Open, place: &Place| open.place.address == place.address,
        ] {
            for place in wanted.clone() {
                let found = open.iter().find(|open| {
                    is_at(open, place)
                        && open.place.ipv6_only == place.ipv6_only
                        && !stays.values().any(|local| *local == open.local)
                });
                if let Some(found) = found
                    && !stays.contains_key(place)
                {
                    stays.insert(*place, found.local);
                }
            }
        }
        stays
    }

    /// Stops listening there; when it returns, the system knows it too.
    async fn close(&self, which: impl Fn(&Open) -> bool) -> Vec<Place> {
        let (leaving, staying) = self.open().drain(..).partition(|open| which(open));
        let leaving: Vec<Open> = leaving;
        *self.open() = staying;
        let mut places = Vec::new();
        for open in leaving {
            open.task.abort();
            // It is over either way.
            let _ = open.task.await;
            places.push(Place { address: open.local, ..open.place });
        }
        places
    }

    /// Listens again where it just did.
    fn reopen(&self, context: &Arc<Context>, places: Vec<Place>) {
        for place in places {
            match place.bind() {
                Ok(listener) => self.start(context, place, listener),
                Err(error) => {
                    error!(address = %place.address, %error, "cannot listen there any more");
                }
            }
        }
    }

    fn start(&self, context: &Arc<Context>, place: Place, listener: TcpListener) {
        // A socket that is bound has an address.
        let Ok(local) = listener.local_addr() else { return };
        let task = tokio::spawn(listen(Arc::clone(context), listener));
        self.open().push(Open { place, local, task });
    }

    fn open(&self) -> MutexGuard<'_, Vec<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn bind(&self) -> io::Result<TcpListener> {
        let Self { address, ipv6_only } = *self;
        let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
        // Otherwise a restarted daemon could not listen until old connections have timed out.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        if address.is_ipv6() && ipv6_only {
            rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
        }
        socket.bind(address)?;
        socket.listen(BACKLOG)
    }
}

/// Binds what is new of an address. Of a name's addresses some may not exist here, such as `::1`
/// without IPv6; one will do. What only waits for our own leaving is `blocked`.
fn bind(
    address: &Address,
    new: Vec<&Place>,
    mut is_served: bool,
    gone: &[SocketAddr],
    blocked: &mut Vec<(Address, Place)>,
) -> Result<Vec<(Place, TcpListener)>, ListenError> {
    let mut bound = Vec::new();
    let mut problem = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for place in new {
        let is_ours = || gone.iter().any(|gone| gone.port() == place.address.port());
        match place.bind() {
            Ok(listener) => bound.push((*place, listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_ours() => {
                is_served = true;
                blocked.push((address.clone(), *place));
            }
            Err(error) => problem = error,
        }
    }
    if bound.is_empty() && !is_served {
        return Err(ListenError::Bind { address: address.clone(), error: problem });
    }
    Ok(bound)
}

/// All that an address stands for.
async fn places(address: &Address, all: &[Address]) -> Result<Vec<Place>, ListenError> {
    let ipv6_only = shares_port_with_ipv4(address, all);
    if let Some(ip) = address.ip() {
        return Ok(vec![Place { address: SocketAddr::new(ip, address.port()), ipv6_only }]);
    }
    let resolved = lookup_host((address.host(), address.port()))
        .await
        .map_err(|error| ListenError::Resolve { address: address.clone(), error })?;
    Ok(resolved.map(|address| Place { address, ipv6_only }).collect())
}

/// Whether the configuration also listens on all of IPv4 at the same port: then `[::]` must leave
/// IPv4 alone, or the two would be in each other's way.
fn shares_port_with_ipv4(address: &Address, all: &[Address]) -> bool {
    all.iter()
        .any(|other| other.port() == address.port() && matches!(other.ip(), Some(IpAddr::V4(_))))
}
