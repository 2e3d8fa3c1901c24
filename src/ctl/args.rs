//! The grammar: one for the shell and the prompt.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

use super::exit::Exit;
use super::verb;

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
}
