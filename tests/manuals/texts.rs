//! What a made page says that the grammar does not know: variables, files, and what a command's
//! exit codes mean. `made` holds the variables against the source.

use clap::Command;

/// A name and what it is about.
pub(crate) type Entry = (String, String);

/// The parts of one page.
#[derive(Default)]
pub(crate) struct Texts {
    pub(crate) description: &'static [&'static str],
    pub(crate) exits: Vec<Entry>,
    pub(crate) signals: Vec<Entry>,
    pub(crate) environment: Vec<Entry>,
    pub(crate) files: Vec<Entry>,
    pub(crate) see_also: Vec<String>,
}

fn entries(table: &[(&str, &str)]) -> Vec<Entry> {
    table.iter().map(|(name, about)| ((*name).to_owned(), (*about).to_owned())).collect()
}

fn pages(list: &[&str]) -> Vec<String> {
    list.iter().map(|page| (*page).to_owned()).collect()
}

/// The pages of the subcommands.
fn inner(command: &Command, section: &str) -> Vec<String> {
    let all = command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help");
    all.map(|c| format!("{}-{}({section})", command.get_name(), c.get_name())).collect()
}

/// The table of exit codes in a help: what the code itself makes of them.
pub(crate) fn exits(command: &Command) -> Vec<Entry> {
    let help = command.get_after_help().expect("the help goes on below the options").to_string();
    let (_, table) = help.split_once("Exit codes:\n").expect("the help lists the exit codes");
    let lines = table.lines().take_while(|line| line.starts_with("  "));
    lines
        .map(|line| {
            let (code, meaning) = line.trim().split_once(' ').expect("a code and its meaning");
            (code.to_owned(), format!("{}.", upper(meaning.trim())))
        })
        .collect()
}

fn upper(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// distmsgctl(1).
pub(crate) fn ctl(command: &Command) -> Texts {
    let see_also = [
        inner(command, "1"),
        pages(&["distmsg(8)", "distmsg.toml(5)", "distmsg-control(7)", "distmsg-protocol(7)"]),
    ];
    Texts {
        description: &[
            "A peer is named by its alias, by its full ID, or by the beginning of its ID if only \
             one peer has it. Results go to standard output, everything else to standard error. An \
             error is one line that says what to do about it; with --json it is an object with the \
             error's stable code (see distmsg-control(7)).",
            "With --json a result is an object of distmsg-control(7), on one line; of lists and \
             streams each element is one.",
            "At the prompt the commands are the same, without the program's name, and exit, quit \
             or ctrl-D leaves. Messages are shown as they come, and acknowledged by nobody.",
            "The daemon is found at what --socket or --interface names, else at the socket that \
             DISTMSG_SOCKET names, else by the interface port that DISTMSG_INTERFACE_ADDR names, \
             else at the socket of the configuration, else at the user's own, and if there is \
             none, at the system service's. The status command names the one that was used.",
            "A daemon's interface port (see distmsg.toml(5)) serves the same commands over TCP. On \
             this machine that is clear text or TLS; elsewhere it is TLS, and PEER_ID must be the \
             key that answers, or nothing is sent. The token is what lets one in: it is in the \
             daemon's state directory, and whoever has it may do what the daemon's user may.",
        ],
        exits: exits(command),
        environment: entries(CTL_VARIABLES),
        files: entries(&[
            (
                "$XDG_RUNTIME_DIR/distmsg/socket",
                "The socket of the user's own daemon. Without XDG_RUNTIME_DIR it is in \
                 $TMPDIR/distmsg-UID, which nobody else can enter.",
            ),
            ("/run/distmsg/socket", "The socket of the system service, for the group distmsg."),
            (
                "$XDG_CONFIG_HOME/distmsg/config.toml",
                "The configuration, of which only what names the way to the daemon is used.",
            ),
            ("$XDG_STATE_HOME/distmsg/history", "What was typed at the prompt."),
            (
                "$XDG_STATE_HOME/distmsg/interface-token, /var/lib/distmsg/interface-token",
                "The token of an interface port of this machine.",
            ),
        ]),
        see_also: see_also.concat(),
        ..Texts::default()
    }
}

/// Variables of distmsgctl.
pub(crate) const CTL_VARIABLES: &[(&str, &str)] = &[
    ("DISTMSG_SOCKET", "The daemon's socket, where neither --socket nor --interface is given."),
    (
        "DISTMSG_INTERFACE_ADDR",
        "The daemon's interface port, where nothing before it is given: [PEER_ID@]HOST:PORT.",
    ),
    ("DISTMSG_TOKEN_FILE", "The interface port's token, where --token-file does not name it."),
    (
        "DISTMSG_CONFIG",
        "The configuration file that names the socket, where --config does not name it.",
    ),
    (
        "CONFIGURATION_DIRECTORY",
        "Where systemd says the configuration is: config.toml there goes before the user's.",
    ),
    (
        "XDG_CONFIG_HOME",
        "Where the directory distmsg with the user's configuration is; ~/.config by default.",
    ),
    (
        "XDG_STATE_HOME",
        "Where the directory distmsg with the prompt's history is; ~/.local/state by default.",
    ),
    (
        "XDG_RUNTIME_DIR",
        "Where the directory distmsg with the socket of the user's daemon is. In all of these a \
         relative path counts as none.",
    ),
    ("TMPDIR", "Where the socket of the user's daemon is without XDG_RUNTIME_DIR; else /tmp."),
    ("HOME", "The user's home directory; by default that of the user database."),
    ("NO_COLOR", "If it is not empty, there are no colours. Without a terminal there never are."),
    ("TERM", "If it is dumb or not set, there are no colours and no progress is shown."),
    ("TZ", "The time zone in which times are shown."),
    (
        "COMPLETE",
        "bash, zsh or fish: the script that makes this shell complete command lines is printed, \
         instead of anything else, if there are no arguments. The script sets it too.",
    ),
];

/// distmsg(8).
pub(crate) fn daemon(command: &Command) -> Texts {
    let see_also = [
        inner(command, "8"),
        pages(&["distmsgctl(1)", "distmsg.toml(5)", "distmsg-control(7)", "distmsg-protocol(7)"]),
        pages(&["journalctl(1)", "systemd.exec(5)", "systemd.socket(5)"]),
    ];
    Texts {
        description: &[
            "At its first start the node makes its identity, an Ed25519 key. Whoever has that file \
             can be this node, and whoever loses it is another one: back up the state directory \
             while the daemon is stopped.",
            "A socket that was removed while the daemon runs is made again when the daemon next \
             wakes, within half a minute at most.",
            "A service manager is told by sd_notify(3) when the node is ready, how many peers are \
             linked and how many messages wait, that it lives (WatchdogSec=, from the node's own \
             loop), how a reload went, and that it stops. A control socket that systemd made \
             before is taken over, and left behind.",
        ],
        exits: exits(command),
        signals: entries(&[
            ("SIGTERM, SIGINT", "What is under way is brought to its end, and the daemon ends."),
            (
                "SIGHUP",
                "The configuration is read again. What can change while the daemon runs does, of \
                 the rest it is said that it waits for the next start (see distmsg.toml(5)). A \
                 file that is wrong changes nothing: the log, distmsgctl status and the service \
                 manager are told why.",
            ),
        ]),
        environment: entries(DAEMON_VARIABLES),
        files: entries(&[
            (
                "$XDG_CONFIG_HOME/distmsg/config.toml, /etc/distmsg/config.toml",
                "The configuration of a user's daemon and of the system service: distmsg.toml(5).",
            ),
            (
                "$XDG_STATE_HOME/distmsg, /var/lib/distmsg",
                "The state directory. In it: identity.pem, the node's key, for its owner only; \
                 network.key, the key of a closed network, likewise; distmsg.db, messages, peers \
                 and sessions, in SQLite; interface-token, which lets programs in at the interface \
                 port, made when there is one first; lock, which keeps a second daemon from the \
                 same state.",
            ),
            (
                "$XDG_RUNTIME_DIR/distmsg/socket, /run/distmsg/socket",
                "The control socket: distmsg-control(7).",
            ),
        ]),
        see_also: see_also.concat(),
    }
}

/// Variables of distmsg.
pub(crate) const DAEMON_VARIABLES: &[(&str, &str)] = &[
    ("DISTMSG_CONFIG", "The configuration file, where no argument names it."),
    (
        "DISTMSG_LOG",
        "What is logged, whatever the configuration says: error, warn, info, debug, trace, or a \
         filter such as distmsg::link=debug.",
    ),
    (
        "CONFIGURATION_DIRECTORY, STATE_DIRECTORY, RUNTIME_DIRECTORY",
        "The directories that systemd made for the service: the first with config.toml if it is \
         there, the state, and the socket. Of the system service the socket is for its group \
         too. See systemd.exec(5).",
    ),
    (
        "CREDENTIALS_DIRECTORY",
        "Where systemd put credentials: identity.pem and network.key there go before those in the \
         state directory.",
    ),
    (
        "XDG_CONFIG_HOME, XDG_STATE_HOME, XDG_RUNTIME_DIR",
        "Where the directory distmsg with the user's configuration, state and socket is; by \
         default ~/.config, ~/.local/state, and a private directory in TMPDIR. A relative path \
         counts as none.",
    ),
    ("TMPDIR", "Where that private directory is; /tmp by default."),
    ("HOME", "The user's home directory; by default that of the user database."),
    (
        "JOURNAL_STREAM",
        "Set by systemd where standard error leads to the journal: then the log goes there with \
         fields of its own, so that 'journalctl DISTMSG_PEER=ID' finds all that concerns a peer, \
         and DISTMSG_ADDRESS= an address. Neither bodies, subjects nor keys are logged at any \
         level.",
    ),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID",
        "Set by a service manager that wants to be told: sd_notify(3), sd_watchdog_enabled(3).",
    ),
    (
        "LISTEN_FDS, LISTEN_PID",
        "Set by systemd where it hands over the control socket: sd_listen_fds(3).",
    ),
    ("NO_COLOR", "If it is not empty, the log has no colours. Without a terminal it never has."),
    ("COMPLETE", "As for distmsgctl(1)."),
];

/// What of distmsgctl's codes a command can end with beside those that every command has: 0, 1, 2,
/// 3, 130 and 143.
const CODES: &[(&str, &[(&str, &str)])] = &[
    ("id", &[]),
    ("status", &[]),
    (
        "connect",
        &[
            ("4", "The link is not up in time; the peer is kept and dialled on."),
            ("6", "Another key answers at the address. Nothing was sent to it."),
            (
                "7",
                "The peer refused the link (another network, another version), or too many peers \
                 are known.",
            ),
        ],
    ),
    (
        "disconnect",
        &[("8", "There is no such peer, or several, or it has no link and none is kept.")],
    ),
    ("forget", &[("8", "There is no such peer, or several.")]),
    (
        "alias",
        &[
            ("1", "Among other failures: another peer has this alias."),
            ("7", "There are too many peers with an alias."),
            ("8", "There is no such peer, or several."),
        ],
    ),
    ("peers", &[]),
    ("routes", &[]),
    ("ping", &[("5", "No answer came in time."), ("8", "There is no such peer, or several.")]),
    ("discover", &[("5", "No neighbour answered in time.")]),
    (
        "send",
        &[
            ("0", "What was waited for is true."),
            ("1", "Among other failures: the message expired before it was delivered."),
            ("4", "It is not true in time. The message stays queued, and will be delivered."),
            ("7", "The message is too large, the outbox is full, or the key is used otherwise."),
            ("8", "There is no such peer, or several."),
        ],
    ),
    (
        "listen",
        &[
            ("0", "As many messages were printed as --count says, or at least one with --timeout."),
            ("5", "With --timeout: fewer messages came in time."),
            ("8", "There is no such peer as --from says, or several."),
            ("143", "Ended by SIGTERM, with --count or --timeout. Without both that is 0."),
        ],
    ),
    (
        "listeners",
        &[
            ("7", "Somebody listens by the name that is to be removed."),
            ("8", "There is no such listener."),
        ],
    ),
    ("inbox", &[("8", "There is no such peer as --from says, or several.")]),
    ("outbox", &[]),
    ("log", &[]),
];

/// A subcommand of distmsgctl.
pub(crate) fn ctl_command(name: &str) -> Texts {
    let found = CODES.iter().find(|(known, _)| *known == name);
    let (_, codes) = found.unwrap_or_else(|| {
        panic!("which exit codes does {name} have? Add it to CODES in tests/manuals/texts.rs")
    });
    let mut exits = entries(codes);
    let usual = match exits.iter().any(|(code, _)| code == "0") {
        true => "The others",
        false => "0, 1, 2, 3, 130, 143",
    };
    exits.push((usual.to_owned(), "As in distmsgctl(1).".to_owned()));
    let mut see_also = pages(&["distmsgctl(1)"]);
    let more: &[&str] = match name {
        "send" => &["distmsgctl-listen(1)", "distmsgctl-outbox(1)", "distmsgctl-ping(1)"],
        "listen" => &["distmsgctl-inbox(1)", "distmsgctl-listeners(1)", "distmsgctl-send(1)"],
        "listeners" | "inbox" => &["distmsgctl-listen(1)"],
        "outbox" => &["distmsgctl-send(1)"],
        "connect" => &["distmsgctl-disconnect(1)", "distmsgctl-id(1)", "distmsgctl-peers(1)"],
        "disconnect" => &["distmsgctl-connect(1)", "distmsgctl-forget(1)"],
        "forget" => &["distmsgctl-disconnect(1)"],
        "alias" | "discover" | "routes" => &["distmsgctl-peers(1)"],
        "peers" => &["distmsgctl-alias(1)", "distmsgctl-connect(1)", "distmsgctl-discover(1)"],
        "ping" => &["distmsgctl-routes(1)", "distmsgctl-send(1)"],
        "status" => &["distmsgctl-peers(1)", "distmsgctl-outbox(1)"],
        "log" => &["distmsg.toml(5)", "journalctl(1)"],
        _ => &[],
    };
    see_also.extend(pages(more));
    see_also.extend(pages(&["distmsg(8)"]));
    Texts { exits, see_also, ..Texts::default() }
}

/// A subcommand of distmsg.
pub(crate) fn daemon_command(name: &str) -> Texts {
    let exits = match name {
        "init" => entries(&[
            ("0", "The configuration was written."),
            ("1", "It was not: there is one, or it cannot be written."),
            ("2", "The command line is wrong."),
            ("78", "What it would say is wrong."),
        ]),
        "check" => entries(&[
            ("0", "The configuration is right."),
            ("2", "The command line is wrong."),
            ("78", "It is not, or cannot be read; each problem is a line on standard error."),
        ]),
        _ => entries(&[("0, 1, 2, 78", "As in distmsg(8).")]),
    };
    let mut see_also = pages(&["distmsg(8)", "distmsg.toml(5)"]);
    if name == "import" || name == "lab" {
        see_also.extend(pages(&["distmsgctl(1)"]));
    }
    Texts { exits, see_also, ..Texts::default() }
}
