//! The daemon's command line.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, CommandFactory as _, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};

use super::exit::{Stop, report};
use crate::config::{
    LINKS_AUTO_MAX, Network, address_to_advertise, address_to_listen, completion, usage_line,
};
use crate::model::{Address, Name, escaped};

/// The most nodes that `lab` starts: each is a process of its own.
const LAB_NODES_MAX: u64 = 256;

/// Everything a command line can say.
#[derive(Debug, Parser)]
#[command(
    name = "distmsg",
    version,
    about = "Carries end-to-end encrypted messages between machines, with no broker",
    long_about = "Carries end-to-end encrypted messages between machines, with no broker.\n\n\
        Without a command it runs the node in the foreground until SIGTERM or SIGINT. Without a \
        configuration file it asks the setup questions on a terminal, and runs on defaults \
        elsewhere. What is sent and received goes through distmsgctl.",
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = false,
    max_term_width = 100
)]
pub struct Args {
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The options of running.
    #[command(flatten)]
    pub run: RunArgs,
}

const EXAMPLES: &str = "\
Examples:
  distmsg                                   run with ~/.config/distmsg/config.toml
  distmsg /etc/distmsg/config.toml          run with another configuration
  distmsg init --yes --listen 0.0.0.0 --network closed
                                            write a configuration without questions
  distmsg check                             say what is wrong with the configuration
  distmsg lab 5 --topology ring             try it out with five nodes on this machine

Environment:
  DISTMSG_CONFIG  the configuration, when none is named
  DISTMSG_LOG     what is logged: error, warn, info, debug, trace, or a filter such as
                  distmsg::link=debug

Exit codes:
  0   done
  1   failure
  2   usage
  78  the configuration is wrong

The manual is distmsg(8); what a configuration says is in distmsg.toml(5).";

/// This process's command line. Help and version are shown here, and so is what is wrong, as the
/// one line that distmsgctl would make of it.
///
/// # Errors
/// With how the process is to end, when there is nothing to do any more.
pub fn parse() -> Result<Args, ExitCode> {
    let words: Vec<OsString> = std::env::args_os().collect();
    if let Some(answer) = completion("distmsg", &words, |_| Args::command()) {
        return Err(report(io::stdout().write_all(answer.as_bytes()).map_err(Stop::from)));
    }
    Args::try_parse_from(&words).map_err(|error| {
        if error.use_stderr() {
            return report(Err(wrong(&error, &words)));
        }
        report(error.print().map_err(Stop::from))
    })
}

fn wrong(error: &clap::Error, words: &[OsString]) -> Stop {
    let command = Args::command();
    let named = words.iter().filter_map(|word| word.to_str());
    let help = match named.skip(1).find(|word| command.find_subcommand(word).is_some()) {
        Some(name) => format!("'distmsg {name} --help' tells more"),
        None => "'distmsg --help' tells more".to_owned(),
    };
    Stop::usage(format_args!("{}; {help}", escaped(&usage_line(error))))
}

/// How to run.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RunArgs {
    /// The configuration file [env: DISTMSG_CONFIG] [default: ~/.config/distmsg/config.toml]
    #[arg(value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Print messages that arrive, one a line, as listener 'print' [default: on a terminal]
    #[arg(long, action = ArgAction::SetTrue, overrides_with = "no_print")]
    print: bool,
    /// Do not print messages that arrive
    #[arg(long, action = ArgAction::SetTrue, overrides_with = "print")]
    no_print: bool,
    /// End when standard input does: for a daemon that must not outlive who started it
    #[arg(long)]
    pub exit_with_stdin: bool,
}

impl RunArgs {
    /// Whether to print what arrives, as said, or else depending on where it would go.
    pub fn prints(&self, stdout_is_terminal: bool) -> bool {
        self.print || (stdout_is_terminal && !self.no_print)
    }
}

/// What else the daemon's program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a configuration, by questions or by flags, without starting
    ///
    /// Every key stands in it and is explained; what is left at its default is commented out. A
    /// file that is there is never written over. Where there is no terminal to ask on, flags answer
    /// the questions, and --yes what they leave open.
    Init(InitArgs),
    /// Say what is wrong with the configuration
    ///
    /// The file is read as the daemon would read it at its start, and the key file that it names.
    /// If all is right, standard output tells what a node would do; else each problem is a line on
    /// standard error, with file, line, key and remedy.
    Check(CheckArgs),
    /// Turn a graph_message configuration into one for distmsg
    Import(ImportArgs),
    /// Run a network of nodes on this machine, to try things out
    ///
    /// Each node is a daemon in a process of its own, and everything is in one temporary directory
    /// of which nothing is left afterwards. A message is sent from the first node to the last, and
    /// what every node saw of it is shown. On a terminal the prompt of the first node follows.
    Lab(LabArgs),
}

/// Answers to the setup questions.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(after_help = "\
Examples:
  distmsg init
  distmsg init --yes
  distmsg init --yes --listen 0.0.0.0 --listen '[::]' --network closed
  distmsg init --yes --interface-port 8080
  distmsg init ./node.toml --yes --listen 192.0.2.7 --network open")]
pub struct InitArgs {
    /// The file to write; never over one that is there [env: DISTMSG_CONFIG] [default:
    /// ~/.config/distmsg/config.toml]
    #[arg(value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Take the defaults for whatever no flag answers
    #[arg(long, short)]
    pub yes: bool,
    /// What the node calls itself [default: this machine's name]
    #[arg(long)]
    pub name: Option<Name>,
    /// Where it accepts links; can be given several times; IPv6 in brackets [default:
    /// 127.0.0.1:3000]
    #[arg(long, value_name = "HOST[:PORT]", value_parser = address_to_listen)]
    pub listen: Vec<Address>,
    /// Where others reach it, if that is not where it listens; can be given several times
    #[arg(long, value_name = "HOST[:PORT]", value_parser = address_to_advertise)]
    pub advertise: Vec<Address>,
    /// Who may link: 'open' (anybody) or 'closed' (who has the key) [default: open where only this
    /// machine gets there, else closed]
    #[arg(long, value_name = "open|closed", add = ArgValueCandidates::new(networks))]
    pub network: Option<Network>,
    /// A closed network's key, if it is not to be in the state directory
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub network_key_file: Option<PathBuf>,
    /// Where programs may use the node over TCP on this machine, with a token; 8080 is customary
    /// [default: none]
    #[arg(long, value_name = "PORT|none", value_parser = interface_port)]
    pub interface_port: Option<InterfacePort>,
    /// How many links the node makes by itself [default: 8]
    #[arg(long, value_name = "N", value_parser = links_auto, allow_negative_numbers = true)]
    pub auto_links: Option<usize>,
}

/// Which configuration to check.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct CheckArgs {
    /// The configuration file [env: DISTMSG_CONFIG] [default: ~/.config/distmsg/config.toml]
    #[arg(value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

/// What to import.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Standard output has a 'distmsgctl connect' line for each peer, to be run once both machines run
distmsg: the new peer IDs are learned by connecting.

Example:
  distmsg import graph_message.conf --network closed > connect.sh")]
pub struct ImportArgs {
    /// The graph_message configuration
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// The file to write; never over one that is there [env: DISTMSG_CONFIG] [default:
    /// ~/.config/distmsg/config.toml]
    #[arg(value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Who may link; needed when other machines can reach the address
    #[arg(long, value_name = "open|closed", add = ArgValueCandidates::new(networks))]
    pub network: Option<Network>,
}

/// What network to run.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  distmsg lab
  distmsg lab 5 --topology ring
  distmsg lab 12 --topology random --seed 7")]
pub struct LabArgs {
    /// How many nodes
    #[arg(
        value_name = "N",
        default_value = "3",
        value_parser = lab_nodes,
        allow_negative_numbers = true
    )]
    pub nodes: usize,
    /// Who is linked with whom
    #[arg(long, value_enum, default_value_t = Topology::Line)]
    pub topology: Topology,
    /// Makes a random network the same again
    #[arg(long, value_parser = seed, allow_negative_numbers = true)]
    pub seed: Option<u64>,
}

/// Who is linked with whom in a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Topology {
    /// Each with the next
    Line,
    /// Each with the next, and the last with the first: that is one hop
    Ring,
    /// All with the second, through which the first one's messages pass
    Star,
    /// Connected somehow
    Random,
}

fn networks() -> Vec<CompletionCandidate> {
    [Network::Open, Network::Closed].map(|network| CompletionCandidate::new(network.word())).into()
}

/// The answer to whether there is to be an interface port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfacePort(pub Option<u16>);

/// A port, or `none`.
///
/// # Errors
/// When it is neither.
pub(super) fn interface_port(text: &str) -> Result<InterfacePort, &'static str> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(InterfacePort(None));
    }
    let port = text.parse().ok().filter(|port| *port != 0);
    let port = port.ok_or("write a port from 1 to 65535, or none")?;
    Ok(InterfacePort(Some(port)))
}

fn links_auto(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number <= LINKS_AUTO_MAX);
    number.ok_or_else(|| format!("write a number from 0 to {LINKS_AUTO_MAX}"))
}

fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "write a whole number".to_owned())
}

fn lab_nodes(text: &str) -> Result<usize, String> {
    let number = text.parse::<u64>().ok().filter(|number| (2..=LAB_NODES_MAX).contains(number));
    let number = number.and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| format!("write a number from 2 to {LAB_NODES_MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_grammar_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn running_takes_a_configuration_and_whether_to_print() {
        let prints = |line: &str, terminal| parse(line).expect(line).run.prints(terminal);
        assert!(prints("distmsg", true) && !prints("distmsg", false));
        assert!(prints("distmsg --print", false) && !prints("distmsg --no-print", true));
        assert!(prints("distmsg --no-print --print", false), "the last one counts");
        assert!(!prints("distmsg --print --no-print", true), "the last one counts");
        let args = parse("distmsg /c.toml --print").expect("right");
        assert_eq!(args.run.config, Some("/c.toml".into()));
        assert!(args.command.is_none());
        for wrong in ["distmsg a b", "distmsg --bogus", "distmsg check --print"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn init_takes_an_answer_to_each_question() {
        let line = "distmsg init c.toml --yes --name a --listen 0.0.0.0 --listen [::]:1 \
                    --advertise h.example --network closed --network-key-file k --auto-links 0 \
                    --interface-port 8080";
        let Ok(Args { command: Some(Command::Init(init)), .. }) = parse(line) else {
            panic!("{line}")
        };
        assert_eq!(format!("{:?}", init.listen), "[0.0.0.0:3000, [::]:1]");
        assert_eq!(format!("{:?}", init.advertise), "[h.example:3000]");
        assert_eq!(init.network, Some(Network::Closed));
        assert_eq!((init.auto_links, init.yes), (Some(0), true));
        assert_eq!(init.interface_port, Some(InterfacePort(Some(8080))));
        for (wrong, why) in [
            ("distmsg init --name=-x", "a name has only letters"),
            ("distmsg init --listen a:x", "the port is not a number"),
            ("distmsg init --advertise 0.0.0.0", "nobody can dial"),
            ("distmsg init --network shut", "write \"open\""),
            ("distmsg init --interface-port 0", "a port from 1 to 65535, or none"),
            ("distmsg init --interface-port 65536", "a port from 1 to 65535, or none"),
            ("distmsg init --auto-links 65", "a number from 0 to 64"),
        ] {
            let error = parse(wrong).expect_err(wrong).to_string();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn lab_has_defaults_and_bounds() {
        let lab = |line: &str| match parse(line) {
            Ok(Args { command: Some(Command::Lab(lab)), .. }) => Some(lab),
            _ => None,
        };
        let defaults = lab("distmsg lab").expect("right");
        assert_eq!((defaults.nodes, defaults.topology), (3, Topology::Line));
        let random = lab("distmsg lab 9 --topology random --seed 7").expect("right");
        assert_eq!((random.topology, random.seed), (Topology::Random, Some(7)));
        assert!(lab("distmsg lab 1").is_none() && lab("distmsg lab 257").is_none());
        for (wrong, why) in [
            ("distmsg lab -1", "write a number from 2 to 256"),
            ("distmsg lab --seed -1", "write a whole number"),
            ("distmsg init --auto-links -1", "write a number from 0 to 64"),
        ] {
            let error = parse(wrong).expect_err(wrong).to_string();
            assert!(error.contains(why) && !error.contains("'-- -1'"), "{wrong}: {error}");
        }
    }

    #[test]
    fn help_fits_a_terminal_and_shows_examples() {
        for name in [None, Some("init"), Some("check"), Some("import"), Some("lab")] {
            let mut command = Args::command();
            let command = match name {
                Some(name) => command.find_subcommand_mut(name).expect(name),
                None => &mut command,
            };
            let help = command.render_long_help().to_string();
            assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
            assert!(help.contains("Example") || name == Some("check"), "{help}");
        }
    }
}
