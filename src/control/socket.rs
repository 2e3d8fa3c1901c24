//! The Unix domain socket that clients on this machine use.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use interprocess::local_socket::tokio::{Listener, Stream, prelude::*};
use interprocess::local_socket::{GenericFilePath, ListenerOptions};
use interprocess::os::unix::local_socket::ListenerOptionsExt as _;
use interprocess::os::unix::uds_local_socket::tokio::Listener as UdsListener;
use thiserror::Error;
use tracing::warn;

use super::server::Server;
use crate::model::limits::SOCKET_PATH_BYTES_MAX;
use crate::model::plainly;

/// After an accept failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A listening control socket. Its file is removed when this is dropped, if we made it and it is
/// still ours.
#[derive(Debug)]
pub struct ControlSocket {
    listener: Listener,
    path: PathBuf,
    maker: Maker,
    /// Device and inode of its file: another daemon's is not ours to remove. While we listen they
    /// are nobody else's. None if a socket that was handed over has no file.
    file: Option<(u64, u64)>,
}

/// Who made a socket, and so has its file to care for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maker {
    /// We did, with this mode.
    Us(u32),
    /// Whoever started us: the file, its mode and its end are theirs. They keep listening while we
    /// do not run, and so no client is refused then.
    Starter,
}

/// Why there is no control socket.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another daemon answers there.
    #[error(
        "{0} is in use: another daemon answers there; stop it, or set another socket in the \
         configuration"
    )]
    InUse(PathBuf),
    /// Something else than a socket is there.
    #[error(
        "{0} is there and is not a socket; set another socket in the configuration (or move that \
         away, if nobody needs it there)"
    )]
    NotASocket(PathBuf),
    /// No socket can have this name.
    #[error(
        "{0} is too long for a socket, which has at most {SOCKET_PATH_BYTES_MAX} bytes; set a \
         shorter socket in the configuration"
    )]
    TooLong(PathBuf),
    /// The system does not let us use the socket that was handed over.
    #[error("cannot listen on the control socket {path}, which was handed over: {error}")]
    Adopt {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The system refuses.
    #[error(
        "cannot make the control socket {path}: {}; let this user write to its directory, or set \
         another socket in the configuration",
        plainly(error)
    )]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl ControlSocket {
    /// Listens at a path, with exactly this mode whatever the umask is. A socket that nobody
    /// answers at is replaced. A missing directory is made, for its owner only.
    ///
    /// # Errors
    /// When another daemon answers there, when something else is in the way, or when the system
    /// refuses.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, SocketError> {
        let failed = |error| SocketError::Io { path: path.to_owned(), error };
        if is_too_long(path) {
            return Err(SocketError::TooLong(path.to_owned()));
        }
        make_parent(path).map_err(failed)?;
        remove_stale(path)?;
        let (listener, file) = listen_at(path, mode).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned(), maker: Maker::Us(mode), file: Some(file) })
    }

    /// Uses a socket that listens already. Nothing is done to its file, now or later.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn adopt(listener: UnixListener) -> Result<Self, SocketError> {
        let address = listener.local_addr().ok();
        let path = address.as_ref().and_then(|address| address.as_pathname());
        // It may be in the abstract namespace; this is for people only.
        let path = path.map_or_else(|| PathBuf::from("(no path)"), Path::to_owned);
        let failed = |error| SocketError::Adopt { path: path.clone(), error };
        let listener = UdsListener::try_from(OwnedFd::from(listener)).map_err(failed)?;
        let file = identity_of(&path).ok();
        Ok(Self { listener: listener.into(), path, maker: Maker::Starter, file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves every client that comes, until it is dropped.
    pub async fn serve(mut self, server: Server) {
        let mut troubled = false;
        let mut told = false;
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = server.reminded() => {
                    self.look_after(&mut told);
                    continue;
                }
            };
            match accepted {
                Ok(stream) => {
                    troubled = false;
                    let server = server.clone();
                    tokio::spawn(async move { server.serve(stream).await });
                }
                Err(error) => {
                    if !troubled {
                        warn!(%error, "cannot accept control clients for now");
                    }
                    troubled = true;
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl ControlSocket {
    /// Makes the file again if somebody removed it: nobody could reach us any more, and we would
    /// not notice. What stands in its place is left alone, and so is a file that is not ours to
    /// make; that is told once.
    pub(super) fn look_after(&mut self, told: &mut bool) {
        if self.file.is_none() || self.is_in_place() {
            *told = false;
            return;
        }
        let Maker::Us(mode) = self.maker else {
            if !*told {
                *told = true;
                let path = self.path.display();
                warn!(%path, "clients cannot reach us: restart the socket unit, which made it");
            }
            return;
        };
        match make_parent(&self.path).and_then(|()| listen_at(&self.path, mode)) {
            Ok((listener, file)) => {
                (self.listener, self.file) = (listener, Some(file));
                *told = false;
                warn!(path = %self.path.display(), "the control socket was removed; made it again");
            }
            Err(error) if !*told => {
                *told = true;
                let path = self.path.display();
                warn!(%path, %error, "clients cannot reach us: the control socket is not ours now");
            }
            Err(_) => {}
        }
    }

    /// Whether the file that clients find is the one that we listen at.
    fn is_in_place(&self) -> bool {
        identity_of(&self.path).is_ok_and(|file| Some(file) == self.file)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if matches!(self.maker, Maker::Us(_)) && self.is_in_place() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn make_parent(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)
}

/// Listens where nothing is; what is there stays. Also tells the new file's device and inode.
fn listen_at(path: &Path, mode: u32) -> io::Result<(Listener, (u64, u64))> {
    let name = path.to_fs_name::<GenericFilePath>()?;
    // The mode is set before the name exists, so nobody gets in between.
    let options = ListenerOptions::new().name(name).reclaim_name(false).mode(mode);
    let listener = options.create_tokio()?;
    let file = fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .and_then(|()| identity_of(path))
        .inspect_err(|_| {
            // What we made and cannot use must not be in our own way next time.
            let _ = fs::remove_file(path);
        })?;
    Ok((listener, file))
}

/// Device and inode.
fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

fn is_too_long(path: &Path) -> bool {
    path.as_os_str().len() > SOCKET_PATH_BYTES_MAX
}

/// Connects to a daemon.
pub(super) async fn connect(path: &Path) -> io::Result<Stream> {
    if is_too_long(path) {
        let why = format!("a socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Stream::connect(path.to_fs_name::<GenericFilePath>()?).await
}

/// Removes a socket that nobody answers at.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |error| SocketError::Io { path: path.to_owned(), error };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}
