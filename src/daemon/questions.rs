//! The setup questions, asked of a person at a terminal.

use std::fmt::Display;
use std::io::{self, BufRead, Read as _, Write};
use std::path::{Path, PathBuf};

use super::args::{InterfacePort, interface_port};
use super::exit::Stop;
use super::secrets::{SecretError, network_key_in};
use crate::config::{ADDRESSES_MAX, Network, address_to_listen};
use crate::model::{Address, Name, escaped, plainly};

/// Bytes of one answer.
const ANSWER_BYTES_MAX: u64 = 4 * 1024;

/// A conversation: answers come in, questions go out.
pub(super) struct Questions<'a> {
    pub(super) answers: &'a mut dyn BufRead,
    pub(super) out: &'a mut dyn Write,
}

impl Questions<'_> {
    /// What the node calls itself.
    pub(super) fn name(&mut self, default: Option<&Name>) -> Result<Option<Name>, Stop> {
        let shown = default.map(ToString::to_string).unwrap_or_default();
        self.ask("Name of this node", &shown, |text| match text {
            "" => Ok(None),
            text => text.parse().map(Some),
        })
    }

    /// Where it accepts links.
    pub(super) fn listen(&mut self, default: &[Address]) -> Result<Vec<Address>, Stop> {
        self.note("Other machines reach this node only if it listens on more than 127.0.0.1;")?;
        self.note("0.0.0.0:3000 is every IPv4 address of this machine.")?;
        let shown: Vec<String> = default.iter().map(ToString::to_string).collect();
        self.ask("Listen on (HOST[:PORT], several with spaces)", &shown.join(" "), |text| {
            let addresses: Vec<Address> = text
                .split([' ', ',', '\t'])
                .filter(|part| !part.is_empty())
                .map(address_to_listen)
                .collect::<Result<_, _>>()?;
            match addresses.len() {
                0 => Err("write at least one address".to_owned()),
                n if n > ADDRESSES_MAX => Err(format!("at most {ADDRESSES_MAX} addresses")),
                _ => Ok(addresses),
            }
        })
    }

    /// Who may be a neighbour.
    pub(super) fn network(&mut self, default: Network) -> Result<Network, Stop> {
        self.note("In an open network anybody may link with this node, in a closed one only who")?;
        self.note("has the network's key. Either way only its recipient can read a message.")?;
        self.ask("Network, open or closed", default.word(), |text| {
            text.to_ascii_lowercase().parse::<Network>()
        })
    }

    /// Which key a closed network has: none means that a new one is made. `home` is what a path may
    /// begin with as `~`.
    pub(super) fn network_key(&mut self, home: Option<&Path>) -> Result<Option<PathBuf>, Stop> {
        self.note(
            "To found a network, let a new key be made. To join one that exists, bring a copy",
        )?;
        self.note("of network.key from a machine that is in it, and write where it is.")?;
        self.ask("The network's key, new or a file", "new", |text| {
            if text.eq_ignore_ascii_case("new") {
                return Ok(None);
            }
            let file = match (text.strip_prefix("~/"), home) {
                (Some(rest), Some(home)) => home.join(rest),
                _ => std::path::absolute(text).map_err(|error| plainly(&error))?,
            };
            match (network_key_in(&file), file.to_str()) {
                (_, None) => Err("the path is not UTF-8; name another".to_owned()),
                (Err(SecretError::Missing(path)), _) => {
                    Err(format!("{} does not exist; write 'new', or its path", path.display()))
                }
                (Err(error), _) => Err(error.to_string()),
                (Ok(_), Some(_)) => Ok(Some(file)),
            }
        })
    }

    /// Where programs may use the node over TCP.
    pub(super) fn interface_port(&mut self) -> Result<Option<u16>, Stop> {
        self.note("Programs use this node through a Unix socket. Those that cannot may use a TCP")?;
        self.note("port of 127.0.0.1 with a token, 8080 for example; most nodes need none.")?;
        self.ask("TCP interface port, a number or none", "none", interface_port)
            .map(|InterfacePort(port)| port)
    }

    fn note(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// Asks until the answer is one; an empty one is the default.
    fn ask<T, E: Display>(
        &mut self,
        question: &str,
        default: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<T, Stop> {
        loop {
            match default {
                "" => write!(self.out, "{question}: ")?,
                default => write!(self.out, "{question} [{default}]: ")?,
            }
            self.out.flush()?;
            let answer = self.answer()?;
            let answer = match answer.trim() {
                "" => default,
                answer => answer,
            };
            match parse(answer) {
                Ok(parsed) => return Ok(parsed),
                Err(error) => writeln!(self.out, "  {}", escaped(&error.to_string()))?,
            }
        }
    }

    fn answer(&mut self) -> Result<String, Stop> {
        let unreadable = |error| Stop::failure(format_args!("cannot read the answer: {error}"));
        let mut bytes = Vec::new();
        let mut bounded = (&mut *self.answers).take(ANSWER_BYTES_MAX);
        bounded.read_until(b'\n', &mut bytes).map_err(unreadable)?;
        if bytes.last() != Some(&b'\n') {
            // The end of the input (ctrl-D) is no answer, and neither is half of one.
            writeln!(self.out)?;
            return Err(Stop::failure("no answer; nothing was written"));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked<T>(
        answers: &str,
        ask: impl FnOnce(&mut Questions<'_>) -> Result<T, Stop>,
    ) -> (Result<T, Stop>, String) {
        let mut out = Vec::new();
        let mut answers = answers.as_bytes();
        let result = ask(&mut Questions { answers: &mut answers, out: &mut out });
        (result, String::from_utf8(out).expect("text"))
    }

    #[test]
    fn an_empty_answer_is_the_default_shown() {
        let name: Name = "alice".parse().expect("a name");
        let (answer, shown) = asked("\n", |q| q.name(Some(&name)));
        assert_eq!(answer, Ok(Some(name)));
        assert_eq!(shown, "Name of this node [alice]: ");
        let (answer, shown) = asked("\r\n", |q| q.name(None));
        assert_eq!((answer, &*shown), (Ok(None), "Name of this node: "));
        let default = [Address::new("127.0.0.1", 3000).expect("an address")];
        let (answer, shown) = asked("\n", |q| q.listen(&default));
        assert_eq!(answer, Ok(default.to_vec()));
        assert!(shown.ends_with(" [127.0.0.1:3000]: "), "{shown}");
        let (answer, shown) = asked("\n", |q| q.network(Network::Closed));
        assert_eq!(answer, Ok(Network::Closed));
        assert!(shown.ends_with("Network, open or closed [closed]: "), "{shown}");
    }

    #[test]
    fn a_wrong_answer_is_explained_and_asked_again() {
        let (answer, shown) = asked("x:y\n0.0.0.0, [::]:4000\n", |q| q.listen(&[]));
        assert_eq!(format!("{:?}", answer.expect("addresses")), "[0.0.0.0:3000, [::]:4000]");
        assert!(shown.contains("  the port is not a number"), "{shown}");
        assert_eq!(shown.matches("Listen on").count(), 2, "{shown}");
        let (answer, _) = asked("what\nOpen\n", |q| q.network(Network::Closed));
        assert_eq!(answer, Ok(Network::Open));
    }

    #[test]
    fn there_is_no_interface_port_unless_one_is_named() {
        let (answer, shown) = asked("\n", |q| q.interface_port());
        assert_eq!(answer, Ok(None));
        assert!(shown.contains("8080"), "{shown}");
        assert!(shown.ends_with("TCP interface port, a number or none [none]: "), "{shown}");
        let (answer, shown) = asked("0\nNone\n", |q| q.interface_port());
        assert_eq!(answer, Ok(None));
        assert!(shown.contains("  write a port from 1 to 65535, or none\n"), "{shown}");
        assert_eq!(asked("8080\n", |q| q.interface_port()).0, Ok(Some(8080)));
    }

    #[test]
    fn a_network_has_a_new_key_or_that_of_its_members() {
        use std::os::unix::fs::PermissionsExt as _;

        let (answer, shown) = asked("\n", |q| q.network_key(None));
        assert_eq!(answer, Ok(None));
        assert!(shown.ends_with("The network's key, new or a file [new]: "), "{shown}");
        let home = tempfile::tempdir().expect("a directory");
        let file = home.path().join("k");
        std::fs::write(&file, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").expect("written");
        let mode = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&file, permissions).expect("set");
        };
        mode(0o644);
        let (answer, shown) = asked("~/none\n~/k\nNEW\n", |q| q.network_key(Some(home.path())));
        assert_eq!(answer, Ok(None));
        assert!(shown.contains("/none does not exist; write 'new', or its path"), "{shown}");
        assert!(shown.contains("chmod 600"), "{shown}");
        mode(0o600);
        let (answer, _) = asked("~/k\n", |q| q.network_key(Some(home.path())));
        assert_eq!(answer, Ok(Some(file.clone())));
        let (answer, _) = asked(&format!("{}\n", file.display()), |q| q.network_key(None));
        assert_eq!(answer, Ok(Some(file.clone())));
    }

    #[test]
    fn the_end_of_the_input_is_no_answer() {
        for input in ["", "ali"] {
            let (answer, _) = asked(input, |q| q.name(None));
            assert_eq!(answer, Err(Stop::failure("no answer; nothing was written")));
        }
        let (answer, _) = asked(&"x".repeat(100_000), |q| q.name(None));
        assert!(answer.is_err(), "an endless line is no answer");
    }
}
