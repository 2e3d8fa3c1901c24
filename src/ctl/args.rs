//! The grammar: one for the shell and the prompt.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

use super::exit::Exit;
use super::verb;
use crate::model::InterfaceAddress;

/// Everything a command line can say.
#[derive(Debug, Parser)]
#[command(
    name = "distmsgctl",
    version,
    about = "Sends and receives messages through the distmsg daemon of this machine",
    long_about = "Sends and receives messages through the distmsg daemon of this machine.\n\n\
        Without a command it opens a prompt on a terminal; from a pipe it runs the lines as a \
        script, stopping at the first that fails.",
    after_help = notes(),
    disable_help_subcommand = false,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
}

/// What stands below the options.
fn notes() -> String {
    let mut notes = String::from(
        "In pipes:\n  \
         A message is acknowledged once its line is written, and a pipe holds many lines that \
         nobody may\n  \
         ever read: write 'distmsgctl listen --count 1', not 'distmsgctl listen | head -1'.\n\n\
         By the TCP interface port:\n  \
         distmsgctl --interface dm1...ID...@cellar:8080 --token-file ~/cellar.token status\n  \
         export DISTMSG_INTERFACE_ADDR=127.0.0.1:8080     use the interface port of this \
         machine\n\n\
         Exit codes:",
    );
    for exit in Exit::ALL {
        notes.push_str(&format!("\n  {:<4} {}", exit as u8, exit.meaning()));
    }
    notes.push_str(
        "\n\nThe manual is distmsgctl(1); each command has a page, such as distmsgctl-send(1).",
    );
    notes
}

/// Options of all commands.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Global {
    /// Print JSON: one object, or one a line for lists and streams
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// The daemon's socket [env: DISTMSG_SOCKET]
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        value_hint = ValueHint::AnyPath,
        help_heading = "Global options"
    )]
    pub(crate) socket: Option<PathBuf>,
    /// The daemon's TCP interface port, in place of the socket; elsewhere than on this machine with
    /// the peer ID that must answer [env: DISTMSG_INTERFACE_ADDR]
    #[arg(
        long,
        global = true,
        value_name = "[PEER_ID@]HOST:PORT",
        conflicts_with = "socket",
        help_heading = "Global options"
    )]
    pub(crate) interface: Option<InterfaceAddress>,
    /// The interface port's token [env: DISTMSG_TOKEN_FILE] [default on this machine:
    /// interface-token in the daemon's state directory]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        help_heading = "Global options"
    )]
    pub(crate) token_file: Option<PathBuf>,
    /// The configuration file that names the socket [env: DISTMSG_CONFIG]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        help_heading = "Global options"
    )]
    pub(crate) config: Option<PathBuf>,
}

/// The commands, each in its own file.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Id(verb::id::Id),
    Status(verb::status::Status),
    Connect(verb::connect::Connect),
    Disconnect(verb::disconnect::Disconnect),
    Forget(verb::forget::Forget),
    Alias(verb::alias::Alias),
    Peers(verb::peers::Peers),
    Routes(verb::routes::Routes),
    Ping(verb::ping::Ping),
    Discover(verb::discover::Discover),
    Send(verb::send::Send),
    Listen(verb::listen::Listen),
    Listeners(verb::listeners::Listeners),
    Inbox(verb::inbox::Inbox),
    Outbox(verb::outbox::Outbox),
    Log(verb::log::Log),
}
