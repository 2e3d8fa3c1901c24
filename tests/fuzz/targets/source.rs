//! Decisions drawn from an input.

/// Reads an input from the front. Where it has ended, everything is zero.
pub(crate) struct Source<'a> {
    rest: &'a [u8],
}

impl<'a> Source<'a> {
    pub(crate) const fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        for (slot, byte) in array.iter_mut().zip(self.bytes(N)) {
            *slot = *byte;
        }
        array
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(crate) fn small(&mut self) -> usize {
        usize::from(u16::from_be_bytes(self.array()))
    }

    /// A number of any size, in few bytes: small ones, those next to a power of two, and any.
    pub(crate) fn number(&mut self) -> u64 {
        match self.byte() {
            byte @ 0..=127 => u64::from(byte),
            byte @ 128..=191 => (1_u64 << (byte - 128)).wrapping_sub(1),
            byte @ 192..=250 => 1_u64 << (byte - 190),
            251 => u64::MAX,
            252 => u64::MAX - 1,
            253 => u64::from(u32::from_be_bytes(self.array())),
            _ => u64::from_be_bytes(self.array()),
        }
    }

    /// At most this many bytes.
    pub(crate) fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (bytes, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        bytes
    }

    /// Bytes after their length.
    pub(crate) fn counted(&mut self) -> &'a [u8] {
        let length = self.small();
        self.bytes(length)
    }

    /// One of several, of which there is at least one.
    pub(crate) fn pick<'b, T>(&mut self, from: &'b [T]) -> &'b T {
        let at = usize::from(self.byte()) % from.len();
        &from[at]
    }
}
