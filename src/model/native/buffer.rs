use std::ops::{Deref, DerefMut};

/// Bytes of a cache line, and of the widest vector.
const LINE: usize = 64;

/// Zeros at first, at an address that is a multiple of a cache line: no vector of a panel straddles two lines.
pub(super) struct Buffer {
    values: Vec<f32>,
    start: usize,
    len: usize,
}

/// Bytes from which a buffer asks for large pages.
const LARGE: usize = 8 << 20;

impl Buffer {
    pub(super) fn new(len: usize) -> Buffer {
        let values = vec![0.0; len + LINE / size_of::<f32>()];
        if values.len() * size_of::<f32>() >= LARGE {
            ask_for_large_pages(&values);
        }
        // Where the allocator's address tells nothing, every place is as good.
        let start = values.as_ptr().align_offset(LINE).min(LINE / size_of::<f32>());
        Buffer { values, start, len }
    }

    /// A copy of values.
    pub(super) fn of(values: &[f32]) -> Buffer {
        let mut copy = Buffer::new(values.len());
        copy.copy_from_slice(values);
        copy
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

impl Clone for Buffer {
    /// At an address of its own.
    fn clone(&self) -> Buffer {
        Buffer::of(self)
    }
}

/// Asks the kernel to put memory that nobody has written to yet into pages of 2 MiB: a walk through it then needs a
/// five-hundredth of the address translations. Where it declines nothing is lost.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "a system call about memory of our own")]
fn ask_for_large_pages(values: &[f32]) {
    const PAGE: usize = 4096;
    let bytes = values.as_ptr_range();
    let first = bytes.start.addr().next_multiple_of(PAGE);
    let count = (bytes.end.addr() - first) / PAGE * PAGE;
    // SAFETY: the range lies within `values`; this advice changes how its pages are backed, never what they hold.
    unsafe {
        libc::madvise(bytes.start.with_addr(first).cast_mut().cast(), count, libc::MADV_HUGEPAGE);
    }
}

#[cfg(not(target_os = "linux"))]
fn ask_for_large_pages(_: &[f32]) {}
