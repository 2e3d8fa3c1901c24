//! The prompt on a terminal.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::complete::{Completion, Refresh};
use super::editor::{Editor, Typed};
use super::watch::{Seen, Watch};
use super::{Asked, Shell, grammar, parse, show_help};
use crate::config;
use crate::ctl::args::Verb;
use crate::ctl::context::Context;
use crate::ctl::exit::{Exit, Failed};
use crate::ctl::output::{explain, say};
use crate::ctl::{conclude, perform};

/// Lines kept while a command runs, to be shown after it.
const HELD_LINES_MAX: usize = 1_000;

/// Ends bracketed paste, which the line editor begins.
const BRACKETED_PASTE_OFF: &str = "\x1b[?2004l";

const GONE: &str = "the daemon went away; the next command looks for it again";

/// Runs the prompt until the person leaves it.
pub(crate) async fn run(shell: &Shell, greeting: Option<&str>) -> Exit {
    let mut watch = Watch::new();
    if let Err(failed) = watch.connect(&shell.endpoint).await {
        explain(&failed, shell.json);
        return failed.exit;
    }
    let (refresh, refreshes) = mpsc::channel(1);
    let completion = Completion::new(grammar(), Arc::clone(&watch.names), refresh);
    let started = Editor::start(completion, config::history_file());
    let (Ok(editor), Ok(terminated)) = (started, signal(SignalKind::terminate())) else {
        let failed = Failed::local("this terminal cannot be used for a prompt; give a command");
        explain(&failed, shell.json);
        return failed.exit;
    };
    let default = "'help' lists the commands, ctrl-D leaves";
    say(greeting.unwrap_or(default).trim_end());
    let before = tcgetattr(io::stdin().as_fd()).ok();
    let held = Held::default();
    let mut session = Session { shell, watch, editor, refreshes, terminated, held, before };
    session.run().await
}

struct Session<'a> {
    shell: &'a Shell,
    watch: Watch,
    editor: Editor,
    /// The tab key wants to know the newest names.
    refreshes: mpsc::Receiver<Refresh>,
    terminated: Signal,
    held: Held,
    /// How the terminal was, to leave it so when we are ended in the middle of a line.
    before: Option<Termios>,
}

impl Session<'_> {
    async fn run(&mut self) -> Exit {
        loop {
            self.held.show();
            self.editor.ask(&format!("{}> ", self.watch.name));
            let Some(typed) = self.typed().await else {
                self.restore_terminal();
                return Exit::Terminated;
            };
            let line = match typed {
                Typed::Line(line) => line,
                Typed::Dropped => continue,
                Typed::End => return Exit::Done,
            };
            match parse(&line) {
                Ok(Asked::Nothing) => {}
                Ok(Asked::Exit) => return Exit::Done,
                Ok(Asked::Help(text)) => {
                    show_help(&text, self.shell.json);
                }
                Ok(Asked::Run(verb, json)) => {
                    // Only this ends the prompt; every other failure was explained.
                    if self.perform(verb, json).await == Exit::Terminated {
                        return Exit::Terminated;
                    }
                }
                Err(failed) => explain(&failed, self.shell.json),
            }
        }
    }

    /// The next line, showing what comes meanwhile. None if we are to end.
    async fn typed(&mut self) -> Option<Typed> {
        loop {
            let seen = tokio::select! {
                typed = self.editor.typed() => return Some(typed),
                _ = self.terminated.recv() => return None,
                Some(refreshed) = self.refreshes.recv() => {
                    self.watch.refresh().await;
                    // It may have waited long enough.
                    let _ = refreshed.send(());
                    continue;
                }
                seen = self.watch.next() => seen,
            };
            let line = match seen {
                Seen::Line(line, _) => line,
                Seen::Gone => GONE.to_owned(),
            };
            if !self.editor.show(line) {
                self.held.missed += 1;
            }
        }
    }

    /// Runs a command; what comes meanwhile is shown after it.
    async fn perform(&mut self, verb: Verb, json: bool) -> Exit {
        if !self.watch.is_connected() && self.watch.connect(&self.shell.endpoint).await.is_ok() {
            say("the daemon is back");
        }
        let listens = matches!(verb, Verb::Listen(_));
        let json = json || self.shell.json;
        let mut context = Context::new(self.shell.endpoint.clone(), json, false);
        let mut running = std::pin::pin!(perform(verb, &mut context));
        let result = loop {
            tokio::select! {
                result = &mut running => break result,
                seen = self.watch.next() => match seen {
                    // It prints them itself.
                    Seen::Line(_, true) if listens => {}
                    Seen::Line(line, _) => self.held.push(line),
                    Seen::Gone => self.held.push(GONE.to_owned()),
                },
            }
        };
        conclude(result, json)
    }

    fn restore_terminal(&self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, before);
            say(BRACKETED_PASTE_OFF);
        }
    }
}

/// Lines that came while nobody could be shown them.
#[derive(Default)]
struct Held {
    lines: Vec<String>,
    missed: u64,
}

impl Held {
    fn push(&mut self, line: String) {
        if self.lines.len() < HELD_LINES_MAX {
            self.lines.push(line);
        } else {
            self.missed += 1;
        }
    }

    fn show(&mut self) {
        self.lines.drain(..).for_each(|line| say(&line));
        let missed = std::mem::take(&mut self.missed);
        if missed > 0 {
            say(&format!("… and {missed} more, which 'inbox' lists"));
        }
    }
}
