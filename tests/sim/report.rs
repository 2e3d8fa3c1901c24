//! What came of many worlds, as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::hostile::Kind;
use crate::swarm::Outcome;
use crate::world::Counts;

/// Violations that are told in full.
const TOLD_MAX: usize = 20;

/// Sums and distributions over all worlds so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    seeds: u64,
    violations: Vec<(u64, String)>,
    simulated_ms: u64,
    faults: usize,
    counts: Counts,
    shortest: u64,
    delivered: usize,
    attempts: Vec<u64>,
    attempts_late: Vec<u64>,
    /// Both once more, by what was done in worlds in which only one thing was.
    by_kind: BTreeMap<Kind, [Vec<u64>; 2]>,
    latencies_ms: Vec<u64>,
    recoveries_ms: Vec<u64>,
    /// Those of worlds in which nothing went wrong but that the network was cut in two.
    partitions_ms: Vec<u64>,
    /// The most memory a world took.
    peak_kib: u64,
    /// All traces together: equal for equal seeds, in whatever order they ran.
    trace: u64,
}

impl Report {
    /// Adds what came of a world, in which hostile nodes did only one kind of thing or any.
    pub(crate) fn add(
        &mut self,
        seed: u64,
        kind: Option<Kind>,
        outcome: Result<Outcome, String>,
        peak_kib: u64,
    ) {
        self.seeds += 1;
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(why) => return self.violations.push((seed, why)),
        };
        self.simulated_ms += outcome.simulated_ms;
        self.faults += outcome.faults;
        self.shortest += outcome.shortest;
        self.counts.frames += outcome.counts.frames;
        self.counts.bytes += outcome.counts.bytes;
        self.counts.carried += outcome.counts.carried;
        self.counts.crashes += outcome.counts.crashes;
        self.counts.breaks += outcome.counts.breaks;
        self.counts.failures += outcome.counts.failures;
        self.counts.torn += outcome.counts.torn;
        self.delivered += outcome.delivered;
        if let Some(kind) = kind {
            let [all, late] = self.by_kind.entry(kind).or_default();
            all.extend(&outcome.attempts);
            late.extend(&outcome.attempts_late);
        }
        self.attempts.extend(outcome.attempts);
        self.attempts_late.extend(outcome.attempts_late);
        self.latencies_ms.extend(outcome.latencies_ms);
        self.recoveries_ms.push(outcome.recovered_ms);
        self.partitions_ms.extend(outcome.only_partitioned.then_some(outcome.recovered_ms));
        self.trace ^= outcome.trace;
        self.peak_kib = self.peak_kib.max(peak_kib);
    }

    pub(crate) fn seeds(&self) -> u64 {
        self.seeds
    }

    pub(crate) fn violations(&self) -> usize {
        self.violations.len()
    }

    /// What matters of it as a row of `tests/sim/TOTALS.md`.
    pub(crate) fn row(&mut self, commit: &str, asked: &str, seeds: &str, took: Duration) -> String {
        self.sort();
        let of = |attempts: &[u64]| match attempts.is_empty() {
            true => "–".to_owned(),
            false => {
                format!(
                    "{}, {}, {}",
                    share_of_first(attempts),
                    at(0.5, attempts),
                    at(0.99, attempts)
                )
            }
        };
        let cryptography = if cfg!(distmsg_cheap_crypto) { "cheap" } else { "real" };
        format!(
            "| {commit} | {asked} | {cryptography} | {seeds} | {} | {} | {} | {} | {} | {} s |",
            self.seeds,
            self.violations.len(),
            self.delivered,
            of(&self.attempts),
            of(&self.attempts_late),
            took.as_secs()
        )
    }

    fn sort(&mut self) {
        self.attempts.sort_unstable();
        self.attempts_late.sort_unstable();
        self.latencies_ms.sort_unstable();
        self.recoveries_ms.sort_unstable();
        self.partitions_ms.sort_unstable();
        self.violations.sort_unstable();
    }

    pub(crate) fn table(mut self, nodes: usize, took: Duration) -> String {
        let mut out = String::new();
        self.sort();
        for (seed, why) in self.violations.iter().take(TOLD_MAX) {
            let _ = writeln!(out, "seed {seed}: {why}");
        }
        let (latencies, recoveries) = (&self.latencies_ms, &self.recoveries_ms);
        let (attempts, late) = (&self.attempts, &self.attempts_late);
        let rows = [
            ("seeds", self.seeds.to_string()),
            ("wall time", format!("{:.1} s", took.as_secs_f64())),
            ("cryptography", distmsg::crypto::SUITE.to_owned()),
            ("simulated time", format!("{} s", self.simulated_ms / 1000)),
            ("messages delivered", self.delivered.to_string()),
            ("of pairs joined honestly", attempts.len().to_string()),
            ("steps that went wrong", self.faults.to_string()),
            ("crashes, broken links", format!("{}, {}", self.counts.crashes, self.counts.breaks)),
            (
                "failed disks, torn writes",
                format!("{}, {}", self.counts.failures, self.counts.torn),
            ),
            (
                "attempts p50, p99, most",
                format!("{}, {}, {}", at(0.5, attempts), at(0.99, attempts), at(1.0, attempts)),
            ),
            ("at the first attempt", share_of_first(attempts)),
            (
                "after 20 of a pair p50, p99, most",
                format!("{}, {}, {}", at(0.5, late), at(0.99, late), at(1.0, late)),
            ),
            ("at the first attempt then", share_of_first(late)),
            (
                "latency p50, p99, most",
                format!(
                    "{} ms, {} ms, {} ms",
                    at(0.5, latencies),
                    at(0.99, latencies),
                    at(1.0, latencies)
                ),
            ),
            (
                "all there after healing p50, most",
                format!("{} ms, {} ms", at(0.5, recoveries), at(1.0, recoveries)),
            ),
            (
                "the same after partitions alone",
                format!(
                    "{} ms, {} ms of {} seeds",
                    at(0.5, &self.partitions_ms),
                    at(1.0, &self.partitions_ms),
                    self.partitions_ms.len()
                ),
            ),
            (
                "transmissions per shortest way",
                format!("{:.2}", self.counts.carried as f64 / self.shortest.max(1) as f64),
            ),
            (
                "frames, MiB in all",
                format!("{}, {}", self.counts.frames, self.counts.bytes / (1024 * 1024)),
            ),
            ("memory", format!("{} KiB a node at most", self.peak_kib / nodes as u64)),
            ("trace", format!("{:016x}", self.trace)),
        ];
        for (name, value) in rows {
            let _ = writeln!(out, "{name:<34} {value}");
        }
        for (kind, mut attempts) in self.by_kind {
            attempts.iter_mut().for_each(|attempts| attempts.sort_unstable());
            let [all, late] = attempts.map(|attempts| {
                format!("{}, p99 {}", share_of_first(&attempts), at(0.99, &attempts))
            });
            let _ = writeln!(out, "{:<34} {all}; after 20: {late}", format!("first, {kind:?}"));
        }
        let _ = write!(out, "violations: {}", self.violations.len());
        out
    }
}

/// What so great a part of sorted numbers does not exceed.
fn at(part: f64, all: &[u64]) -> u64 {
    let place = (all.len() as f64 * part) as usize;
    all.get(place.min(all.len().saturating_sub(1))).copied().unwrap_or(0)
}

fn share_of_first(all: &[u64]) -> String {
    if all.is_empty() {
        return "–".to_owned();
    }
    let first = all.iter().filter(|attempts| **attempts <= 1).count();
    format!("{:.2} % of {}", 100.0 * first as f64 / all.len() as f64, all.len())
}
