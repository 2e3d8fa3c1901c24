//! Which chunks of a message are there, or have been receipted.

/// A set of chunks of one message.
#[derive(Debug, Clone)]
pub(super) struct ChunkSet {
    /// One bit a chunk.
    words: Vec<u64>,
    /// How many the message has.
    chunks: usize,
    missing: usize,
}

impl ChunkSet {
    /// None of so many.
    pub(super) fn new(chunks: usize) -> Self {
        Self { words: vec![0; chunks.div_ceil(64)], chunks, missing: chunks }
    }

    /// Notes a chunk; false if it was there already, or the message has no such chunk.
    pub(super) fn add(&mut self, index: u16) -> bool {
        let is_new = usize::from(index) < self.chunks && !self.has(index);
        if is_new && let Some(word) = self.words.get_mut(usize::from(index / 64)) {
            *word |= 1 << (index % 64);
            self.missing = self.missing.saturating_sub(1);
        }
        is_new
    }

    pub(super) fn has(&self, index: u16) -> bool {
        self.words.get(usize::from(index / 64)).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// How many are not there.
    pub(super) const fn missing(&self) -> usize {
        self.missing
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.missing == self.chunks
    }
}
