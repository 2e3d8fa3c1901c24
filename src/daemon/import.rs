//! `distmsg import`: a graph_message configuration turned into ours.
//!
//! It has lines `peer_id=`, `host=`, `port=`, `locale=` and `interface_port=`, then `peer_table=`
//! followed by a line `ID=ip:port` for each peer. Its IDs are not keys, so peers cannot be taken
//! over as they are: they are connected once more, and their old IDs become aliases.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write};
use std::path::Path;

use super::args::ImportArgs;
use super::exit::Stop;
use super::init;
use crate::config::{ConfigPath, Environment, Network, Setup};
use crate::model::{Address, Name, escaped, excerpt};

/// Bytes of a graph_message configuration.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Where we listen when the file does not say.
const HOST_DEFAULT: &str = "127.0.0.1";
/// Characters of a wrong line that are shown.
const SHOWN_CHARS_MAX: usize = 40;

/// What a graph_message configuration says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Old {
    peer_id: Option<Name>,
    host: Option<String>,
    port: Option<u16>,
    locale: Option<String>,
    interface_port: Option<u16>,
    peers: BTreeMap<Name, Address>,
}

/// Writes our configuration, and prints what connects the peers.
///
/// # Errors
/// All lines that are wrong; when there is a configuration already; or when other machines can
/// reach the address and nobody said who may link.
pub fn import(
    args: &ImportArgs,
    environment: &Environment,
    out: &mut dyn Write,
    chatter: &mut dyn Write,
) -> Result<(), Stop> {
    let old = parse(&text_of(&args.file)?).map_err(|problems| {
        let line = |(line, what)| format!("{}:{line}: {what}", args.file.display());
        Stop::config(problems.into_iter().map(line).collect::<Vec<_>>().join("\n"))
    })?;
    let ConfigPath { path, .. } = environment.config_path(args.config.as_deref())?;
    let setup = setup(&old, args.network)
        .map_err(|stop| Stop { message: format!("{}: {stop}", args.file.display()), ..stop })?;
    init::write(&path, &setup)?;
    init::told(environment, &path, &setup, chatter)?;
    left_behind(&old, chatter)?;
    for (alias, address) in &old.peers {
        // Brackets are a pattern for shells, and some take no pattern that fits no file.
        let address = address.to_string();
        let quote = if address.starts_with('[') { "'" } else { "" };
        writeln!(out, "distmsgctl connect {quote}{address}{quote} --alias {alias}")?;
    }
    Ok(())
}

fn text_of(file: &Path) -> Result<String, Stop> {
    let failed =
        |why: &dyn std::fmt::Display| Stop::config(format_args!("{}: {why}", file.display()));
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|file| file.take(FILE_BYTES_MAX.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(|error| failed(&format_args!("cannot read it: {error}")))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_BYTES_MAX) {
        return Err(failed(&"larger than 1 MiB; this is not a graph_message configuration"));
    }
    String::from_utf8(bytes).map_err(|_| failed(&"not UTF-8; save the file as UTF-8"))
}

/// The wrong lines with their numbers.
type Wrong = Vec<(usize, String)>;

fn parse(text: &str) -> Result<Old, Wrong> {
    let (mut old, mut wrong) = (Old::default(), Wrong::new());
    let (mut in_table, mut empty) = (false, true);
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        empty = false;
        let result = match line.split_once('=') {
            Some((key, value)) => {
                let (key, value) = (key.trim(), value.trim());
                if in_table { old.peer(key, value) } else { old.key(key, value, &mut in_table) }
            }
            None => Err("no KEY=VALUE; correct it or take it out".to_owned()),
        };
        if let Err(what) = result {
            wrong.push((number, format!("'{}': {what}", excerpt(line, SHOWN_CHARS_MAX))));
        }
    }
    if empty {
        wrong.push((1, "nothing stands in it; name a graph_message configuration".to_owned()));
    }
    if wrong.is_empty() { Ok(old) } else { Err(wrong) }
}

impl Old {
    fn key(&mut self, key: &str, value: &str, in_table: &mut bool) -> Result<(), String> {
        match key {
            "peer_table" => {
                *in_table = true;
                // Some have the first peer on the same line.
                match value.split_once('=') {
                    Some((id, address)) => self.peer(id.trim(), address.trim()),
                    None if value.is_empty() => Ok(()),
                    None => Err("no ID=IP:PORT after peer_table=".to_owned()),
                }
            }
            "peer_id" => once(&mut self.peer_id, value.parse().map_err(|e| format!("{e}"))?),
            "host" => {
                Address::new(value, 0).map_err(|error| error.to_string())?;
                once(&mut self.host, value.to_owned())
            }
            "port" => once(&mut self.port, port(value)?),
            "locale" => once(&mut self.locale, value.to_owned()),
            "interface_port" if matches!(value, "" | "0" | "-1") => Ok(()),
            "interface_port" => once(&mut self.interface_port, port(value)?),
            _ => Err("unknown key; correct it or take it out".to_owned()),
        }
    }

    fn peer(&mut self, id: &str, address: &str) -> Result<(), String> {
        let alias: Name = id.parse().map_err(|error| format!("{error}"))?;
        let address = peer_address(address)?;
        if address.port() == 0 {
            return Err("nobody can dial port 0; write the peer's port".to_owned());
        }
        match self.peers.insert(alias, address) {
            Some(_) => Err("this peer stands here twice; take one out".to_owned()),
            None => Ok(()),
        }
    }
}

fn once<T>(field: &mut Option<T>, value: T) -> Result<(), String> {
    match field.replace(value) {
        Some(_) => Err("this key stands here twice; take one out".to_owned()),
        None => Ok(()),
    }
}

fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| "the port is not a number from 1 to 65535".to_owned())
}

/// `IP:PORT`, where graph_message puts no brackets around IPv6 addresses.
fn peer_address(text: &str) -> Result<Address, String> {
    let bare = text.rsplit_once(':').filter(|(host, _)| host.contains(':'));
    match bare {
        Some((host, port_text)) if !host.starts_with('[') => {
            Address::new(host, port(port_text)?).map_err(|error| error.to_string())
        }
        _ => text.parse().map_err(|error: crate::model::AddressError| error.to_string()),
    }
}

fn setup(old: &Old, network: Option<Network>) -> Result<Setup, Stop> {
    let host = old.host.as_deref().unwrap_or(HOST_DEFAULT);
    let port = old.port.unwrap_or(Address::PORT_DEFAULT);
    let listen = vec![Address::new(host, port).map_err(Stop::config)?];
    let network = match network {
        Some(network) => network,
        None if listen.iter().all(Address::is_loopback) => init::network_default(&listen),
        None => {
            return Err(Stop::usage(format_args!(
                "other machines can reach {host}; say who may link: --network closed (who has \
                 the key may) or --network open (anybody may, as with graph_message)"
            )));
        }
    };
    let (name, interface_port) = (old.peer_id.clone(), old.interface_port);
    Ok(Setup { name, listen, network, interface_port, ..Setup::default() })
}

/// Says what has no counterpart, or another one than its name promises.
fn left_behind(old: &Old, chatter: &mut dyn Write) -> std::io::Result<()> {
    if let Some(locale) = &old.locale {
        let locale = escaped(locale);
        writeln!(chatter, "locale={locale} has no counterpart: distmsg speaks English")?;
    }
    if let Some(port) = &old.interface_port {
        writeln!(
            chatter,
            "interface_port={port} is now on 127.0.0.1 and speaks another protocol: JSON-RPC, \
             after the token that is made in the state directory at the first start"
        )?;
    }
    if let Some(name) = &old.peer_id {
        writeln!(
            chatter,
            "peer_id={name} is now this node's name; its new ID is a key, made at the first start"
        )?;
    }
    if !old.peers.is_empty() {
        writeln!(
            chatter,
            "the peers' new IDs are learned by connecting: run the lines on standard output once \
             both machines run distmsg"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/graph_message.conf");

    struct Ran {
        result: Result<(), Stop>,
        config: Option<Config>,
        out: String,
        chatter: String,
    }

    fn run_on(file: &Path, network: Option<Network>) -> Ran {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("new/c.toml");
        let args = ImportArgs { file: file.to_owned(), config: Some(path.clone()), network };
        let (mut out, mut chatter) = (Vec::new(), Vec::new());
        let home = Some(dir.path().to_owned());
        let environment = Environment { home, ..Environment::default() };
        let result = import(&args, &environment, &mut out, &mut chatter);
        let config = path.exists().then(|| Config::load(&path).expect("right"));
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Ran { result, config, out: text(out), chatter: text(chatter) }
    }

    fn run(text: &str, network: Option<Network>) -> Ran {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        run_on(file.path(), network)
    }

    #[test]
    fn a_real_file_becomes_ours() {
        let ran = run_on(Path::new(SAMPLE), None);
        assert_eq!(ran.result, Ok(()));
        let config = ran.config.expect("written");
        assert_eq!(config.name.map(|name| name.to_string()).as_deref(), Some("A1B2C3D4"));
        assert_eq!(format!("{:?}", config.listen), "[127.0.0.1:4001]");
        assert_eq!(config.interface, Some(crate::config::interface_on_loopback(4101)));
        assert_eq!(
            ran.out,
            "distmsgctl connect '[2001:db8::7]:4001' --alias 0011AABB\n\
             distmsgctl connect 127.0.0.1:4002 --alias 9A8B7C6D\n\
             distmsgctl connect 192.0.2.7:4001 --alias E5F60718\n"
        );
        for said in ["locale=de", "interface_port=4101", "peer_id=A1B2C3D4", "new IDs"] {
            assert!(ran.chatter.contains(said), "{said}: {}", ran.chatter);
        }
    }

    #[test]
    fn what_is_missing_is_default() {
        let ran = run("interface_port=0\npeer_table=\n", None);
        assert_eq!((ran.result, &*ran.out), (Ok(()), ""));
        assert_eq!(ran.config, Some(Config::default()));
        assert!(!ran.chatter.contains("interface_port"), "{}", ran.chatter);
        let ran = run("peer_table=\nAB=::1:7\n", None);
        assert_eq!(ran.out, "distmsgctl connect '[::1]:7' --alias AB\n");
    }

    #[test]
    fn a_file_with_nothing_in_it_is_not_imported() {
        for text in ["", "\n# graph_message\n"] {
            let ran = run(text, None);
            let stop = ran.result.expect_err("refused");
            assert_eq!(stop.code, 78);
            assert!(
                stop.message
                    .ends_with("1: nothing stands in it; name a graph_message configuration")
            );
            assert_eq!(ran.config, None);
        }
    }

    #[test]
    fn who_may_link_must_be_said_where_others_get_there() {
        let text = "host=0.0.0.0\nport=4001\n";
        let ran = run(text, None);
        let stop = ran.result.expect_err("refused");
        assert_eq!(stop.code, 2);
        assert!(stop.message.contains("--network closed"), "{stop}");
        assert_eq!(ran.config, None);
        for network in [Network::Open, Network::Closed] {
            let config = run(text, Some(network)).config.expect("written");
            assert_eq!(config.network, network);
        }
    }

    #[test]
    fn wrong_lines_are_all_named_and_nothing_is_written() {
        let text = "peer_id=a b\nport=x\nnonsense\ncolour=1\nhost=h:1\ninterface_port=y\n\
                    peer_table=\nAB=1.2.3.4\nAB=1.2.3.4:1\nAB=1.2.3.4:1\nx\u{1b}=1\n";
        let ran = run(text, None);
        let stop = ran.result.expect_err("refused");
        assert_eq!(stop.code, 78);
        let lines: Vec<&str> =
            stop.message.lines().filter_map(|line| line.split(':').nth(1)).collect();
        assert_eq!(lines, ["1", "2", "3", "4", "5", "6", "8", "10", "11"], "{stop}");
        assert!(!stop.message.contains('\u{1b}'));
        assert_eq!(ran.config, None);
    }

    #[test]
    fn a_configuration_that_is_there_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("c.toml");
        std::fs::write(&path, "mine").expect("written");
        let args = ImportArgs { file: SAMPLE.into(), config: Some(path.clone()), network: None };
        let mut out = Vec::new();
        let stop = import(&args, &Environment::default(), &mut out, &mut Vec::new());
        assert!(stop.expect_err("refused").message.contains("is there already"));
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "mine");
        assert!(out.is_empty());
    }
}
