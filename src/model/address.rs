//! Where a node listens or can be dialled.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

use super::excerpt;
use super::limits::HOST_BYTES_MAX;

/// A host (name or IP address) and a TCP port: `example.org:3000`, `192.0.2.7:3000`,
/// `[2001:db8::7]:3000`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    host: Box<str>,
    port: u16,
}

/// What follows an IPv6 address without brackets is a port from here on; below, it is the address's
/// last group.
const PORT_MEANT_MIN: u16 = 80;
/// Characters of what is no host that are shown.
const HOST_SHOWN_MAX: usize = 64;

impl Address {
    /// The port used where an address names none.
    pub const PORT_DEFAULT: u16 = 3000;

    /// An address of a host, which must be an IP address (without brackets) or a DNS name.
    ///
    /// # Errors
    /// When the host is neither, or is longer than 253 bytes.
    pub fn new(host: &str, port: u16) -> Result<Self, AddressError> {
        let host = match host.parse::<IpAddr>() {
            Ok(ip) => ip.to_string().into(),
            Err(_) if is_dns_name(host) => host.to_ascii_lowercase().into(),
            Err(_) => return Err(AddressError::host(host)),
        };
        Ok(Self { host, port })
    }

    /// `HOST[:PORT]`, with port 3000 where none is given. An IPv6 address stands in brackets.
    ///
    /// # Errors
    /// When host or port is not valid.
    pub fn parse_with_default_port(text: &str) -> Result<Self, AddressError> {
        let (host, port) = split(text)?;
        Self::new(host, port.unwrap_or(Self::PORT_DEFAULT))
    }

    /// The host: an IP address without brackets, or a DNS name in lower case.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port. 0 means, when listening, any free one.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The host as an IP address, unless it is a name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether this names the machine itself and nothing else.
    pub fn is_loopback(&self) -> bool {
        match self.ip() {
            Some(ip) => ip.is_loopback(),
            None => &*self.host == "localhost",
        }
    }

    /// Whether this and another cannot both be listened on: the same port of the same host, or of
    /// all addresses of a kind and one among them. On port 0 there is always room.
    pub fn collides_with(&self, other: &Self) -> bool {
        let hosts_collide = match (self.ip(), other.ip()) {
            (Some(a), Some(b)) => {
                let any = a.is_unspecified() || b.is_unspecified();
                a == b || (any && a.is_ipv4() == b.is_ipv4())
            }
            _ => self.host == other.host,
        };
        self.port != 0 && self.port == other.port && hosts_collide
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_canonical().to_string().into(), port: address.port() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            f.pad(&format!("[{}]:{}", self.host, self.port))
        } else {
            f.pad(&format!("{}:{}", self.host, self.port))
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Neither an IP address nor a DNS name: its beginning, safe for one line.
    #[error(
        "'{0}' is neither an IP address nor a host name; write HOST:PORT, with IPv6 addresses in \
         brackets"
    )]
    Host(String),
    /// An IPv6 address without brackets: its end could be a port. With them, as it is likely meant.
    #[error("an IPv6 address stands in brackets; write {0}")]
    Brackets(String),
    /// The port is missing.
    #[error("the port is missing; write HOST:PORT")]
    PortMissing,
    /// The port is no number from 0 to 65535.
    #[error("the port is not a number from 0 to 65535")]
    Port,
}

impl AddressError {
    /// No host, as much of it as helps, safe for one line.
    fn host(text: &str) -> Self {
        Self::Host(excerpt(text, HOST_SHOWN_MAX))
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = split(text)?;
        Self::new(host, port.ok_or(AddressError::PortMissing)?)
    }
}

/// Host and port of `HOST[:PORT]`.
fn split(text: &str) -> Result<(&str, Option<u16>), AddressError> {
    let port_of = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
        true => text.parse().map(Some).map_err(|_| AddressError::Port),
        false => Err(AddressError::Port),
    };
    if let Some(inner) = text.strip_prefix('[') {
        let host_error = || AddressError::host(text);
        let (host, rest) = inner.split_once(']').ok_or_else(host_error)?;
        host.parse::<Ipv6Addr>().map_err(|_| host_error())?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, port_of(port)?)),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(host_error()),
        };
    }
    if let Some(meant) = bracketed(text) {
        return Err(AddressError::Brackets(meant.to_string()));
    }
    match text.rsplit_once(':') {
        Some((host, port)) => Ok((host, port_of(port)?)),
        None => Ok((text, None)),
    }
}

/// The address meant by an IPv6 address without brackets. What can be a port after an address is
/// one: nobody leaves out the brackets for the sake of a host alone.
fn bracketed(text: &str) -> Option<Address> {
    let ip = |host: &str| host.parse::<Ipv6Addr>().ok().map(|ip| ip.to_string().into());
    let with_port = text.rsplit_once(':').and_then(|(host, port)| {
        let port = port.parse().ok().filter(|port: &u16| *port >= PORT_MEANT_MIN)?;
        Some(Address { host: ip(host)?, port })
    });
    with_port.or_else(|| Some(Address { host: ip(text)?, port: Address::PORT_DEFAULT }))
}

/// A name by RFC 1123: labels of 1 to 63 letters, digits and inner hyphens. All-digit names are no
/// names: `1.2.3` is a mistyped address.
fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    !text.is_empty()
        && text.len() <= HOST_BYTES_MAX
        && text.split('.').all(label)
        && !text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_and_printed() {
        for (given, printed) in [
            ("127.0.0.1:3000", "127.0.0.1:3000"),
            ("Example.ORG:1", "example.org:1"),
            ("[::1]:3000", "[::1]:3000"),
            ("[2001:DB8:0::7]:65535", "[2001:db8::7]:65535"),
            ("localhost:0", "localhost:0"),
        ] {
            assert_eq!(given.parse::<Address>().map(|a| a.to_string()), Ok(printed.to_owned()));
        }
        for text in ["127.0.0.1", "[::1]", "example.org"] {
            assert_eq!(text.parse::<Address>(), Err(AddressError::PortMissing), "{text}");
            assert!(Address::parse_with_default_port(text).is_ok_and(|a| a.port() == 3000));
        }
        for bad in [
            "",
            ":1",
            "a b:1",
            "1.2.3:4",
            "256.1.1.1:2",
            "-x:1",
            "x:",
            "x:+1",
            "x:65536",
            "[x]:1",
            "[::1]x:1",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_host_is_shown_in_one_line() {
        for text in ["a\tb\u{1b}[2J\n:1", "[a\tb\u{1b}[2J\n]:1"] {
            let error = text.parse::<Address>().expect_err("no host").to_string();
            assert!(error.contains(r"a\tb\u{1b}[2J\n"), "{error}");
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }

    #[test]
    fn an_ipv6_address_without_brackets_is_refused_and_shown_with_them() {
        for (text, meant) in [
            ("::1", "[::1]:3000"),
            ("::1:3000", "[::1]:3000"),
            // Too long for a group of the address.
            ("::1:30000", "[::1]:30000"),
            ("2001:db8::7", "[2001:db8::7]:3000"),
            ("2001:db8::7:443", "[2001:db8::7]:443"),
            ("1:2:3:4:5:6:7:8", "[1:2:3:4:5:6:7:8]:3000"),
            ("1:2:3:4:5:6:7:8:9000", "[1:2:3:4:5:6:7:8]:9000"),
            ("fe80::1:abcd", "[fe80::1:abcd]:3000"),
        ] {
            let error = AddressError::Brackets(meant.to_owned());
            assert_eq!(Address::parse_with_default_port(text), Err(error.clone()), "{text}");
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
        }
    }

    #[test]
    fn loopback_is_recognised() {
        for (text, loopback) in [
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("localhost:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
        ] {
            assert_eq!(text.parse::<Address>().map(|a| a.is_loopback()), Ok(loopback), "{text}");
        }
    }
    #[test]
    fn addresses_collide_that_cannot_both_be_listened_on() {
        for (a, b, collide) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("127.0.0.1:1", "0.0.0.0:1", true),
            ("[::1]:1", "[::]:1", true),
            ("127.0.0.1:1", "[::]:1", false),
            ("localhost:1", "localhost:1", true),
            ("localhost:0", "localhost:0", false),
            ("127.0.0.1:0", "0.0.0.0:0", false),
        ] {
            let [x, y]: [Address; 2] = [a, b].map(|text| text.parse().expect(text));
            assert_eq!((x.collides_with(&y), y.collides_with(&x)), (collide, collide), "{a} {b}");
        }
    }
}
