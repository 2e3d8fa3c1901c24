//! From TOML to [`Config`], with every problem found on the way.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::limits::KEYS as LIMIT_KEYS;
use super::suggest::nearest;
use super::{
    ADDRESSES_MAX, Config, LINKS_AUTO_MAX, Network, Problem, Problems, interface_on_loopback,
};
use crate::model::limits::{SOCKET_PATH_BYTES_MAX, stored_bytes};
use crate::model::{Address, Level, Name, escaped};

/// The key that clients read, too.
pub(super) const SOCKET: &str = "socket";

/// The keys outside of any table.
const ROOT_KEYS: &[&str] = &[
    "name",
    "listen",
    "advertise",
    "network",
    "network_key_file",
    "log",
    SOCKET,
    "state_dir",
    INTERFACE_PORT,
    "interface",
    "links",
    "limits",
];
const LINKS_KEYS: &[&str] = &["auto"];
const INTERFACE_KEYS: &[&str] = &["address"];
/// The short form of `address` under `[interface]`.
const INTERFACE_PORT: &str = "interface_port";

/// What a configuration says, as far as it could be understood, and what is wrong with it.
pub(super) fn read(text: &str, file: &Path) -> (Config, Option<Problems>) {
    // A byte order mark is what some editors put at the beginning of UTF-8; toml takes it.
    let mut reader = Reader { file, line_ends: line_ends(text), problems: Vec::new() };
    let mut config = Config::default();
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = error.span().map(|span| reader.line_of(&span));
        // What follows on the same line mostly follows from it.
        if reader.problems.last().is_some_and(|last| last.line == line) {
            continue;
        }
        let message = format!("not TOML: {}; see https://toml.io", escaped(error.message()));
        reader.problems.push(Problem { file: file.to_owned(), line, key: None, message });
    }
    // After a syntax error it is anybody's guess what belongs where.
    if errors.is_empty() {
        let said = reader.root(&mut config, table.get_ref());
        reader.relations(&config, &said);
    }
    (config, Problems::in_order(reader.problems))
}

type Key<'a, 'i> = &'a Spanned<DeString<'i>>;
type Value<'a, 'i> = &'a Spanned<DeValue<'i>>;

/// Where the keys stand whose values depend on each other.
#[derive(Default)]
struct Said {
    listen: Option<Range<usize>>,
    network: Option<Range<usize>>,
    /// What it says is neither open nor closed: what depends on it cannot be judged.
    network_wrong: bool,
    network_key_file: Option<Range<usize>>,
    interface_port: Option<Range<usize>>,
    interface_address: Option<Range<usize>>,
    links_auto: Option<Range<usize>>,
    /// Each key under `[limits]`.
    limits: BTreeMap<&'static str, Range<usize>>,
}

struct Reader<'a> {
    file: &'a Path,
    /// Where each line ends: what turns an offset into a line number, for as many problems as
    /// there are.
    line_ends: Vec<usize>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn root(&mut self, config: &mut Config, table: &DeTable<'_>) -> Said {
        let mut said = Said::default();
        for (key, value) in table {
            let span = Some(value.span());
            match &**key.get_ref() {
                "name" => self.set("name", value, |name: Name| config.name = Some(name)),
                "listen" => {
                    said.listen = span;
                    self.addresses("listen", value, &mut config.listen);
                }
                "advertise" => self.addresses("advertise", value, &mut config.advertise),
                "network" => {
                    said.network = span;
                    said.network_wrong = true;
                    self.set("network", value, |network: Network| {
                        config.network = network;
                        said.network_wrong = false;
                    });
                }
                "network_key_file" => {
                    said.network_key_file = span;
                    self.path("network_key_file", value, &mut config.network_key_file);
                }
                "log" => self.set("log", value, |level: Level| config.log = level),
                SOCKET => {
                    self.path(SOCKET, value, &mut config.socket);
                    self.socket_length(config, value);
                }
                "state_dir" => self.path("state_dir", value, &mut config.state_dir),
                "links" => self.links(config, value, &mut said),
                "limits" => self.limits(config, value, &mut said),
                INTERFACE_PORT => {
                    said.interface_port = span;
                    if let Some(port) = self.number(INTERFACE_PORT, value, &(1..=65_535)) {
                        let port = u16::try_from(port).unwrap_or(u16::MAX);
                        config.interface = Some(interface_on_loopback(port));
                    }
                }
                "interface" => self.interface(config, value, &mut said),
                _ => self.unknown(key, "", ROOT_KEYS),
            }
        }
        said
    }

    fn links(&mut self, config: &mut Config, value: Value<'_, '_>, said: &mut Said) {
        let Some(table) = self.table("links", value) else { return };
        for (key, value) in table {
            if key.get_ref() != "auto" {
                self.unknown(key, "links", LINKS_KEYS);
                continue;
            }
            said.links_auto = Some(value.span());
            let range = 0..=u64::try_from(LINKS_AUTO_MAX).unwrap_or(u64::MAX);
            if let Some(auto) = self.number("links.auto", value, &range) {
                config.links_auto = usize::try_from(auto).unwrap_or(LINKS_AUTO_MAX);
            }
        }
    }

    fn interface(&mut self, config: &mut Config, value: Value<'_, '_>, said: &mut Said) {
        let Some(table) = self.table("interface", value) else { return };
        for (key, value) in table {
            if key.get_ref() != "address" {
                self.unknown(key, "interface", INTERFACE_KEYS);
                continue;
            }
            said.interface_address = Some(value.span());
            let name = "interface.address";
            let Some(text) = self.text(name, value) else { continue };
            match address_of_interface(text) {
                Ok(address) => config.interface = Some(address),
                Err(message) => self.problem(&value.span(), name, &message),
            }
        }
    }

    fn limits(&mut self, config: &mut Config, value: Value<'_, '_>, said: &mut Said) {
        let Some(table) = self.table("limits", value) else { return };
        let names: Vec<&str> = LIMIT_KEYS.iter().map(|key| key.name).collect();
        for (key, value) in table {
            let Some(limit) = LIMIT_KEYS.iter().find(|limit| limit.name == key.get_ref()) else {
                self.unknown(key, "limits", &names);
                continue;
            };
            said.limits.insert(limit.name, value.span());
            let name = format!("limits.{}", limit.name);
            if let Some(number) = self.number(&name, value, &limit.range) {
                (limit.set)(&mut config.limits, number);
            }
        }
    }

    /// What no value is wrong in by itself.
    fn relations(&mut self, config: &Config, said: &Said) {
        if let (Some(listen), None) = (&said.listen, &said.network)
            && let Some(public) = config.listen.iter().find(|address| !address.is_loopback())
        {
            let message = format!(
                "{public} can be reached from other machines; say who may link: write \
                 network = \"closed\" (who has the key may) or network = \"open\" (anybody may)"
            );
            self.problem(listen, "listen", &message);
        }
        if let Some(span) = &said.network_key_file
            && config.network == Network::Open
            && !said.network_wrong
        {
            let message =
                "an open network has no key; write network = \"closed\", or take this out";
            self.problem(span, "network_key_file", message);
        }
        if let (Some(span), Some(_)) = (&said.interface_port, &said.interface_address) {
            let message = "address under [interface] says the same; take one of them out";
            self.problem(span, INTERFACE_PORT, message);
        } else if let Some(address) = &config.interface
            && let Some(taken) = config.listen.iter().find(|at| at.collides_with(address))
            && let Some(span) = said.interface_port.as_ref().or(said.interface_address.as_ref())
        {
            let key = said.interface_port.as_ref().map_or("interface.address", |_| INTERFACE_PORT);
            let message = format!("{taken} stands under listen, too; choose another port");
            self.problem(span, key, &message);
        }
        self.sizes(config, said);
    }

    /// Bounds that must fit each other. The problem is named where somebody wrote something, so
    /// that a default is never blamed for it.
    fn sizes(&mut self, config: &Config, said: &Said) {
        let (auto, links_max) = (config.links_auto, config.limits.links_max);
        if auto > links_max {
            match (&said.links_auto, said.limits.get("links_max")) {
                (None, Some(span)) => {
                    let message = format!(
                        "fewer than the {auto} links that the node makes by itself; make this \
                         larger, or write auto = {links_max} under [links]"
                    );
                    self.problem(span, "limits.links_max", &message);
                }
                (Some(span), _) => {
                    let message = format!(
                        "more than limits.links_max ({links_max}); make this smaller or that larger"
                    );
                    self.problem(span, "links.auto", &message);
                }
                (None, None) => {}
            }
        }
        let message_bytes = u64::try_from(config.limits.message_bytes_max).unwrap_or(u64::MAX);
        for (name, room) in [
            ("inbox_bytes_max", config.limits.inbox_bytes_max),
            ("outbox_bytes_max", config.limits.outbox_bytes_max),
        ] {
            // The room, if that was written, else the size.
            let key = if said.limits.contains_key(name) { name } else { "message_bytes_max" };
            if stored_bytes(message_bytes) > room
                && let Some(span) = said.limits.get(key)
            {
                let message = format!(
                    "one message of message_bytes_max = {message_bytes}, which takes {} bytes, \
                     would not fit {name} = {room}; make the first smaller or the second larger",
                    stored_bytes(message_bytes)
                );
                self.problem(span, &format!("limits.{key}"), &message);
            }
        }
    }

    /// A string that is parsed.
    fn set<T>(&mut self, key: &str, value: Value<'_, '_>, set: impl FnOnce(T))
    where
        T: FromStr<Err: std::fmt::Display>,
    {
        let Some(text) = self.text(key, value) else { return };
        match text.parse() {
            Ok(parsed) => set(parsed),
            Err(error) => self.problem(&value.span(), key, &error.to_string()),
        }
    }

    fn addresses(&mut self, key: &str, value: Value<'_, '_>, addresses: &mut Vec<Address>) {
        let Some(array) = value.get_ref().as_array() else {
            let message = format!(
                "expected a list, found {}; write {key} = [\"HOST:PORT\"]",
                kind(value.get_ref())
            );
            return self.problem(&value.span(), key, &message);
        };
        if array.len() > ADDRESSES_MAX {
            let message = format!("at most {ADDRESSES_MAX} addresses; take some out");
            self.problem(&value.span(), key, &message);
        }
        addresses.clear();
        for element in array.iter().take(ADDRESSES_MAX) {
            let Some(text) = self.text(key, element) else { continue };
            let parse = if key == "advertise" { address_to_advertise } else { address_to_listen };
            match parse(text) {
                Ok(address) if address.port() != 0 && addresses.contains(&address) => {
                    let message = format!("{address} stands here twice; take one out");
                    self.problem(&element.span(), key, &message);
                }
                Ok(address) => addresses.push(address),
                Err(message) => self.problem(&element.span(), key, &message),
            }
        }
    }

    /// A path that means the same wherever the daemon was started.
    fn path(&mut self, key: &str, value: Value<'_, '_>, path: &mut Option<PathBuf>) {
        let Some(text) = self.text(key, value) else { return };
        let given = Path::new(text);
        if text.contains('\0') {
            self.problem(&value.span(), key, "a path has no NUL character; take it out");
        } else if given.is_absolute() {
            *path = Some(given.to_owned());
        } else {
            let message = format!("'{}' is not absolute; begin the path with /", escaped(text));
            self.problem(&value.span(), key, &message);
        }
    }

    fn socket_length(&mut self, config: &mut Config, value: Value<'_, '_>) {
        let bytes = config.socket.as_ref().map_or(0, |socket| socket.as_os_str().len());
        if bytes > SOCKET_PATH_BYTES_MAX {
            config.socket = None;
            let message = format!(
                "a socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes, this has {bytes}; \
                 write a shorter one"
            );
            self.problem(&value.span(), SOCKET, &message);
        }
    }

    fn number(
        &mut self,
        key: &str,
        value: Value<'_, '_>,
        range: &RangeInclusive<u64>,
    ) -> Option<u64> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let Some(integer) = value.get_ref().as_integer() else {
            let message = format!("expected {wanted}, found {}", kind(value.get_ref()));
            self.problem(&value.span(), key, &message);
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            self.problem(&value.span(), key, &format!("{integer} is not possible; write {wanted}"));
        }
        number
    }

    fn text<'v>(&mut self, key: &str, value: Value<'v, '_>) -> Option<&'v str> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            let message = format!("expected text in quotes, found {}", kind(value.get_ref()));
            self.problem(&value.span(), key, &message);
        }
        text
    }

    fn table<'v, 'i>(&mut self, key: &str, value: Value<'v, 'i>) -> Option<&'v DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            let message = format!(
                "expected a table, found {}; write [{key}] on a line of its own",
                kind(value.get_ref())
            );
            self.problem(&value.span(), key, &message);
        }
        table
    }

    fn unknown(&mut self, key: Key<'_, '_>, table: &str, known: &[&str]) {
        let name = &**key.get_ref();
        let full = if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") };
        let message = match (home_of(name, table), nearest(name, known.iter().copied())) {
            (Some(home), _) => format!("this key belongs {home}; move it there"),
            (None, Some(meant)) => format!("unknown key; did you mean {meant}?"),
            (None, None) => {
                format!("unknown key; take it out (possible here: {})", known.join(", "))
            }
        };
        self.problem(&key.span(), &full, &message);
    }

    fn problem(&mut self, span: &Range<usize>, key: &str, message: &str) {
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line: Some(self.line_of(span)),
            key: Some(key.to_owned()),
            message: message.to_owned(),
        });
    }

    fn line_of(&self, span: &Range<usize>) -> usize {
        self.line_ends.partition_point(|end| *end < span.start).saturating_add(1)
    }
}

fn line_ends(text: &str) -> Vec<usize> {
    text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect()
}

/// The line of a key outside of any table, from 1, if it is there.
pub(super) fn line_of_key(text: &str, key: &str) -> Option<usize> {
    let (table, _) = DeTable::parse_recoverable(text);
    let table = table.get_ref();
    let (found, _) = table.iter().find(|(found, _)| found.get_ref() == key)?;
    let before = text.get(..found.span().start)?;
    Some(before.matches('\n').count().saturating_add(1))
}

/// `HOST[:PORT]` to listen on.
///
/// # Errors
/// When it is no address, or none to listen on: what to write instead.
pub fn address_to_listen(text: &str) -> Result<Address, String> {
    address(text, false)
}

/// `HOST[:PORT]` that others are told to dial.
///
/// # Errors
/// When it is no address, or none that can be dialled: what to write instead.
pub fn address_to_advertise(text: &str) -> Result<Address, String> {
    address(text, true)
}

/// `HOST:PORT` where control clients are served. A port of its own: none is everybody's.
fn address_of_interface(text: &str) -> Result<Address, String> {
    let address: Address = text.parse().map_err(|error| format!("{error}"))?;
    match address.ip().is_some_and(|ip| ip.is_multicast()) {
        true => Err(format!("nobody can listen on {address}; write an address of this machine")),
        false => Ok(address),
    }
}

fn address(text: &str, dialled: bool) -> Result<Address, String> {
    let address = Address::parse_with_default_port(text).map_err(|error| error.to_string())?;
    if dialled && address.port() == 0 {
        return Err(format!("nobody can dial port 0 of {address}; write the port others reach"));
    }
    if dialled && address.ip().is_some_and(|ip| ip.is_unspecified() || ip.is_multicast()) {
        return Err(format!("nobody can dial {address}; write the address others reach"));
    }
    if !dialled && address.ip().is_some_and(|ip| ip.is_multicast()) {
        return Err(format!("nobody can listen on {address}; write an address of this machine"));
    }
    Ok(address)
}

/// Where a key that is unknown in one table is known.
fn home_of(name: &str, table: &str) -> Option<&'static str> {
    let limits = LIMIT_KEYS.iter().any(|key| key.name == name);
    match table {
        _ if limits && table != "limits" => Some("under [limits]"),
        _ if LINKS_KEYS.contains(&name) && table != "links" => Some("under [links]"),
        _ if INTERFACE_KEYS.contains(&name) && table != "interface" => Some("under [interface]"),
        _ if ROOT_KEYS.contains(&name) && !table.is_empty() => {
            Some("at the beginning of the file, before any [table]")
        }
        _ => None,
    }
}

/// What a value is, for people.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
