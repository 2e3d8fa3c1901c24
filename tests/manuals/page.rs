//! A page made of a command: clap_mangen writes what it knows of it, and what it does not write
//! well, or cannot know, is written here.

use clap::{Arg, ArgAction, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use crate::texts::{Entry, Texts};

/// The page of a command, which was built.
pub(crate) fn of(command: &Command, section: &str, texts: &Texts) -> String {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let version = env!("CARGO_PKG_VERSION");
    // clap_mangen leaves out a date that is empty, and what follows moves into its place. Of a date
    // that changed with each making nobody would have anything.
    let title = format!(
        ".TH {} {section} \"\" \"distmsg {version}\" \"Manual of distmsg\"\n",
        name.to_uppercase().replace('-', "\\-")
    );
    let mut out = format!("{HEAD}{title}").into_bytes();
    let mut roff = Roff::new();
    // Ragged on the right, and no word is hyphenated that somebody may type.
    roff.control("nh", []).control("ad", ["l"]);
    let about = command.get_about().expect("a command says what it does").to_string();
    Man::new(command.clone().about(lower(&about)))
        .render_name_section(&mut out)
        .expect("written to memory");
    synopsis(&mut roff, command);
    let notes = Notes::of(command);
    roff.control("SH", ["DESCRIPTION"]);
    let long = command.get_long_about().map_or(format!("{about}."), ToString::to_string);
    // What stands under NAME already is not said again, if there is more to say.
    let long = long.split_once("\n\n").map_or(&*long, |(_, more)| more);
    paragraphs(&mut roff, long);
    notes.paragraphs.iter().for_each(|text| paragraphs(&mut roff, text));
    for paragraph in texts.description {
        paragraphs(&mut roff, paragraph);
    }
    // How the values are written that have no words of their own.
    for (name, how) in VALUES {
        if command.get_arguments().any(|arg| value_name(arg) == *name) {
            paragraphs(&mut roff, how);
        }
    }
    options(&mut roff, command);
    commands(&mut roff, command, section);
    for (heading, lines) in &notes.sections {
        section_of(&mut roff, heading, lines);
    }
    entries(&mut roff, "EXIT STATUS", &texts.exits);
    entries(&mut roff, "SIGNALS", &texts.signals);
    entries(&mut roff, "ENVIRONMENT", &texts.environment);
    entries(&mut roff, "FILES", &texts.files);
    roff.control("SH", ["SEE ALSO"]);
    see_also(&mut roff, &texts.see_also);
    roff.to_writer(&mut out).expect("written to memory");
    // Each part begins with what it needs of the page.
    let text = String::from_utf8(out).expect("text");
    let (before, after) = text.split_once(PREAMBLE).expect("roff begins like this");
    let text = format!("{before}{PREAMBLE}{}", after.replace(PREAMBLE, ""));
    // A section begins a paragraph by itself.
    let mut lines: Vec<&str> = text.lines().collect();
    lines.dedup_by(|line, before| *line == ".PP" && before.starts_with(".SH "));
    lines.join("\n") + "\n"
}

/// Kinds of values, and how they are written.
const VALUES: &[(&str, &str)] = &[
    (
        "DURATION",
        "A DURATION is 10s, 500ms, 2m, 1h30m, 1.5h or 1d, or a bare number, which is seconds.",
    ),
    (
        "TIME|AGO",
        "A TIME is as in RFC 3339, such as 2026-01-31T18:00:00Z, or local, such as \
         2026-01-31T18:00 or 2026-01-31; AGO is how long ago that was: 90s, 10m, 2h.",
    ),
];

/// How roff begins: an apostrophe that is none of typography's.
const PREAMBLE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

const HEAD: &str =
    ".\\\" Made of the program's own grammar: DISTMSG_BLESS=1 cargo test --test manuals\n";

/// The beginning of a sentence as it stands behind a dash.
fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

fn paragraphs(roff: &mut Roff, text: &str) {
    for paragraph in text.split("\n\n") {
        roff.control("PP", []);
        roff.text([roman(paragraph.replace('\n', " "))]);
    }
}

/// What is below the options in the help: paragraphs, and sections with a heading.
struct Notes {
    paragraphs: Vec<String>,
    sections: Vec<(String, Vec<String>)>,
}

impl Notes {
    fn of(command: &Command) -> Self {
        let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let mut notes = Self { paragraphs: Vec::new(), sections: Vec::new() };
        for part in text.split("\n\n").filter(|part| !part.is_empty()) {
            let mut lines = part.lines();
            let first = lines.next().expect("not empty");
            match first.strip_suffix(':') {
                // What is said with more words in the manual, and what only the help must say.
                Some("Exit codes" | "Environment") => {}
                None if first.starts_with("The manual is ") => {}
                Some(heading) => {
                    let heading = heading.replace("Example", "EXAMPLE").to_uppercase();
                    let heading =
                        if heading == "EXAMPLE" { "EXAMPLES".to_owned() } else { heading };
                    notes.sections.push((heading, lines.map(str::to_owned).collect()));
                }
                None => notes.paragraphs.push(part.to_owned()),
            }
        }
        notes
    }
}

/// Whether a line is what somebody types.
fn is_typed_line(line: &str) -> bool {
    ["  distmsg", "  export "].iter().any(|begins| line.starts_with(begins))
}

/// A section of lines that are indented by two in the help: examples as they are, text filled.
fn section_of(roff: &mut Roff, heading: &str, lines: &[String]) {
    roff.control("SH", [heading]);
    if heading != "EXAMPLES" && !lines.iter().all(|line| is_typed_line(line)) {
        let text: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
        paragraphs(roff, &text.join(" "));
        return;
    }
    // An example with what it does beside or below it, or an example alone.
    let mut pending: Option<(String, String)> = None;
    let mut all = Vec::new();
    for line in lines {
        let line = line.strip_prefix("  ").unwrap_or(line);
        match line.trim_start() {
            meaning if line.starts_with("      ") => {
                if let Some((_, known)) = &mut pending {
                    known.push_str(meaning);
                }
            }
            line => {
                all.extend(pending.take());
                let (example, meaning) = line.split_once("   ").unwrap_or((line, ""));
                pending = Some((example.to_owned(), meaning.trim().to_owned()));
            }
        }
    }
    all.extend(pending);
    if all.iter().all(|(_, meaning)| meaning.is_empty()) {
        roff.control("PP", []).control("nf", []).control("RS", ["4"]);
        all.iter().for_each(|(example, _)| {
            roff.text([roman(example.as_str())]);
        });
        roff.control("RE", []).control("fi", []);
        return;
    }
    for (example, meaning) in all {
        roff.control("TP", []);
        roff.text([bold(example)]);
        roff.text([roman(format!("{}.", upper(&meaning)))]);
    }
}

fn upper(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// What is typed: the options of this command, then its arguments.
fn synopsis(roff: &mut Roff, command: &Command) {
    roff.control("SH", ["SYNOPSIS"]);
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let mut forms: Vec<Vec<Inline>> = vec![Vec::new()];
    for arg in command.get_arguments().filter(|arg| is_own(arg)) {
        forms[0].push(roman(" ["));
        forms[0].extend(written(arg, "|"));
        forms[0].push(roman(if takes_many(arg) { "]..." } else { "]" }));
    }
    for arg in command.get_positionals() {
        let (open, close) = if arg.is_required_set() { (" ", "") } else { (" [", "]") };
        forms[0].extend([roman(open), italic(value_name(arg)), roman(close)]);
    }
    if command.has_subcommands() {
        forms.push(vec![roman(" "), italic("COMMAND"), roman(" [...]")]);
    }
    for (at, form) in forms.into_iter().enumerate() {
        if at > 0 {
            roff.control("br", []);
        }
        roff.text([vec![bold(name)], form].concat());
    }
}

/// Not one of those that every command has.
fn is_own(arg: &Arg) -> bool {
    let of_all = arg.is_global_set() || matches!(arg.get_id().as_str(), "help" | "version");
    !arg.is_positional() && !arg.is_hide_set() && !of_all
}

fn takes_many(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append | ArgAction::Count)
}

fn value_name(arg: &Arg) -> String {
    match arg.get_value_names() {
        Some([name, ..]) => name.to_string(),
        _ => arg.get_id().as_str().to_uppercase(),
    }
}

/// An option as it is typed, with its value.
fn written(arg: &Arg, between: &str) -> Vec<Inline> {
    let short = arg.get_short().map(|short| bold(format!("-{short}")));
    let long = arg.get_long().map(|long| bold(format!("--{long}")));
    let mut line: Vec<Inline> = match (short, long) {
        (Some(short), Some(long)) => vec![short, roman(between), long],
        (short, long) => short.into_iter().chain(long).collect(),
    };
    if arg.get_action().takes_values() {
        line.extend([roman(" "), italic(value_name(arg))]);
    }
    line
}

/// Arguments first, then the command's own options, then those of all commands.
fn options(roff: &mut Roff, command: &Command) {
    let positionals: Vec<&Arg> = command.get_positionals().collect();
    let is_option = |arg: &&Arg| !arg.is_positional() && !arg.is_hide_set();
    let (global, own): (Vec<&Arg>, Vec<&Arg>) =
        command.get_arguments().filter(is_option).partition(|arg| arg.is_global_set());
    for (heading, args) in
        [("ARGUMENTS", positionals), ("OPTIONS", own), ("GLOBAL OPTIONS", global)]
    {
        if args.is_empty() {
            continue;
        }
        roff.control("SH", [heading]);
        for arg in args {
            roff.control("TP", []);
            match arg.is_positional() {
                true => roff.text([italic(value_name(arg))]),
                false => roff.text(written(arg, ", ")),
            };
            about(roff, arg);
        }
    }
}

/// What an argument does, its default and the values it takes.
fn about(roff: &mut Roff, arg: &Arg) {
    let help = arg.get_long_help().or_else(|| arg.get_help()).expect("an argument is explained");
    let help = match arg.get_id().as_str() {
        // There it refers to the shorter help.
        "help" => "Print help".to_owned(),
        _ => help.to_string().replace('\n', " "),
    };
    // The last part of some is a default that the program works out.
    let (text, said) = match help.split_once(" [") {
        Some((text, said)) => (text.to_owned(), format!(" [{said}")),
        None => (help, String::new()),
    };
    let mut sentence = format!("{}.", text.trim_end_matches('.'));
    for said in said.split(" [").filter_map(|said| said.strip_suffix(']')) {
        match said.split_once(": ").expect("a kind and a value") {
            ("env", value) => sentence.push_str(&format!(" Environment: {value}.")),
            (kind, value) if kind.starts_with("default") => {
                sentence.push_str(&format!(" {}: {value}.", upper(kind)));
            }
            (other, _) => panic!("what is [{other}: ...] in the help of {}?", arg.get_id()),
        }
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
    if arg.get_action().takes_values() && !defaults.is_empty() {
        sentence.push_str(&format!(" Default: {}.", defaults.join(", ")));
    }
    let values = match arg.get_action().takes_values() {
        true => arg.get_possible_values(),
        false => Vec::new(),
    };
    let values: Vec<_> = values.iter().filter(|value| !value.is_hide_set()).collect();
    let explained = values.iter().any(|value| value.get_help().is_some());
    if !values.is_empty() && !explained {
        let words: Vec<&str> = values.iter().map(|value| value.get_name()).collect();
        sentence.push_str(&format!(" One of {}.", words.join(", ")));
    }
    roff.text([roman(sentence)]);
    if !explained {
        return;
    }
    roff.control("RS", []);
    for value in values {
        roff.control("TP", []);
        roff.text([bold(value.get_name())]);
        let help = value.get_help().expect("all values are explained, or none");
        roff.text([roman(format!("{help}."))]);
    }
    roff.control("RE", []);
}

/// The subcommands, each with its own page.
fn commands(roff: &mut Roff, command: &Command, section: &str) {
    let all: Vec<&Command> =
        command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help").collect();
    if all.is_empty() {
        return;
    }
    roff.control("SH", ["COMMANDS"]);
    for inner in all {
        let name = format!("{}-{}", command.get_name(), inner.get_name());
        let about = inner.get_about().expect("a command says what it does");
        roff.control("TP", []);
        roff.text([bold(name), roman(format!("({section})"))]);
        roff.text([roman(format!("{about}."))]);
    }
}

fn entries(roff: &mut Roff, heading: &str, entries: &[Entry]) {
    if entries.is_empty() {
        return;
    }
    roff.control("SH", [heading]);
    for (name, about) in entries {
        roff.control("TP", []);
        roff.text([bold(name.clone())]);
        roff.text([roman(about.clone())]);
    }
}

fn see_also(roff: &mut Roff, pages: &[String]) {
    let mut line = Vec::new();
    for (at, page) in pages.iter().enumerate() {
        let (name, section) = page.split_once('(').expect("NAME(SECTION)");
        let end = if at + 1 < pages.len() { ", " } else { "" };
        line.extend([bold(name), roman(format!("({section}{end}"))]);
    }
    roff.text(line);
}
