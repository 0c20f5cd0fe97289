//! The one way in which this process ends.
//!
//! libtorch destructs its globals when a process exits as C programs do, and a worker that is inside a forward pass at
//! that moment crashes. Workers are joined wherever the program ends in good order, but a second Ctrl-C, a closed pipe and
//! an error must not have to wait for them, so the process leaves without those destructors.

use std::io::Write;

/// Flushes what was printed and ends the process with `status`.
pub(crate) fn now(status: u8) -> ! {
    let _ = std::io::stdout().flush();
    let _ = std::io::stderr().flush();
    // SAFETY: `_exit` may be called at any time; it runs no destructor and does not return.
    #[allow(unsafe_code, reason = "the standard library has no way to leave without exit handlers")]
    unsafe {
        libc::_exit(i32::from(status))
    }
}
