//! Messages of which some chunks are there.

use crate::courier::chunk_set::ChunkSet;
use crate::model::Timestamp;
use crate::model::limits::{CHUNK_BYTES, stored_bytes};

/// A message of which some chunks are there.
#[derive(Debug, Clone)]
pub(super) struct Partial {
    pub(super) total: u64,
    pub(super) expires: Timestamp,
    chunks: ChunkSet,
    /// What they count for on disk.
    pub(super) bytes: u64,
}

impl Partial {
    pub(super) fn new(total: u64, expires: Timestamp) -> Self {
        let chunks = usize::try_from(total).unwrap_or(usize::MAX).div_ceil(CHUNK_BYTES);
        Self { total, expires, chunks: ChunkSet::new(chunks), bytes: 0 }
    }

    /// Notes a chunk; false if it was there already.
    pub(super) fn add(&mut self, index: u16) -> bool {
        let is_new = self.chunks.add(index);
        if is_new {
            self.bytes = self.bytes.saturating_add(stored_bytes(self.length(index)));
        }
        is_new
    }

    pub(super) const fn is_whole(&self) -> bool {
        self.chunks.missing() == 0
    }

    /// What the chunks that are missing will count for.
    pub(super) fn rest(&self) -> u64 {
        stored_bytes(self.total).saturating_sub(self.bytes)
    }

    /// Bytes of one chunk: all but the last are of one size.
    fn length(&self, index: u16) -> u64 {
        let start = u64::from(index).saturating_mul(CHUNK_BYTES as u64);
        self.total.saturating_sub(start).min(CHUNK_BYTES as u64)
    }
}
