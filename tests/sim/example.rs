//! The simulator by itself: as many worlds as asked for, on all cores, and a table of what came of
//! them.
//!
//! `cargo run --release --example sim -- --seeds 300 --nodes 20` looks for violations of what
//! distmsg promises; `--seed 42` with the same options replays one world and, if it fails, finds
//! the shortest plan that still does.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a harness that panics is a test that fails"
)]
#![allow(dead_code, reason = "the tests use the rest")]

mod disk;
mod hostile;
mod network;
mod plan;
mod referee;
mod report;
mod swarm;
mod world;

use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;

use hostile::{KINDS, Kind};
use plan::{Options, Pairs, Plan};
use report::Report;
use swarm::{Outcome, Part};

/// Runs worlds of nodes on virtual time and looks for violations of what distmsg promises.
#[derive(Parser, Debug)]
struct Args {
    /// How many worlds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The seed of the first one.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Only this one, in detail.
    #[arg(long)]
    seed: Option<u64>,
    /// Nodes in each world, two at least.
    #[arg(long, default_value_t = 20, value_parser = at_least_two)]
    nodes: usize,
    /// Hostile nodes, of a hundred; without it each seed draws up to a third.
    #[arg(long)]
    hostile: Option<u64>,
    /// The only thing hostile nodes do; `each` for one kind after the other, and then any.
    #[arg(long)]
    kind: Option<String>,
    /// No crashes, cuts, full disks, clocks that jump.
    #[arg(long)]
    no_faults: bool,
    /// Messages in each world, or of each pair.
    #[arg(long, default_value_t = 60)]
    messages: u64,
    /// So many pairs talk, or `all` pairs, each message after the one before it.
    #[arg(long, default_value_t = Pairs::Any)]
    pairs: Pairs,
    /// Bytes of the largest body.
    #[arg(long, default_value_t = 8_000)]
    body_max: usize,
    /// Of that one only these steps, by place, with commas between.
    #[arg(long, value_delimiter = ',')]
    steps: Option<Vec<usize>>,
    /// Of that one only these hostile nodes, by place.
    #[arg(long, value_delimiter = ',')]
    hostiles: Option<Vec<usize>>,
    /// Prints what came of the one as JSON.
    #[arg(long, hide = true)]
    child: bool,
    /// Worlds at once; without it as many as there are cores.
    #[arg(long)]
    jobs: Option<usize>,
    /// A file that gets a line of what came of all, under the commit that is checked out.
    #[arg(long)]
    log: Option<PathBuf>,
}

impl Args {
    fn options(&self, seed: u64) -> Options {
        let kind = match self.kind.as_deref() {
            None => None,
            Some("each") => KINDS.get((seed % (KINDS.len() as u64 + 1)) as usize).copied(),
            Some(name) => Some(kind_of(name)),
        };
        Options {
            nodes: self.nodes,
            hostile_percent: self.hostile,
            kind,
            faults: !self.no_faults,
            messages: self.messages,
            pairs: self.pairs,
            body_max: self.body_max,
        }
    }
}

impl Args {
    /// What to ask for to see one world again, or a part of it.
    fn to_repeat(&self, seed: u64, part: Option<&Part>) -> Vec<String> {
        let mut all = vec![
            format!("--seed={seed}"),
            format!("--nodes={}", self.nodes),
            format!("--messages={}", self.messages),
            format!("--pairs={}", self.pairs),
            format!("--body-max={}", self.body_max),
        ];
        all.extend(self.hostile.map(|percent| format!("--hostile={percent}")));
        all.extend(self.kind.as_ref().map(|kind| format!("--kind={kind}")));
        all.extend(self.no_faults.then(|| "--no-faults".to_owned()));
        if let Some(part) = part {
            all.push(format!("--steps={}", list(&part.steps)));
            all.push(format!("--hostiles={}", list(&part.hostile)));
        }
        all
    }

    /// What was asked for, but for which seeds.
    fn asked(&self) -> String {
        let all = self.to_repeat(0, None);
        let all: Vec<_> = all.iter().filter(|arg| !arg.starts_with("--seed=")).collect();
        all.iter().map(|arg| arg.trim_start_matches("--")).collect::<Vec<_>>().join(" ")
    }

    /// The command that does.
    fn command(&self, seed: u64, part: Option<&Part>) -> String {
        format!("cargo run --release --example sim -- {}", self.to_repeat(seed, part).join(" "))
    }

    /// The part of a plan that is asked for.
    fn part(&self, plan: &Plan) -> Part {
        let whole = Part::whole(plan);
        Part {
            steps: self.steps.clone().unwrap_or(whole.steps),
            hostile: self.hostiles.clone().unwrap_or(whole.hostile),
        }
    }
}

/// Whoever sends needs somebody else.
fn at_least_two(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(nodes) if nodes >= 2 => Ok(nodes),
        _ => Err("not a number from 2 on".to_owned()),
    }
}

fn kind_of(name: &str) -> Kind {
    let is = |kind: &&Kind| format!("{kind:?}").eq_ignore_ascii_case(&name.replace('-', ""));
    KINDS.iter().find(is).copied().unwrap_or_else(|| {
        eprintln!("sim: no kind '{name}'; there are {KINDS:?}");
        std::process::exit(2);
    })
}

fn main() -> ExitCode {
    let args = Args::parse();
    match args.seed {
        Some(seed) if args.child => child(&args, seed),
        Some(seed) => replay(&args, seed),
        None => sweep(&args),
    }
}

/// One world in this process. A release build aborts when something panics, the product's own code
/// too: so each world has a process of its own, and its end is part of what came of it.
fn child(args: &Args, seed: u64) -> ExitCode {
    let plan = Plan::draw(seed, &args.options(seed));
    let outcome = swarm::run_through(&args.part(&plan).of(&plan));
    println!("{}", serde_json::to_string(&outcome).expect("it is plain data"));
    println!("{}", peak_kib());
    ExitCode::SUCCESS
}

/// Has a child run one world; what came of it, and the memory it took.
fn run(args: &Args, seed: u64, part: Option<&Part>) -> (Result<Outcome, String>, u64) {
    let this = std::env::current_exe().expect("this program has a file");
    let mut command = Command::new(this);
    command.arg("--child").args(args.to_repeat(seed, part));
    command.env_remove("RUST_BACKTRACE");
    let output = command.output().expect("a child starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let outcome = lines.next().and_then(|line| serde_json::from_str(line).ok());
    let peak_kib = lines.next().and_then(|line| line.parse().ok()).unwrap_or(0);
    match outcome {
        Some(outcome) if output.status.success() => (Ok(outcome), peak_kib),
        _ => (Err(complaint(&String::from_utf8_lossy(&output.stderr))), peak_kib),
    }
}

/// What a panic said, on one line.
fn complaint(stderr: &str) -> String {
    let said = stderr.lines().skip_while(|line| !line.contains("panicked at"));
    let said: Vec<&str> = said.filter(|line| !line.starts_with("note:")).take(4).collect();
    let text = said.join(" ").trim().to_owned();
    if text.is_empty() { "it ended without a word".to_owned() } else { text }
}

fn list(places: &[usize]) -> String {
    if places.is_empty() {
        // An empty list would be no value; a place that no plan has is none.
        return usize::MAX.to_string();
    }
    places.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The most memory this process took.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// One world in detail.
fn replay(args: &Args, seed: u64) -> ExitCode {
    let plan = Plan::draw(seed, &args.options(seed));
    let part = args.part(&plan);
    let started = Instant::now();
    let (outcome, peak_kib) = run(args, seed, Some(&part));
    let why = match outcome {
        Ok(outcome) => {
            let mut report = Report::default();
            report.add(seed, None, Ok(outcome), peak_kib);
            println!("{}", report.table(args.nodes, started.elapsed()));
            return ExitCode::SUCCESS;
        }
        Err(why) => why,
    };
    println!("seed {seed}: {why}");
    if part == Part::whole(&plan) {
        println!("looking for the shortest part that still fails ...");
        let part = swarm::shrink(&plan, 200, |part| run(args, seed, Some(part)).0.is_err());
        println!("{:#?}", part.of(&plan));
        println!("it fails with: {}", run(args, seed, Some(&part)).0.err().unwrap_or_default());
        println!("{}", args.command(seed, Some(&part)));
    }
    println!("violations: 1");
    ExitCode::FAILURE
}

fn sweep(args: &Args) -> ExitCode {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let jobs = args.jobs.unwrap_or(cores).max(1);
    let next = AtomicU64::new(args.first);
    let end = args.first.saturating_add(args.seeds);
    let report = Mutex::new(Report::default());
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let (outcome, peak_kib) = run(args, seed, None);
                    let outcome =
                        outcome.map_err(|why| format!("{why}\n  {}", args.command(seed, None)));
                    let mut report = report.lock().expect("no other thread panics");
                    report.add(seed, args.options(seed).kind, outcome, peak_kib);
                }
            });
        }
        if io::stderr().is_terminal() {
            scope.spawn(|| show_progress(&report, args.seeds, started));
        }
    });
    let mut report = report.into_inner().expect("no thread panics");
    let violations = report.violations();
    let seeds = format!("{}..{end}", args.first);
    let row = report.row(&commit(), &args.asked(), &seeds, started.elapsed());
    println!("{}", report.table(args.nodes, started.elapsed()));
    if let Some(log) = &args.log
        && let Err(error) = note(log, &row)
    {
        eprintln!("sim: cannot write to {}: {error}", log.display());
        return ExitCode::FAILURE;
    }
    if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The commit that is checked out here, and whether something else is.
fn commit() -> String {
    let git = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=9"]).output();
    let said = git.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    said.ok().filter(|said| !said.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

fn note(log: &Path, row: &str) -> io::Result<()> {
    writeln!(OpenOptions::new().create(true).append(true).open(log)?, "{row}")
}

fn show_progress(report: &Mutex<Report>, seeds: u64, started: Instant) {
    loop {
        thread::sleep(Duration::from_millis(500));
        let (done, violations) = {
            let report = report.lock().expect("no other thread panics");
            (report.seeds(), report.violations())
        };
        let seconds = started.elapsed().as_secs();
        eprint!("\r{done} of {seeds} seeds, {violations} violations, {seconds} s ");
        let _ = io::stderr().flush();
        if done >= seeds {
            eprintln!();
            return;
        }
    }
}
