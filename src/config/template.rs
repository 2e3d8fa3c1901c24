//! The text of a new configuration file.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::limits::KEYS as LIMIT_KEYS;
use super::{Config, INTERFACE_PORT_SUGGESTED, LINKS_AUTO_DEFAULT, Network, interface_on_loopback};
use crate::model::{Address, Limits, Name};

/// What a new configuration says: the answers to the setup questions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setup {
    /// The node's name.
    pub name: Option<Name>,
    /// Where it accepts links.
    pub listen: Vec<Address>,
    /// Where others reach it.
    pub advertise: Vec<Address>,
    /// Who may be a neighbour.
    pub network: Network,
    /// A closed network's key, if it is not in the state directory. Absolute.
    pub network_key_file: Option<PathBuf>,
    /// Where control clients are served over TCP on this machine, if they are.
    pub interface_port: Option<u16>,
    /// Links it makes by itself.
    pub links_auto: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            name: None,
            listen: Config::listen_default(),
            advertise: Vec::new(),
            network: Network::Open,
            network_key_file: None,
            interface_port: None,
            links_auto: LINKS_AUTO_DEFAULT,
        }
    }
}

impl Setup {
    /// The file's text, with every key explained; keys that are left at their default are
    /// commented out.
    pub fn to_toml(&self) -> String {
        let mut out = String::from(HEAD);
        let name = self.name.as_ref().map(|name| quoted(name.as_str()));
        section(&mut out, NAME, "name", name, "\"my-machine\"");
        section(&mut out, LISTEN, "listen", Some(list(&self.listen)), "");
        let advertise = (!self.advertise.is_empty()).then(|| list(&self.advertise));
        section(&mut out, ADVERTISE, "advertise", advertise, "[\"node.example.org:3000\"]");
        section(&mut out, NETWORK, "network", Some(quoted(self.network.word())), "");
        let file = self.network_key_file.as_ref().map(|file| quoted(&file.to_string_lossy()));
        section(&mut out, KEY_FILE, "network_key_file", file, "\"/etc/distmsg/network.key\"");
        section(&mut out, LOG, "log", None, "\"info\"");
        out.push_str(INTERFACE);
        let quoted_address = |port| quoted(&interface_on_loopback(port).to_string());
        let address = self.interface_port.map(quoted_address);
        let example = quoted_address(INTERFACE_PORT_SUGGESTED);
        section(&mut out, INTERFACE_ADDRESS, "address", address, &example);
        out.push_str(LINKS);
        section(&mut out, AUTO, "auto", Some(self.links_auto.to_string()), "");
        out.push_str(LIMITS);
        for key in LIMIT_KEYS {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "# {} = {}", key.name, (key.value)(&Limits::default()));
        }
        out
    }
}

const HEAD: &str = "# Configuration of a distmsg node: distmsg.toml(5) explains every key, and\n\
                    # 'distmsg check' tells whether it is right.\n";
const NAME: &str = "What this node calls itself. Others may call it otherwise.";
const LISTEN: &str = "Where this node accepts links. Before it listens for other machines, choose\n\
                      # who may link (network, below).";
const ADVERTISE: &str = "Where others reach this node, if that is not where it listens: a\n\
                         # router's address, or a host name, which is looked up at each dial.";
const NETWORK: &str = "Who may link: \"open\" (anybody) or \"closed\" (only who has the\n\
                       # network's key). Either way only the recipient can read a message.";
const KEY_FILE: &str = "The key of a closed network, mode 0600; by default network.key in the\n\
                        # state directory, made at the first start. It never stands here itself.";
const LOG: &str = "How much is logged: error, warn, info, debug or trace.";
const INTERFACE: &str = "\n[interface]\n";
const INTERFACE_ADDRESS: &str = "Where programs may use this node over TCP, with the token\n\
                                 # in its state directory: on 127.0.0.1, [::1] and localhost in\n\
                                 # clear text or over TLS, anywhere else over TLS only. Without\n\
                                 # an address there is the Unix socket alone.";
const LINKS: &str = "\n[links]\n";
const AUTO: &str =
    "How many links this node makes by itself, to peers that nobody connected (0 to 64).";
const LIMITS: &str = "\n# What this node takes and keeps at most: bytes, numbers, and seconds in\n\
                      # what ends in _s. These are the defaults.\n[limits]\n";

/// A key with its explanation, commented out when there is no value.
fn section(out: &mut String, about: &str, key: &str, value: Option<String>, example: &str) {
    let gap = if out.ends_with("]\n") { "" } else { "\n" };
    // Writing to a string cannot fail.
    let _ = match value {
        Some(value) => writeln!(out, "{gap}# {about}\n{key} = {value}"),
        None => writeln!(out, "{gap}# {about}\n# {key} = {example}"),
    };
}

fn list(addresses: &[Address]) -> String {
    let quoted: Vec<String> = addresses.iter().map(|a| quoted(&a.to_string())).collect();
    format!("[{}]", quoted.join(", "))
}

/// A TOML string, escaped as needed.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn address() -> impl Strategy<Value = Address> {
        let host = prop_oneof![
            "[a-z]{1,9}(\\.[a-z][a-z0-9]{0,5}){0,2}",
            any::<std::net::Ipv4Addr>().prop_map(|ip| ip.to_string()),
            any::<std::net::Ipv6Addr>().prop_map(|ip| ip.to_string()),
        ];
        (host, 1..=u16::MAX).prop_filter_map("an address that can be dialled", |(host, port)| {
            let address = Address::new(&host, port).ok()?;
            super::super::address_to_advertise(&address.to_string()).ok()
        })
    }

    fn addresses(least: usize) -> impl Strategy<Value = Vec<Address>> {
        proptest::collection::btree_set(address(), least..=4)
            .prop_map(|set| set.into_iter().collect())
    }

    prop_compose! {
        fn setup()(
            name in proptest::option::of("[a-zé0-9][a-zA-Z0-9._ß-]{0,30}"),
            listen in addresses(0),
            advertise in addresses(0),
            closed: bool,
            file in proptest::option::of("/[ -~\\t\n\u{1}é'\"\\\\]{0,40}"),
            interface_port in proptest::option::of(1..=u16::MAX),
            links_auto in 0..=64_usize,
        ) -> Setup {
            Setup {
                name: name.and_then(|name| name.parse().ok()),
                listen,
                advertise,
                network: if closed { Network::Closed } else { Network::Open },
                network_key_file: file.filter(|_| closed).map(PathBuf::from),
                interface_port,
                links_auto,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(setup in setup()) {
            let text = setup.to_toml();
            let config = match Config::parse(&text, Path::new("config.toml")) {
                Ok(config) => config,
                Err(problems) => panic!("{problems}\n{text}"),
            };
            let Setup {
                name, listen, advertise, network, network_key_file, interface_port, links_auto,
            } = setup;
            let interface = interface_port.map(interface_on_loopback);
            let expected = Config {
                name, listen, advertise, network, network_key_file, interface, links_auto,
                ..Config::default()
            };
            prop_assert_eq!(config, expected);
        }
    }

    #[test]
    fn what_is_commented_out_is_right_when_the_comment_is_taken_off() {
        let text = Setup { network: Network::Closed, ..Setup::default() }.to_toml();
        let shown: String = text
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(key) if key.split(' ').nth(1) == Some("=") => format!("{key}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let config = Config::parse(&shown, Path::new("config.toml"));
        let config = config.unwrap_or_else(|problems| panic!("{problems}\n{shown}"));
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.interface, Some(interface_on_loopback(8080)));
        assert_eq!(config.name.map(|name| name.to_string()).as_deref(), Some("my-machine"));
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }
}
