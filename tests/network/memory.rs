//! What another process has in its memory.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use crate::proxy::contains;

/// Whether a child's memory holds these bytes; none if the system does not let us look.
pub(crate) fn holds(pid: u32, needle: &[u8]) -> Option<bool> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let mut looked = false;
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (range, rights) = (fields.next()?, fields.next()?);
        let (start, end) = range.split_once('-')?;
        let start = u64::from_str_radix(start, 16).ok()?;
        let end = u64::from_str_radix(end, 16).ok()?;
        // What nobody can write to was there before any message.
        if !rights.starts_with("rw") {
            continue;
        }
        let mut bytes = vec![0; usize::try_from(end - start).ok()?];
        let Ok(read) = memory.read_at(&mut bytes, start) else { continue };
        looked = true;
        if contains(&bytes[..read], needle) {
            return Some(true);
        }
    }
    looked.then_some(false)
}
