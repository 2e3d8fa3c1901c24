//! The coverage-guided engine (libFuzzer) around one target, named by `DISTMSG_FUZZ_TARGET`.
//!
//! An input fails that panics, that takes more than a second of processor time, or that has more
//! than 64 MiB on the heap at once. The engine's own limits are not used for that: it measures
//! time by the clock, so that a busy machine looks like a hang, and it sees allocations only with
//! a sanitizer's runtime.

#![no_main]

mod limits;
mod targets;

use std::alloc::System;
use std::panic;
use std::sync::OnceLock;

use cap::Cap;
use libfuzzer_sys::fuzz_target;

use limits::{HEAP_BYTES_MAX, INPUT_MS_MAX, processor_ms};

/// What is beyond its limit fails as if no memory were left, and that aborts.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, HEAP_BYTES_MAX);

static TARGET: OnceLock<targets::Target> = OnceLock::new();

fuzz_target!(
    init: {
        let name = std::env::var("DISTMSG_FUZZ_TARGET").unwrap_or_default();
        let target = targets::ALL.iter().find(|target| target.name == name);
        let target = target.expect("DISTMSG_FUZZ_TARGET names a target");
        TARGET.get_or_init(|| *target);
        // Telling where it panicked takes memory of its own.
        let tell = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let _ = HEAP.set_limit(usize::MAX);
            tell(info);
        }));
    },
    |input: &[u8]| {
        let before = processor_ms();
        (TARGET.get().expect("set at the start").run)(input);
        let took = processor_ms() - before;
        assert!(took <= INPUT_MS_MAX, "a hang: {took} ms of processor time");
    }
);
