//! What the fuzzer has found worth keeping, run again: every input of the corpus through its
//! target, and some alterations of each, drawn from a seed.
//!
//! `DISTMSG_FUZZ_ALTERATIONS=N` tries N of each, as a fuzzer for who has no other.
//!
//! An input may cost no more here than there, where `run` looks for new ones: see `limits.rs`.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a harness that panics is a test that fails"
)]

mod limits;
mod targets;

use std::alloc::System;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cap::Cap;
use distmsg::crypto::{Random, sha256};

use limits::{HEAP_BYTES_MAX, INPUT_MS_MAX, processor_ms};

/// Counts what is on the heap; the most of all times says which input was the first beyond.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// One input at a time, so that what it costs is its own.
static ONE: Mutex<()> = Mutex::new(());

/// Bytes of the corpus in all: what it has more is not minimised.
const CORPUS_BYTES_MAX: u64 = 1024 * 1024;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus")
}

/// The inputs kept for a target, in order of their names.
fn inputs_of(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(corpus().join(target)).expect("every target has a corpus");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "the corpus of {target} is empty");
    paths.into_iter().map(|path| (path.clone(), fs::read(path).expect("an input"))).collect()
}

fn replay(name: &str, alterations: usize) {
    let target = targets::ALL.iter().find(|target| target.name == name).expect("a target");
    let inputs = inputs_of(name);
    let asked = std::env::var("DISTMSG_FUZZ_ALTERATIONS").ok();
    let alterations = asked.map_or(alterations, |text| text.parse().expect("a number"));
    for (path, input) in &inputs {
        check(*target, input, &path.display().to_string());
        let mut random = Random::from_seed(sha256(&[name.as_bytes(), input]));
        for number in 0..alterations {
            let other = &inputs[random.below(inputs.len() as u64) as usize].1;
            let altered = altered(input, other, &mut random);
            check(*target, &altered, &format!("alteration {number} of {}", path.display()));
        }
    }
}

fn check(target: targets::Target, input: &[u8], what: &str) {
    let one = ONE.lock().expect("nobody panics with it");
    let before = processor_ms();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let took = processor_ms() - before;
    let most = HEAP.max_allocated();
    drop(one);
    assert!(outcome.is_ok(), "{}: {what} fails: {input:02x?}", target.name);
    assert!(took <= INPUT_MS_MAX, "{}: {what} takes {took} ms: {input:02x?}", target.name);
    assert!(most <= HEAP_BYTES_MAX, "{}: {what} takes {most} bytes: {input:02x?}", target.name);
}

/// An input with some bytes changed, moved or missing, or with another's end.
fn altered(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut altered = input.to_vec();
    let mut at = |length: usize| random.below(length as u64 + 1) as usize;
    for _ in 0..=at(3) {
        let length = altered.len();
        match at(4) {
            0 => altered.truncate(at(length)),
            1 => {
                altered.truncate(at(length));
                altered.extend_from_slice(&other[at(other.len())..]);
            }
            2 => altered.insert(at(length), at(255) as u8),
            _ if length == 0 => {}
            3 => altered[at(length - 1)] ^= 1 << at(7),
            _ => altered[at(length - 1)] = at(255) as u8,
        }
    }
    altered
}

#[test]
fn no_frame_breaks_a_promise() {
    replay("frame", 50);
}

#[test]
fn no_envelope_breaks_a_promise() {
    replay("envelope", 50);
}

#[test]
fn no_record_breaks_a_promise() {
    replay("record", 50);
}

#[test]
fn no_find_breaks_a_promise() {
    replay("find", 50);
}

#[test]
fn no_hello_breaks_a_promise() {
    replay("hello", 50);
}

#[test]
fn no_request_breaks_a_promise() {
    replay("request", 50);
}

#[test]
fn no_configuration_breaks_a_promise() {
    replay("config", 20);
}

#[test]
fn no_database_breaks_a_promise() {
    replay("database", 1);
}

#[test]
fn nothing_that_happens_to_a_node_breaks_a_promise() {
    replay("node", 2);
}

#[test]
fn the_corpus_is_small_and_all_of_it_belongs_to_a_target() {
    let mut bytes = 0;
    for entry in fs::read_dir(corpus()).expect("the corpus") {
        let folder = entry.expect("a folder").file_name();
        let name = folder.to_str().expect("a target's name");
        assert!(targets::ALL.iter().any(|target| target.name == name), "{name} is no target");
        bytes += inputs_of(name).iter().map(|(_, input)| input.len() as u64).sum::<u64>();
    }
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes: 'run minimise' makes them fewer");
}
