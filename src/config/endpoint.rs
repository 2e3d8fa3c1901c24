//! How a client reaches its daemon: through the Unix socket, or by the TCP interface port.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{Environment, Problems, SocketFrom, SocketPath};
use crate::model::{InterfaceAddress, InterfaceAddressError};

/// The token's file in a state directory.
pub const TOKEN_FILE: &str = "interface-token";
/// The state directory of the system service.
const SYSTEM_STATE: &str = "/var/lib/distmsg";

/// What a command line says of the way to the daemon.
#[derive(Clone, Copy, Debug, Default)]
pub struct EndpointFlags<'a> {
    /// `--socket`.
    pub socket: Option<&'a Path>,
    /// `--interface`.
    pub interface: Option<&'a InterfaceAddress>,
    /// `--token-file`.
    pub token_file: Option<&'a Path>,
    /// `--config`.
    pub config: Option<&'a Path>,
}

/// The way to the daemon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// Through a Unix socket.
    Socket(SocketPath),
    /// By an interface port.
    Interface(InterfaceEndpoint),
}

/// An interface port, and where its token may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InterfaceEndpoint {
    /// Where it is, and who must answer.
    pub address: InterfaceAddress,
    /// `DISTMSG_INTERFACE_ADDR` named it, not the command line.
    pub by_variable: bool,
    /// The token's file.
    pub token: TokenFile,
}

/// Where a token is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenFile {
    /// Somebody named it.
    Named(PathBuf),
    /// Nobody did: a daemon of this machine has its own in its state directory, the user's or the
    /// system's.
    Usual(Vec<PathBuf>),
    /// Nobody did, and the daemon is on another machine. This one's token is not for it.
    Unnamed,
}

/// Why there is no way to the daemon.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// The configuration file is wrong.
    #[error(transparent)]
    Config(#[from] Problems),
    /// `DISTMSG_INTERFACE_ADDR` is wrong.
    #[error("DISTMSG_INTERFACE_ADDR: {0}")]
    Variable(InterfaceAddressError),
    /// It is not even text.
    #[error("DISTMSG_INTERFACE_ADDR: not UTF-8; write [PEER_ID@]HOST:PORT")]
    VariableText,
    /// A token where none is needed.
    #[error(
        "--token-file is for the TCP interface port; name that with --interface, or leave it out"
    )]
    TokenForSocket,
}

impl Environment {
    /// What a client uses: flag, then `DISTMSG_SOCKET`, then `DISTMSG_INTERFACE_ADDR`, then the
    /// socket of the configuration file or a usual one.
    ///
    /// # Errors
    /// When what was said is wrong.
    pub fn client_endpoint(&self, flags: EndpointFlags<'_>) -> Result<Endpoint, EndpointError> {
        if let Some(address) = flags.interface {
            return Ok(self.interface(address.clone(), false, flags.token_file));
        }
        if flags.socket.is_none()
            && self.var("DISTMSG_SOCKET").is_none()
            && let Some(text) = self.var("DISTMSG_INTERFACE_ADDR")
        {
            let text = text.to_str().ok_or(EndpointError::VariableText)?;
            let address = text.parse().map_err(EndpointError::Variable)?;
            return Ok(self.interface(address, true, flags.token_file));
        }
        if flags.token_file.is_some() {
            return Err(EndpointError::TokenForSocket);
        }
        Ok(Endpoint::Socket(self.client_socket(flags.socket, flags.config)?))
    }

    fn interface(
        &self,
        address: InterfaceAddress,
        by_variable: bool,
        token_file: Option<&Path>,
    ) -> Endpoint {
        let named = token_file.map(Path::to_owned);
        let token = match named.or_else(|| self.var("DISTMSG_TOKEN_FILE").map(PathBuf::from)) {
            Some(path) => TokenFile::Named(path),
            None if address.address().is_loopback() => {
                let directories = self.user_state_dir().into_iter().chain([SYSTEM_STATE.into()]);
                TokenFile::Usual(directories.map(|dir| dir.join(TOKEN_FILE)).collect())
            }
            None => TokenFile::Unnamed,
        };
        Endpoint::Interface(InterfaceEndpoint { address, by_variable, token })
    }
}

impl Endpoint {
    /// A socket that somebody named.
    pub const fn socket(path: PathBuf) -> Self {
        Self::Socket(SocketPath::named(path, SocketFrom::Flag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "dm1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs4lhh9s";

    fn environment(vars: &[(&str, &str)]) -> Environment {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), value.into())).collect();
        Environment { vars, home: Some("/home/u".into()), uid: 1000, temp_dir: "/none".into() }
    }

    fn shown(endpoint: &Endpoint) -> String {
        match endpoint {
            Endpoint::Socket(socket) => socket.path.display().to_string(),
            Endpoint::Interface(interface) => interface.address.to_string(),
        }
    }

    #[test]
    fn the_flag_counts_before_the_socket_variable_and_that_before_the_interface_variable() {
        let all = [("DISTMSG_SOCKET", "/v"), ("DISTMSG_INTERFACE_ADDR", "127.0.0.1:1")];
        let flag: InterfaceAddress = "localhost:2".parse().expect("an address");
        let none = EndpointFlags::default();
        for (vars, flags, expected) in [
            (&all[..], EndpointFlags { interface: Some(&flag), ..none }, "localhost:2"),
            (&all[..], EndpointFlags { socket: Some(Path::new("/f")), ..none }, "/f"),
            (&all[1..], EndpointFlags { socket: Some(Path::new("/f")), ..none }, "/f"),
            (&all[..], none, "/v"),
            (&all[1..], none, "127.0.0.1:1"),
            (&[], none, "/run/distmsg/socket"),
        ] {
            let found = environment(vars).client_endpoint(flags).expect(expected);
            assert_eq!(shown(&found), expected);
        }
    }

    #[test]
    fn a_variable_that_is_wrong_is_named() {
        let error = |text: &str| {
            let found = environment(&[("DISTMSG_INTERFACE_ADDR", text)]);
            found.client_endpoint(EndpointFlags::default()).expect_err(text).to_string()
        };
        assert!(
            error("x").starts_with("DISTMSG_INTERFACE_ADDR: the port is missing"),
            "{}",
            error("x")
        );
        let remote = error("192.0.2.7:1");
        assert!(remote.contains("write PEER_ID@192.0.2.7:1"), "{remote}");
    }

    #[test]
    fn the_token_is_where_somebody_says_or_with_the_daemon_of_this_machine() {
        let token = |vars: &[_], address: &str, flag: Option<&str>| {
            let address = address.parse().expect(address);
            let token_file = flag.map(Path::new);
            let flags =
                EndpointFlags { interface: Some(&address), token_file, ..EndpointFlags::default() };
            match environment(vars).client_endpoint(flags).expect("a way") {
                Endpoint::Interface(found) => found.token,
                Endpoint::Socket(_) => panic!("the interface port was named"),
            }
        };
        let named = |path: &str| TokenFile::Named(path.into());
        let vars = [("DISTMSG_TOKEN_FILE", "/v")];
        let remote = format!("{PEER}@192.0.2.7:1");
        for address in ["127.0.0.1:1", &remote] {
            assert_eq!(token(&vars, address, Some("/f")), named("/f"));
            assert_eq!(token(&vars, address, None), named("/v"));
        }
        let usual = ["/home/u/.local/state/distmsg", "/var/lib/distmsg"];
        let usual = usual.map(|dir| PathBuf::from(dir).join("interface-token")).to_vec();
        for address in ["[::1]:1", &format!("{PEER}@localhost:1")] {
            assert_eq!(token(&[], address, None), TokenFile::Usual(usual.clone()));
        }
        assert_eq!(token(&[], &remote, None), TokenFile::Unnamed);
        let flags = EndpointFlags { token_file: Some(Path::new("/f")), ..EndpointFlags::default() };
        let error = environment(&[]).client_endpoint(flags).expect_err("no interface").to_string();
        assert!(error.contains("name that with --interface"), "{error}");
    }
}
