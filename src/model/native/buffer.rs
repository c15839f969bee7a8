use std::ops::{Deref, DerefMut};

/// Bytes of a cache line, and of the widest vector.
const LINE: usize = 64;

/// Zeros at first, at an address that is a multiple of a cache line: no vector of a panel straddles two lines.
pub(super) struct Buffer {
    values: Vec<f32>,
    start: usize,
    len: usize,
}

impl Buffer {
    pub(super) fn new(len: usize) -> Buffer {
        let values = vec![0.0; len + LINE / size_of::<f32>()];
        // Where the allocator's address tells nothing, every place is as good.
        let start = values.as_ptr().align_offset(LINE).min(LINE / size_of::<f32>());
        Buffer { values, start, len }
    }

    /// Bytes that hold values.
    pub(super) fn bytes(&self) -> usize {
        self.len * size_of::<f32>()
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..self.start + self.len]
    }
}
