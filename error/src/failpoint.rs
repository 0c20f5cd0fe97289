//! Named points at which a test can kill, stall or bend the program. Without the feature `failpoints` every function
//! here is empty, so that no variable of the environment can weaken a production binary.
//!
//! `UNDERTONE_FAILPOINTS="sink.files-closed=stall@2;catalog.lost-reply=on@1"` arms points: `abort` ends the process at
//! once, `panic` panics there, `stall` creates the file named by `UNDERTONE_FAILPOINT_MARKER` and then sleeps for ever (so that a test can
//! `kill -9` exactly there), `on` makes [`fires`] answer true. `@N` restricts the action to the N-th visit.
//! `UNDERTONE_FAILPOINTS_FILE` names a file of such points, which a test writes while the process runs; visits are counted
//! from when it was written.
//! `UNDERTONE_SABOTAGE="no-read-back"` switches a safeguard off, so that a test can show that it is needed.

/// Visits a point.
#[cfg(not(feature = "failpoints"))]
pub fn hit(_name: &str) {}

/// Visits a point if the condition holds, which costs nothing where there are no fail points.
#[cfg(not(feature = "failpoints"))]
pub fn hit_if(_name: &str, _condition: impl FnOnce() -> bool) {}

/// Whether the point changes behaviour this time.
#[cfg(not(feature = "failpoints"))]
pub fn fires(_name: &str) -> bool {
    false
}

/// Whether the named safeguard is switched off.
#[cfg(not(feature = "failpoints"))]
pub fn sabotaged(_name: &str) -> bool {
    false
}

#[cfg(feature = "failpoints")]
pub use armed::{fires, hit, hit_if, sabotaged};

#[cfg(feature = "failpoints")]
mod armed {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex, OnceLock, PoisonError};
    use std::{env, fs, process, thread, time::Duration};

    struct Point {
        action: String,
        only_at: Option<u64>,
        visits: AtomicU64,
    }

    type Points = Arc<HashMap<String, Point>>;

    fn points() -> Points {
        static POINTS: OnceLock<Points> = OnceLock::new();
        let fixed = || POINTS.get_or_init(|| Arc::new(parse(&env::var("UNDERTONE_FAILPOINTS").unwrap_or_default())));
        written().unwrap_or_else(|| Arc::clone(fixed()))
    }

    /// The points of the file, if there is one by now.
    fn written() -> Option<Points> {
        static FILE: OnceLock<Option<String>> = OnceLock::new();
        static LAST: Mutex<Option<(String, Points)>> = Mutex::new(None);
        let text =
            fs::read_to_string(FILE.get_or_init(|| env::var("UNDERTONE_FAILPOINTS_FILE").ok()).as_ref()?).ok()?;
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        match last.as_ref().filter(|(known, _)| *known == text) {
            Some((_, points)) => Some(Arc::clone(points)),
            None => {
                let points = Arc::new(parse(&text));
                *last = Some((text, Arc::clone(&points)));
                Some(points)
            }
        }
    }

    fn parse(text: &str) -> HashMap<String, Point> {
        let point = |entry: &str| {
            let (name, action) = entry.trim().split_once('=')?;
            let (action, only_at) = match action.split_once('@') {
                Some((action, n)) => (action, Some(n.parse().ok()?)),
                None => (action, None),
            };
            Some((name.to_owned(), Point { action: action.to_owned(), only_at, visits: AtomicU64::new(0) }))
        };
        text.split(';').filter_map(point).collect()
    }

    /// The action of this visit, if the point is armed for it.
    fn visit(name: &str) -> Option<String> {
        let points = points();
        let point = points.get(name)?;
        let visit = point.visits.fetch_add(1, Ordering::Relaxed) + 1;
        point.only_at.is_none_or(|n| n == visit).then(|| point.action.clone())
    }

    /// Visits a point.
    #[allow(clippy::panic, reason = "where a test asks for it")]
    pub fn hit(name: &str) {
        match visit(name).as_deref() {
            Some("abort") => process::abort(),
            Some("panic") => panic!("fail point {name}"),
            Some("stall") => {
                mark(name);
                loop {
                    thread::sleep(Duration::from_secs(3600));
                }
            }
            Some("pause") => {
                let marker = mark(name);
                while marker.as_ref().is_some_and(|marker| fs::exists(marker).unwrap_or(false)) {
                    thread::sleep(Duration::from_millis(20));
                }
            }
            _ => {}
        }
    }

    /// Visits a point if the condition holds.
    pub fn hit_if(name: &str, condition: impl FnOnce() -> bool) {
        if points().contains_key(name) && condition() {
            hit(name);
        }
    }

    /// Tells the test that the point was reached.
    fn mark(name: &str) -> Option<String> {
        let marker = env::var("UNDERTONE_FAILPOINT_MARKER").ok()?;
        fs::write(&marker, name).ok().map(|()| marker)
    }

    /// Whether the point changes behaviour this time.
    pub fn fires(name: &str) -> bool {
        visit(name).as_deref() == Some("on")
    }

    /// Whether the named safeguard is switched off.
    pub fn sabotaged(name: &str) -> bool {
        static OFF: OnceLock<Vec<String>> = OnceLock::new();
        let off = OFF.get_or_init(|| {
            env::var("UNDERTONE_SABOTAGE").unwrap_or_default().split(',').map(|name| name.trim().to_owned()).collect()
        });
        off.iter().any(|safeguard| safeguard == name)
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn points_parse_with_and_without_a_visit_number() {
            let points = super::parse("a.b=stall@2; c=on");
            assert_eq!(points.get("a.b").map(|p| (p.action.as_str(), p.only_at)), Some(("stall", Some(2))));
            assert_eq!(points.get("c").map(|p| (p.action.as_str(), p.only_at)), Some(("on", None)));
        }
    }
}
