//! What an input may cost, whoever runs it.

use rustix::time::{ClockId, clock_gettime};

/// Bytes on the heap at once.
pub(crate) const HEAP_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Processor time of one input, in milliseconds. By the clock a busy machine looks like a hang.
pub(crate) const INPUT_MS_MAX: i64 = 1_000;

/// Processor time that this process has used, in milliseconds.
pub(crate) fn processor_ms() -> i64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
}
