use std::ops::{Deref, DerefMut};

#[cfg(target_os = "linux")]
use memmap2::Advice;
use memmap2::MmapMut;
use zerocopy::FromBytes;

/// Bytes of a cache line and of the widest vector.
const LINE: usize = 64;

/// Zeroed memory that starts at a cache line, so that no vector of a panel straddles two lines.
pub(crate) struct Buffer {
    memory: Memory,
    start: usize,
    len: usize,
}

enum Memory {
    Allocated(Vec<f32>),
    /// Pages of the system's own. They read faster than the scattered small pages that an allocator hands out again,
    /// and go back to the system when dropped.
    Mapped(MmapMut),
}

/// The least bytes for which a buffer is mapped.
const LARGE: usize = 8 << 20;

impl Buffer {
    pub(crate) fn new(len: usize) -> Buffer {
        let bytes = len.saturating_mul(size_of::<f32>());
        if bytes >= LARGE
            && let Ok(pages) = MmapMut::map_anon(bytes)
        {
            // Pages of 2 MiB need a five-hundredth of the address translations. The kernel may decline.
            #[cfg(target_os = "linux")]
            let _ = pages.advise(Advice::HugePage);
            return Buffer { memory: Memory::Mapped(pages), start: 0, len };
        }
        let values = vec![0.0; len + LINE / size_of::<f32>()];
        // If the address cannot be aligned, any start will do.
        let start = values.as_ptr().align_offset(LINE).min(LINE / size_of::<f32>());
        Buffer { memory: Memory::Allocated(values), start, len }
    }

    /// A copy of values.
    pub(crate) fn of(values: &[f32]) -> Buffer {
        let mut copy = Buffer::new(values.len());
        copy.copy_from_slice(values);
        copy
    }

    /// Bytes of the values.
    pub(crate) fn bytes(&self) -> usize {
        self.len * size_of::<f32>()
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        let values = match &self.memory {
            Memory::Allocated(values) => values,
            // Pages are aligned to more than a value, so this cannot fail.
            Memory::Mapped(pages) => <[f32]>::ref_from_bytes(pages).unwrap_or_default(),
        };
        &values[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        let values = match &mut self.memory {
            Memory::Allocated(values) => values,
            Memory::Mapped(pages) => <[f32]>::mut_from_bytes(pages).unwrap_or_default(),
        };
        &mut values[self.start..self.start + self.len]
    }
}

impl Clone for Buffer {
    /// Copies the values to an aligned address of their own.
    fn clone(&self) -> Buffer {
        Buffer::of(self)
    }
}
