//! The TCP interface port as the configuration wants it: opened, moved and closed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};

use super::exit::Stop;
use super::secrets;
use crate::control::interface::{Interface, InterfaceError, InterfaceListener};
use crate::control::server::Server;
use crate::crypto::{AccessToken, Identity};
use crate::model::Address;

impl From<InterfaceError> for Stop {
    fn from(error: InterfaceError) -> Self {
        match error {
            // What is written is wrong, whenever it is tried.
            InterfaceError::NotLoopback { .. } => Self::config(error),
            error => Self::failure(error),
        }
    }
}

/// An interface port that is bound, and serves nobody yet.
#[derive(Debug)]
pub struct Bound {
    address: Address,
    listener: InterfaceListener,
    token: AccessToken,
}

impl Bound {
    /// Binds an address, and makes the token if this is the first time.
    ///
    /// # Errors
    /// When the token cannot be had, or the address cannot be listened on.
    pub async fn at(address: &Address, state_dir: &Path) -> Result<Self, Stop> {
        let kept = secrets::interface_token(state_dir, &mut secrets::random()?)?;
        if kept.made {
            info!(path = %kept.path.display(), "made a new token for the interface port");
        }
        let listener = InterfaceListener::bind(address).await?;
        Ok(Self { address: address.clone(), listener, token: kept.secret })
    }

    /// Where it is, with the ports that were chosen.
    pub fn listening(&self) -> Vec<Address> {
        self.listener.listening().into_iter().map(Address::from).collect()
    }
}

/// A running node's interface port, open or not. Dropped, it is closed.
#[derive(Debug)]
pub struct InterfacePort {
    identity: Arc<Identity>,
    state_dir: PathBuf,
    server: Server,
    /// What is open, and what was written for it.
    open: Option<(Address, Interface)>,
}

impl InterfacePort {
    /// None yet, for the node that this server speaks for.
    pub const fn new(identity: Arc<Identity>, state_dir: PathBuf, server: Server) -> Self {
        Self { identity, state_dir, server, open: None }
    }

    /// Serves on what was bound.
    ///
    /// # Errors
    /// When the identity is of no use for TLS.
    pub fn open(&mut self, bound: Bound) -> Result<(), Stop> {
        let Bound { address, listener, token } = bound;
        let interface = listener.serve(&self.identity, token, self.server.clone())?;
        let listening = interface.listening().iter().map(|at| Address::from(*at).to_string());
        let listening = listening.collect::<Vec<_>>().join(" ");
        info!(interface = listening, "control clients are served over TCP");
        self.open = Some((address, interface));
        Ok(())
    }

    /// Where it is as it was written: a name may stand for several addresses.
    pub fn wanted(&self) -> Option<&Address> {
        self.open.as_ref().map(|(address, _)| address)
    }

    /// Where it is; nowhere, if it is closed.
    pub fn listening(&self) -> Vec<Address> {
        let open = self.open.iter().flat_map(|(_, interface)| interface.listening());
        open.map(|address| Address::from(*address)).collect()
    }

    /// Gets ready to have it at another address than before, or nowhere. Until that is settled the
    /// one before goes on, unless its own port is in the way of the new one: the same on more
    /// addresses, or on fewer; or unless the node is to listen there for peers.
    ///
    /// # Errors
    /// When it cannot be there. Then it is where it was before.
    pub async fn prepare(
        &mut self,
        wanted: Option<&Address>,
        for_peers: &[Address],
    ) -> Result<Prepared, Stop> {
        if self.wanted() == wanted {
            return Ok(Prepared { to: To::Stay(self.listening()), closed: None });
        }
        let to = match wanted {
            None => To::Close,
            Some(wanted) => match self.prepare_to_move(wanted).await? {
                Prepared { to, closed: None } => to,
                prepared => return Ok(prepared),
            },
        };
        let is_ours = |at: &Address| self.listening().iter().any(|own| own.port() == at.port());
        let closed = if for_peers.iter().any(is_ours) { self.close().await } else { None };
        Ok(Prepared { to, closed })
    }

    async fn prepare_to_move(&mut self, wanted: &Address) -> Result<Prepared, Stop> {
        let keep = |to| Ok(Prepared { to, closed: None });
        match Bound::at(wanted, &self.state_dir).await {
            Ok(bound) => keep(To::Move(bound)),
            Err(stop) if !self.listening().iter().any(|at| at.port() == wanted.port()) => Err(stop),
            Err(_) => {
                let closed = self.close().await;
                match Bound::at(wanted, &self.state_dir).await {
                    Ok(bound) => Ok(Prepared { to: To::Move(bound), closed }),
                    Err(stop) => {
                        self.reopen(closed).await;
                        Err(stop)
                    }
                }
            }
        }
    }

    /// Has it where it was prepared to be. Clients that came by the one before are gone then.
    ///
    /// # Errors
    /// When the identity is of no use for TLS.
    pub async fn settle(&mut self, prepared: Prepared) -> Result<(), Stop> {
        match prepared.to {
            To::Stay(_) => Ok(()),
            To::Close => {
                self.close().await;
                Ok(())
            }
            To::Move(bound) => {
                self.close().await;
                self.open(bound)
            }
        }
    }

    /// Leaves it where it was before it was prepared to be elsewhere.
    pub async fn abandon(&mut self, prepared: Prepared) {
        let Prepared { to, closed } = prepared;
        drop(to);
        self.reopen(closed).await;
    }

    async fn close(&mut self) -> Option<Closed> {
        let (written, interface) = self.open.take()?;
        let port = interface.listening().first().map_or(written.port(), |at| at.port());
        let at = Address::new(written.host(), port).unwrap_or_else(|_| written.clone());
        interface.stop().await;
        info!(interface = %at, "closed the interface port");
        Some(Closed { written, at })
    }

    /// Opens again what was closed, at the very port that it had.
    async fn reopen(&mut self, closed: Option<Closed>) {
        let Some(Closed { written, at }) = closed else { return };
        let opened = match Bound::at(&at, &self.state_dir).await {
            Ok(bound) => self.open(Bound { address: written, ..bound }),
            Err(stop) => Err(stop),
        };
        if let Err(error) = opened {
            warn!(%error, "the interface port stays closed");
        }
    }
}

/// A change of an interface port that is to be settled or abandoned.
#[derive(Debug)]
pub struct Prepared {
    to: To,
    /// What had to be closed for it.
    closed: Option<Closed>,
}

impl Prepared {
    /// Where it will be.
    pub fn listening(&self) -> Vec<Address> {
        match &self.to {
            To::Stay(listening) => listening.clone(),
            To::Close => Vec::new(),
            To::Move(bound) => bound.listening(),
        }
    }
}

#[derive(Debug)]
enum To {
    Stay(Vec<Address>),
    Close,
    Move(Bound),
}

/// An interface port that was closed: as it was written, and with the port that it had.
#[derive(Debug)]
struct Closed {
    written: Address,
    at: Address,
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use tokio::sync::mpsc;

    use super::*;
    use crate::crypto::Random;
    use crate::model::Limits;

    #[tokio::test]
    async fn it_is_opened_moved_and_closed_as_wanted_and_stays_where_it_can() {
        let dir = tempfile::tempdir().expect("a directory");
        let (events, _received) = mpsc::channel(16);
        let server = Server::new(&Limits::default(), events);
        let identity = Arc::new(Identity::generate(&mut Random::from_seed([1; 32])));
        let mut port = InterfacePort::new(identity, dir.path().to_owned(), server);
        let free = |ip: &str| {
            let socket = std::net::TcpListener::bind((ip, 0)).expect("a free port");
            Address::from(socket.local_addr().expect("bound"))
        };
        let answers =
            |address: &Address| TcpStream::connect((address.host(), address.port())).is_ok();
        let first = free("127.0.0.1");
        let apply = async |port: &mut InterfacePort, to: Option<&Address>| {
            let prepared = port.prepare(to, &[]).await?;
            let listening = prepared.listening();
            port.settle(prepared).await?;
            assert_eq!(port.listening(), listening);
            Ok::<(), Stop>(())
        };
        apply(&mut port, Some(&first)).await.expect("free");
        assert_eq!(port.listening(), std::slice::from_ref(&first));
        assert!(answers(&first));
        assert!(dir.path().join("interface-token").exists());

        // The same port on all addresses: the one before is in its way.
        let all = Address::new("0.0.0.0", first.port()).expect("an address");
        let prepared = port.prepare(Some(&all), &[]).await.expect("free again");
        port.abandon(prepared).await;
        assert_eq!(port.listening(), std::slice::from_ref(&first), "as before");
        apply(&mut port, Some(&all)).await.expect("free again");
        assert_eq!(port.listening(), std::slice::from_ref(&all));

        let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let taken = Address::from(other.local_addr().expect("bound"));
        let stop = port.prepare(Some(&taken), &[]).await.expect_err("taken");
        assert!(stop.message.contains("stop what listens there"), "{stop}");
        assert_eq!(port.listening(), [all], "as before");
        assert!(answers(&first));
        // Any port: the one that it has is the one that it keeps.
        let any = Address::new("127.0.0.1", 0).expect("an address");
        apply(&mut port, Some(&any)).await.expect("free");
        let at = port.listening();
        port.prepare(Some(&taken), &[]).await.expect_err("taken");
        let same = Address::new("0.0.0.0", at[0].port()).expect("an address");
        let prepared = port.prepare(Some(&same), &[]).await.expect("free");
        port.abandon(prepared).await;
        assert_eq!((port.listening(), port.wanted()), (at, Some(&any)));

        // Peers are to be listened to where it is: it goes at once, and comes back if that fails.
        let own = port.listening();
        let prepared = port.prepare(None, &own).await.expect("closed");
        assert!(!answers(&own[0]));
        port.abandon(prepared).await;
        assert!(answers(&own[0]), "as before");

        drop(other);
        apply(&mut port, None).await.expect("closed");
        assert!(port.listening().is_empty() && !answers(&first));
    }
}
