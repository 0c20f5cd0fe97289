//! Memory for weights: in few, large pages where the system has them.
//!
//! A forward pass reads all weights in order, once for every few texts. In pages of 4 KiB that is a look-up of an address
//! for each 4 KiB, and on a virtual machine a dear one; in pages of 2 MiB there are a few dozen in all.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Words of a cache line: a vector that lies across two lines costs two loads.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
pub(crate) struct CacheLine(pub(crate) [u32; 16]);

const LARGE_PAGE: usize = 2 << 20;

/// Lines that are written once and then read.
#[derive(Debug)]
pub(crate) struct Lines {
    first: NonNull<CacheLine>,
    layout: Layout,
    count: usize,
}

// SAFETY: the lines are owned, and nobody writes to them after `of`.
unsafe impl Send for Lines {}
// SAFETY: as above.
unsafe impl Sync for Lines {}

impl Lines {
    /// The lines of all parts, one behind the other.
    pub(crate) fn of(parts: &[&[CacheLine]]) -> Self {
        let count = parts.iter().map(|part| part.len()).sum::<usize>();
        let bytes = (count * size_of::<CacheLine>()).max(size_of::<CacheLine>());
        // Whole large pages, unless most of one would stay empty.
        let unit = if bytes >= LARGE_PAGE / 2 { LARGE_PAGE } else { size_of::<CacheLine>() };
        let layout = match Layout::from_size_align(bytes.next_multiple_of(unit), unit) {
            Ok(layout) => layout,
            Err(_) => handle_alloc_error(Layout::new::<CacheLine>()),
        };
        // SAFETY: the layout is not empty; the pointer is checked before it is used, and good for `count` lines.
        unsafe {
            let Some(first) = NonNull::new(alloc(layout).cast::<CacheLine>()) else { handle_alloc_error(layout) };
            if unit == LARGE_PAGE {
                ask_for_large_pages(first.as_ptr().cast(), layout.size());
            }
            let mut to = first.as_ptr();
            for part in parts {
                std::ptr::copy_nonoverlapping(part.as_ptr(), to, part.len());
                to = to.add(part.len());
            }
            Self { first, layout, count }
        }
    }
}

impl std::ops::Deref for Lines {
    type Target = [CacheLine];
    fn deref(&self) -> &[CacheLine] {
        // SAFETY: `of` wrote all of them.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.first.as_ptr().cast(), self.layout) }
    }
}

/// A wish: where it is not granted, pages are small.
#[cfg(target_os = "linux")]
unsafe fn ask_for_large_pages(at: *mut u8, bytes: usize) {
    unsafe extern "C" {
        fn madvise(at: *mut std::ffi::c_void, bytes: usize, advice: std::ffi::c_int) -> std::ffi::c_int;
    }
    const MADV_HUGEPAGE: std::ffi::c_int = 14;
    madvise(at.cast(), bytes, MADV_HUGEPAGE);
}

#[cfg(not(target_os = "linux"))]
unsafe fn ask_for_large_pages(_: *mut u8, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stand_in_order_whatever_pages_they_are_in() {
        for lengths in [vec![], vec![0], vec![3, 0, 5], vec![20_000, 1], vec![16_384, 16_384], vec![40_000]] {
            let mut next = 0;
            let parts: Vec<Vec<CacheLine>> = lengths
                .iter()
                .map(|&n| {
                    (0..n)
                        .map(|_| {
                            next += 1;
                            CacheLine([next; 16])
                        })
                        .collect()
                })
                .collect();
            let lines = Lines::of(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
            assert!(lines.iter().map(|line| line.0[7]).eq(1..=next), "{lengths:?}");
            assert!((lines.as_ptr() as usize).is_multiple_of(64));
        }
    }
}
