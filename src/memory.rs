//! The allocator, and how soon it gives memory back.
#![allow(unsafe_code)] // mi_option_set, which the crate keeps to itself

use std::ffi::{c_int, c_long};

/// A post is some two hundred small allocations, made by one thread and given back by another: what glibc's allocator is slow
/// at, and what makes it keep memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc's `mi_option_e`.
const PURGE_DELAY: c_int = 15;
/// In milliseconds; for whole arenas mimalloc takes ten times as long.
const A_MINUTE: c_long = 60_000;

unsafe extern "C" {
    fn mi_collect(force: bool);
    fn mi_option_set(option: c_int, value: c_long);
}

/// What has been freed goes back to the system now (loading a model takes twice its size), and what is freed from here on a
/// minute later, and not within the second: the stream needs as much again for its next epoch, and the system would zero it
/// each time.
pub(crate) fn keep_what_is_freed() {
    // SAFETY: functions of the allocator that is linked in above. One gives back what nobody uses; the other stores a number,
    // and knows which options there are.
    unsafe {
        mi_collect(true);
        mi_option_set(PURGE_DELAY, A_MINUTE);
    }
}
