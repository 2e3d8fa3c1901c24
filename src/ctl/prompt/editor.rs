//! The line editor, in a thread of its own, for it waits for keys.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc as std_mpsc;
use std::thread;

use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{CompletionType, Config, Editor as LineEditor, ExternalPrinter};
use tokio::sync::mpsc;

use super::complete::Completion;
use crate::ctl::output::say;

/// Lines remembered from one session to the next.
const HISTORY_LINES_MAX: usize = 1_000;

/// Lines that may wait to be shown above the one being typed.
const SHOWN_WAITING_MAX: usize = 1_024;

/// What came of asking for a line.
pub(crate) enum Typed {
    /// A line.
    Line(String),
    /// Ctrl-C: the line is dropped.
    Dropped,
    /// Ctrl-D, or the terminal is gone.
    End,
}

/// The editor's other end.
pub(crate) struct Editor {
    asks: std_mpsc::Sender<String>,
    typed: mpsc::Receiver<Typed>,
    /// To the thread that shows lines; none where the terminal cannot do that.
    shown: Option<std_mpsc::SyncSender<String>>,
}

impl Editor {
    pub(crate) fn start(
        completion: Completion,
        history: Option<PathBuf>,
    ) -> rustyline::Result<Self> {
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .max_history_size(HISTORY_LINES_MAX)?
            .history_ignore_dups(true)?
            .history_ignore_space(true)
            .build();
        let mut editor: LineEditor<Completion, DefaultHistory> = LineEditor::with_config(config)?;
        editor.set_helper(Some(completion));
        if let Some(history) = &history {
            // There is none yet at the first time; and without one the prompt works as well.
            let _ = editor.load_history(history);
        }
        let shown = editor.create_external_printer().ok().map(show_in_thread).transpose()?;
        let (asks, asked) = std_mpsc::channel::<String>();
        let (sender, typed) = mpsc::channel(1);
        thread::Builder::new().name("editor".into()).spawn(move || {
            while let Ok(prompt) = asked.recv() {
                let line = read_line(&mut editor, &prompt, history.as_deref());
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { asks, typed, shown })
    }

    /// Asks for a line; [`Editor::typed`] has it when it was typed.
    pub(crate) fn ask(&self, prompt: &str) {
        // Only a thread that ended does not listen, and then `typed` says so.
        let _ = self.asks.send(prompt.to_owned());
    }

    /// The line that was typed.
    pub(crate) async fn typed(&mut self) -> Typed {
        self.typed.recv().await.unwrap_or(Typed::End)
    }

    /// Shows a line above the one being typed. False if there are more than anybody reads.
    pub(crate) fn show(&self, line: String) -> bool {
        match &self.shown {
            Some(shown) => shown.try_send(line).is_ok(),
            None => {
                say(&line);
                true
            }
        }
    }
}

/// A thread that shows lines. The printer waits while the editor is busy, and the prompt must not.
fn show_in_thread(
    mut printer: impl ExternalPrinter + Send + 'static,
) -> std::io::Result<std_mpsc::SyncSender<String>> {
    let (shown, lines) = std_mpsc::sync_channel::<String>(SHOWN_WAITING_MAX);
    thread::Builder::new().name("shown".into()).spawn(move || {
        while let Ok(mut line) = lines.recv() {
            line.push('\n');
            if printer.print(line).is_err() {
                return;
            }
        }
    })?;
    Ok(shown)
}

fn read_line(
    editor: &mut LineEditor<Completion, DefaultHistory>,
    prompt: &str,
    history: Option<&Path>,
) -> Typed {
    match editor.readline(prompt) {
        Ok(line) => {
            let new = !line.trim().is_empty() && editor.add_history_entry(&*line).unwrap_or(false);
            if let Some(history) = history.filter(|_| new) {
                // At once, so that a terminal that is closed loses nothing. The file is ours alone.
                if let Some(directory) = history.parent() {
                    let _ = DirBuilder::new().recursive(true).mode(0o700).create(directory);
                }
                let _ = editor.append_history(history);
            }
            Typed::Line(line)
        }
        Err(ReadlineError::Interrupted) => Typed::Dropped,
        Err(_) => Typed::End,
    }
}
