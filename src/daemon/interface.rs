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

    /// Has it at another address than before, or nowhere. Clients that came by the one before are
    /// gone then. Nothing changes where nothing is to change.
    ///
    /// # Errors
    /// When it cannot be there. Then it is where it was before, as far as that is possible.
    pub async fn apply(&mut self, wanted: Option<&Address>) -> Result<(), Stop> {
        if self.wanted() == wanted {
            return Ok(());
        }
        // First the old one: its port may be the one that is wanted.
        let before = self.close().await;
        let Some(wanted) = wanted else { return Ok(()) };
        let result = self.reopen(wanted).await;
        if let (Err(_), Some(before)) = (&result, before)
            && let Err(error) = self.reopen(&before).await
        {
            warn!(%error, "the interface port is closed");
        }
        result
    }

    async fn close(&mut self) -> Option<Address> {
        let (address, interface) = self.open.take()?;
        interface.stop().await;
        info!(interface = %address, "closed the interface port");
        Some(address)
    }

    async fn reopen(&mut self, address: &Address) -> Result<(), Stop> {
        let bound = Bound::at(address, &self.state_dir).await?;
        self.open(bound)
    }
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
        port.apply(Some(&first)).await.expect("free");
        assert_eq!(port.listening(), std::slice::from_ref(&first));
        assert!(answers(&first));
        assert!(dir.path().join("interface-token").exists());

        // The same port on all addresses: the one before is in its way.
        let all = Address::new("0.0.0.0", first.port()).expect("an address");
        port.apply(Some(&all)).await.expect("free again");
        assert_eq!(port.listening(), std::slice::from_ref(&all));

        let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let taken = Address::from(other.local_addr().expect("bound"));
        let stop = port.apply(Some(&taken)).await.expect_err("taken");
        assert!(stop.message.contains("stop what listens there"), "{stop}");
        assert_eq!(port.listening(), [all], "as before");
        assert!(answers(&first));
        drop(other);

        port.apply(None).await.expect("closed");
        assert!(port.listening().is_empty() && !answers(&first));
    }
}
