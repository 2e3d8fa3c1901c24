//! `distmsg init`, and what the daemon does at its start when there is no configuration.

use std::io::{self, BufRead, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use super::args::{InitArgs, InterfacePort};
use super::exit::Stop;
use super::files;
use super::questions::Questions;
use super::secrets::NETWORK_KEY_FILE;
use crate::config::{Config, ConfigPath, Environment, LINKS_AUTO_DEFAULT, Network, Setup};
use crate::model::limits::NAME_BYTES_MAX;
use crate::model::{Address, Name, plainly};

/// Nothing in it is secret, and the system service runs as another user than who sets it up.
const CONFIG_MODE: u32 = 0o644;

/// A person to ask: what is typed, and where it is shown. Results never go there.
pub struct Person<'a> {
    /// What is typed.
    pub answers: &'a mut dyn BufRead,
}

/// Whether standard input and standard error are a terminal, so that there is somebody to ask.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// What this machine calls itself, made a node's name if that is possible.
pub fn machine_name() -> Option<Name> {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_str().ok()?;
    name_from(host)
}

/// The first label of a host name as a node's name. What a name may not have becomes a hyphen.
fn name_from(host: &str) -> Option<Name> {
    let label = host.split('.').next()?;
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let mut name: String = label.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    let begins = name.find(char::is_alphanumeric)?;
    name.drain(..begins);
    // A name is cut where a character begins.
    name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
    name.parse().or_else(|_| format!("node-{name}").parse()).ok()
}

/// `distmsg init`: writes a configuration without starting.
///
/// # Errors
/// When there is one already, when there is nobody to ask, or when it cannot be written.
pub fn init(
    args: &InitArgs,
    environment: &Environment,
    person: Option<Person<'_>>,
    chatter: &mut dyn Write,
) -> Result<(), Stop> {
    let ConfigPath { path, .. } = environment.config_path(args.config.as_deref())?;
    // Before any question is asked.
    if files::exists(&path) {
        return Err(exists(&path));
    }
    let open_questions = unanswered(args);
    let person = match (args.yes || open_questions.is_empty(), person) {
        (true, _) => None,
        (false, Some(person)) => Some(person),
        (false, None) => {
            return Err(Stop::usage(format_args!(
                "there is no terminal to ask on; answer with {}, or take the defaults with --yes \
                 (see 'distmsg init --help')",
                open_questions.join(" and ")
            )));
        }
    };
    let setup = answered(args, environment, person, chatter)?;
    write(&path, &setup)?;
    told(environment, &path, &setup, chatter)?;
    let default = environment.config_path(None).is_ok_and(|default| default.path == path);
    let argument = if default { String::new() } else { format!(" {}", path.display()) };
    Ok(writeln!(chatter, "start the node with 'distmsg{argument}'")?)
}

/// The configuration to run with. If there is none, a person is asked and it is written; with
/// nobody to ask, the default path may be missing, one that somebody named may not.
///
/// # Errors
/// When there is none that can be used.
pub fn load_or_ask(
    path: &ConfigPath,
    environment: &Environment,
    person: Option<Person<'_>>,
    chatter: &mut dyn Write,
) -> Result<Config, Stop> {
    let ConfigPath { path, explicit } = path;
    if files::exists(path) {
        return Ok(Config::load(path)?);
    }
    match person {
        Some(person) => {
            writeln!(chatter, "{} does not exist yet; a few questions for it:", path.display())?;
            let setup = answered(&InitArgs::default(), environment, Some(person), chatter)?;
            write(path, &setup)?;
            told(environment, path, &setup, chatter)?;
            // What counts is what the file says, now as at every later start.
            Ok(Config::load(path)?)
        }
        None if *explicit => Err(Stop::config(format_args!(
            "{0}: does not exist; write it with 'distmsg init {0}', or name another file",
            path.display()
        ))),
        None => {
            writeln!(
                chatter,
                "{} does not exist; running on defaults (write one with 'distmsg init')",
                path.display()
            )?;
            Ok(Config::default())
        }
    }
}

/// Writes a new configuration, never over a file.
pub(super) fn write(path: &Path, setup: &Setup) -> Result<(), Stop> {
    match files::create(path, setup.to_toml().as_bytes(), CONFIG_MODE) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && files::exists(path) => {
            Err(exists(path))
        }
        Err(error) => Err(Stop::failure(format_args!(
            "cannot write {}: {}; let this user write there, or name another file",
            path.display(),
            plainly(&error)
        ))),
    }
}

/// Who may link by default: where other machines get there, not just anybody.
pub(super) fn network_default(listen: &[Address]) -> Network {
    match listen.iter().all(Address::is_loopback) {
        true => Network::Open,
        false => Network::Closed,
    }
}

fn exists(path: &Path) -> Stop {
    Stop::failure(format_args!(
        "{} is there already and stays as it is; edit it, or name another file",
        path.display()
    ))
}

/// The flags that would answer what a person is asked otherwise.
fn unanswered(args: &InitArgs) -> Vec<&'static str> {
    let network = args.network.is_some() || args.network_key_file.is_some();
    [("--name", args.name.is_some()), ("--listen", !args.listen.is_empty()), ("--network", network)]
        .into_iter()
        .filter_map(|(flag, answered)| (!answered).then_some(flag))
        .collect()
}

/// Each answer: a flag's, or the person's, or the default.
fn answered(
    args: &InitArgs,
    environment: &Environment,
    person: Option<Person<'_>>,
    out: &mut dyn Write,
) -> Result<Setup, Stop> {
    if args.network == Some(Network::Open) && args.network_key_file.is_some() {
        return Err(Stop::usage(
            "an open network has no key; leave out --network-key-file, or say --network closed",
        ));
    }
    let mut questions = person.map(|person| Questions { answers: person.answers, out: &mut *out });
    let name = match (&args.name, questions.as_mut()) {
        (Some(name), _) => Some(name.clone()),
        (None, Some(questions)) => questions.name(machine_name().as_ref())?,
        (None, None) => machine_name(),
    };
    let listen = match (args.listen.is_empty(), questions.as_mut()) {
        (false, _) => args.listen.clone(),
        (true, Some(questions)) => questions.listen(&Config::listen_default())?,
        (true, None) => Config::listen_default(),
    };
    let network_default = network_default(&listen);
    let network = match (args.network, args.network_key_file.is_some(), questions.as_mut()) {
        (Some(network), ..) => network,
        (None, true, _) => Network::Closed,
        (None, false, Some(questions)) => questions.network(network_default)?,
        (None, false, None) => network_default,
    };
    let key_file = args.network_key_file.as_ref().map(std::path::absolute).transpose();
    let key_file =
        key_file.map_err(|error| Stop::usage(format_args!("--network-key-file: {error}")))?;
    let key_file = match (key_file, questions.as_mut()) {
        // Where a key is there already, it is used.
        (None, Some(questions))
            if network == Network::Closed && !files::exists(&own_key(environment)?) =>
        {
            questions.network_key(environment.home.as_deref())?
        }
        (key_file, _) => key_file,
    };
    let interface_port = match (args.interface_port, questions.as_mut()) {
        (Some(InterfacePort(port)), _) => port,
        (None, Some(questions)) => questions.interface_port()?,
        (None, None) => None,
    };
    let setup = Setup {
        name,
        listen,
        advertise: args.advertise.clone(),
        network,
        network_key_file: key_file,
        interface_port,
        links_auto: args.auto_links.unwrap_or(LINKS_AUTO_DEFAULT),
    };
    checked(setup)
}

/// What the file would say must be right: flags can say what it may not, such as an address twice.
fn checked(setup: Setup) -> Result<Setup, Stop> {
    if setup.network_key_file.as_ref().is_some_and(|file| file.to_str().is_none()) {
        return Err(Stop::usage("--network-key-file: the path is not UTF-8; name another"));
    }
    match Config::parse(&setup.to_toml(), Path::new("config.toml")) {
        Ok(_) => Ok(setup),
        Err(problems) => {
            let line = |problem: &crate::config::Problem| {
                let key = problem.key.as_deref().unwrap_or_default();
                format!("{key}: {}", problem.message)
            };
            Err(Stop::usage(problems.iter().map(line).collect::<Vec<_>>().join("\n")))
        }
    }
}

/// Says what was written and what a closed network still needs.
pub(super) fn told(
    environment: &Environment,
    path: &Path,
    setup: &Setup,
    chatter: &mut dyn Write,
) -> Result<(), Stop> {
    writeln!(chatter, "wrote {}", path.display())?;
    if setup.network == Network::Closed && setup.network_key_file.is_none() {
        let key = own_key(environment)?;
        let shown = key.display();
        if files::exists(&key) {
            writeln!(chatter, "the network's key is the one in {shown}")?;
        } else {
            writeln!(chatter, "a new network key is made at the first start, in {shown};")?;
            writeln!(chatter, "who is to join this network needs a copy of it; to join another,")?;
            writeln!(chatter, "name a copy of its key: network_key_file in {}", path.display())?;
        }
    }
    Ok(())
}

/// Where a closed network's key is, if no other file is named.
fn own_key(environment: &Environment) -> Result<PathBuf, Stop> {
    Ok(environment.state_dir(&Config::default())?.join(NETWORK_KEY_FILE))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use clap::Parser as _;

    use super::super::args::{Args, Command};
    use super::*;
    use crate::config::interface_on_loopback;

    struct Place {
        dir: tempfile::TempDir,
        environment: Environment,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let home = Some(dir.path().join("home"));
            Self { dir, environment: Environment { home, ..Environment::default() } }
        }

        fn default_path(&self) -> std::path::PathBuf {
            self.dir.path().join("home/.config/distmsg/config.toml")
        }

        /// Runs `distmsg init` with these words; answers only if there is somebody.
        fn init(&self, words: &[&str], answers: Option<&str>) -> (Result<(), Stop>, String) {
            let words = ["distmsg", "init"].iter().chain(words);
            let Ok(Args { command: Some(Command::Init(args)), .. }) = Args::try_parse_from(words)
            else {
                panic!("usage")
            };
            let (mut answers, mut out) = (answers.map(str::as_bytes), Vec::new());
            let person = answers.as_mut().map(|answers| Person { answers });
            let result = init(&args, &self.environment, person, &mut out);
            (result, String::from_utf8(out).expect("text"))
        }
    }

    fn load(path: &Path) -> Config {
        Config::load(path).unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn a_host_name_becomes_a_name() {
        let name = |host: &str| name_from(host).map(|name| name.to_string());
        for (host, expected) in [
            ("web-1.example.org", Some("web-1")),
            ("_my host!", Some("my-host-")),
            ("dm1box", Some("node-dm1box")),
            ("--", None),
            ("", None),
        ] {
            assert_eq!(name(host).as_deref(), expected, "{host}");
        }
        let long = name(&"é".repeat(99)).expect("a name");
        assert_eq!(long.len(), 64);
    }

    #[test]
    fn yes_takes_the_defaults() {
        let place = Place::new();
        let (result, shown) = place.init(&["--yes"], None);
        assert_eq!(result, Ok(()));
        let path = place.default_path();
        let expected = Config { name: machine_name(), ..Config::default() };
        assert_eq!(load(&path), expected);
        assert!(shown.contains(&format!("wrote {}", path.display())), "{shown}");
        assert!(shown.ends_with("start the node with 'distmsg'\n"), "{shown}");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(path.parent().expect("one")), 0o700);
        assert_eq!(mode(&path) & 0o600, 0o600);
    }

    #[test]
    fn flags_answer_and_the_person_is_asked_the_rest() {
        let place = Place::new();
        let path = place.dir.path().join("c.toml");
        let words = [path.to_str().expect("text"), "--name", "ship", "--auto-links", "0"];
        let (result, shown) = place.init(&words, Some("0.0.0.0\n\n\n8080\n"));
        assert_eq!(result, Ok(()));
        let config = load(&path);
        assert_eq!(config.name.map(|name| name.to_string()).as_deref(), Some("ship"));
        assert_eq!(format!("{:?}", config.listen), "[0.0.0.0:3000]");
        assert_eq!((config.network, config.links_auto), (Network::Closed, 0));
        assert_eq!(config.interface, Some(interface_on_loopback(8080)));
        assert!(!shown.contains("Name of this node"), "{shown}");
        assert!(shown.contains("open or closed [closed]"), "{shown}");
        assert!(shown.contains("distmsg/network.key"), "{shown}");
        assert!(shown.contains(&format!("'distmsg {}'", path.display())), "{shown}");
    }

    #[test]
    fn a_key_that_is_there_is_not_asked_for_and_one_that_is_named_is_in_the_file() {
        let place = Place::new();
        let key = own_key(&place.environment).expect("a path");
        let line = b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
        files::create(&key, line, 0o600).expect("written");
        let words = ["--name", "ship", "--listen", "0.0.0.0"];
        let (result, shown) = place.init(&words, Some("\n\n"));
        assert_eq!(result, Ok(()));
        assert!(shown.contains(&format!("key is the one in {}", key.display())), "{shown}");

        let other = Place::new();
        let (result, shown) = other.init(&words, Some(&format!("\n{}\n\n", key.display())));
        assert_eq!(result, Ok(()));
        assert_eq!(load(&other.default_path()).network_key_file, Some(key));
        assert!(!shown.contains("is made"), "{shown}");
    }

    #[test]
    fn a_directory_that_may_not_be_written_has_a_remedy() {
        let place = Place::new();
        let file = place.dir.path().join("file");
        fs::write(&file, "").expect("written");
        let path = file.join("sub/c.toml");
        let stop = place.init(&["--yes", path.to_str().expect("text")], None).0.expect_err("no");
        let why = ": not a directory; let this user write there, or name another file";
        assert!(stop.code == 1 && stop.message.ends_with(why), "{stop}");
    }

    #[test]
    fn a_file_that_is_there_stays() {
        let place = Place::new();
        let path = place.dir.path().join("c.toml");
        fs::write(&path, "mine").expect("written");
        let (result, shown) = place.init(&[path.to_str().expect("text")], Some(""));
        let stop = result.expect_err("refused");
        assert_eq!(stop.code, 1);
        assert!(stop.message.contains("is there already"), "{stop}");
        assert_eq!((&*fs::read_to_string(&path).expect("there"), &*shown), ("mine", ""));
    }

    #[test]
    fn without_a_terminal_it_says_what_to_write() {
        let place = Place::new();
        let stop = place.init(&[], None).0.expect_err("nobody to ask");
        assert_eq!(stop.code, 2);
        assert!(stop.message.contains("--name and --listen and --network, or"), "{stop}");
        assert!(stop.message.contains("--yes"), "{stop}");
        let stop = place.init(&["--name", "ship"], None).0.expect_err("nobody to ask");
        assert!(stop.message.contains("answer with --listen and --network"), "{stop}");
        assert!(!place.default_path().exists());
    }

    #[test]
    fn with_nothing_left_to_ask_it_needs_no_terminal() {
        for network in [&["--network", "closed"][..], &["--network-key-file", "k"]] {
            let place = Place::new();
            let words = [&["--name", "cellar", "--listen", "0.0.0.0"], network].concat();
            let (result, shown) = place.init(&words, None);
            assert_eq!(result, Ok(()), "{network:?}");
            let config = load(&place.default_path());
            assert_eq!(config.network, Network::Closed);
            assert_eq!(config.name.map(|name| name.to_string()).as_deref(), Some("cellar"));
            assert!(!shown.contains('?') && !shown.contains("open or closed"), "{shown}");
        }
    }

    #[test]
    fn a_person_who_leaves_leaves_nothing_behind() {
        let place = Place::new();
        let stop = place.init(&[], Some("alice\n")).0.expect_err("left");
        assert_eq!(stop.code, 1);
        assert!(!place.default_path().exists());
    }

    #[test]
    fn flags_that_contradict_are_refused() {
        for (words, why) in [
            (&["--network", "open", "--network-key-file", "k"][..], "an open network has no key"),
            (&["--listen", "a:1", "--listen", "a:1"], "twice"),
            (&["--interface-port", "3000"], "stands under listen, too"),
        ] {
            let place = Place::new();
            let words = [&["--yes"], words].concat();
            let stop = place.init(&words, None).0.expect_err("refused");
            assert_eq!(stop.code, 2);
            assert!(stop.message.contains(why), "{stop}");
            assert!(!place.default_path().exists());
        }
        let place = Place::new();
        let words = ["--yes", "--network-key-file", "k"];
        assert_eq!(place.init(&words, None).0, Ok(()));
        let config = load(&place.default_path());
        assert_eq!(config.network, Network::Closed, "a key means a closed network");
        assert!(config.network_key_file.is_some_and(|file| file.is_absolute()));
    }

    #[test]
    fn at_the_first_start_a_person_is_asked_and_a_service_runs_on_defaults() {
        let place = Place::new();
        let environment = &place.environment;
        let path = environment.config_path(None).expect("a path");
        let mut out = Vec::new();
        let config = load_or_ask(&path, environment, None, &mut out).expect("defaults");
        assert_eq!(config, Config::default());
        assert!(String::from_utf8_lossy(&out).contains("running on defaults"));
        assert!(!path.path.exists(), "nothing was written");

        let named = ConfigPath { explicit: true, ..path.clone() };
        let stop = load_or_ask(&named, environment, None, &mut out).expect_err("missing");
        assert_eq!(stop.code, 78);
        assert!(stop.message.contains("distmsg init"), "{stop}");

        let mut answers = &b"alice\n\n\n\n"[..];
        let person = Some(Person { answers: &mut answers });
        let config = load_or_ask(&path, environment, person, &mut out).expect("answered");
        assert_eq!(config.name.map(|name| name.to_string()).as_deref(), Some("alice"));
        let again = load_or_ask(&path, environment, None, &mut out).expect("there");
        assert_eq!(again.listen, Config::listen_default());
        fs::write(&path.path, "zzz = 1").expect("written");
        let stop = load_or_ask(&path, environment, None, &mut out).expect_err("wrong");
        assert_eq!(stop.code, 78);
    }
}
