//! Panics that are an answer, and nobody's news: those of decoders of others, over what they cannot make sense of.
//!
//! The guarantee: a panic that is caught here is not printed, since its words may repeat what was sent, and whoever sends could
//! fill the log with it; every other panic, at the same time in other threads too, is told as before.

use std::{
    cell::Cell,
    panic::{self, AssertUnwindSafe, catch_unwind},
    sync::Once,
};

thread_local! {
    /// Whether this thread runs something whose panic is caught here.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// What `work` answers; nothing if it panics.
pub fn catch_quietly<T>(work: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let told = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                told(panic);
            }
        }));
    });
    let before = QUIET.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(before);
    done.ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());

    #[test]
    fn only_what_is_caught_here_is_not_told() {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if let Some(words) = panic.payload().downcast_ref::<&str>().filter(|words| words.starts_with("quiet test"))
            {
                TOLD.lock().expect("lock").push((*words).to_owned());
                return;
            }
            before(panic);
        }));
        assert_eq!(catch_quietly(|| 7), Some(7));
        assert_eq!(catch_quietly(|| -> u8 { panic!("quiet test: caught here") }), None);
        let other = std::thread::spawn(|| panic!("quiet test: in a thread"));
        assert!(other.join().is_err());
        assert!(catch_unwind(|| panic!("quiet test: after it")).is_err());
        assert_eq!(*TOLD.lock().expect("lock"), ["quiet test: in a thread", "quiet test: after it"]);
    }
}
