//! Limits the log lines about events that can happen with every message. The counters count all of them; the log shows
//! the first ones, and later how many more there were.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The most lines of one kind about one actor or queue within [`LOG_INTERVAL`].
pub const LOG_LINES: u64 = 5;
/// The length of an interval. After it, one line tells how many lines were left out, and the first ones are shown
/// again.
pub const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The current intervals, one entry per kind and actor.
static WINDOWS: Mutex<BTreeMap<(&'static str, String), Window>> = Mutex::new(BTreeMap::new());

#[derive(Debug, Clone, Copy)]
struct Window {
    began: Instant,
    lines: u64,
}

impl Window {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= LOG_INTERVAL
    }

    fn left_out(&self) -> Option<u64> {
        self.lines.checked_sub(LOG_LINES).filter(|count| *count > 0)
    }
}

/// Whether to write a line of this kind about this actor or queue. Counts it in any case.
pub(crate) fn is_logged(kind: &'static str, of: &str) -> bool {
    let now = Instant::now();
    let mut windows = WINDOWS.lock().unwrap_or_else(PoisonError::into_inner);
    let window = windows.entry((kind, of.to_owned())).or_insert(Window { began: now, lines: 0 });
    let mut before = None;
    if window.is_over(now) {
        before = window.left_out();
        *window = Window { began: now, lines: 0 };
    }
    window.lines += 1;
    let is_logged = window.lines <= LOG_LINES;
    drop(windows);
    say(kind, of, before);
    is_logged
}

/// Logs how many lines were left out in intervals that have ended. The app's watchdog calls it regularly, so that the
/// count is also logged when no more lines follow.
pub(crate) fn tell_what_was_left_out() {
    let now = Instant::now();
    tell(|window| window.is_over(now));
}

/// Logs it for all intervals, at the end of an app.
pub(crate) fn tell_all_that_was_left_out() {
    tell(|_| true);
}

fn tell(is_over: impl Fn(&Window) -> bool) {
    let mut told = Vec::new();
    WINDOWS.lock().unwrap_or_else(PoisonError::into_inner).retain(|(kind, of), window| {
        let over = is_over(window);
        if over {
            told.extend(window.left_out().map(|count| (*kind, of.clone(), count)));
        }
        !over
    });
    for (kind, of, count) in told {
        say(kind, &of, Some(count));
    }
}

fn say(kind: &'static str, of: &str, count: Option<u64>) {
    if let Some(count) = count {
        tracing::warn!(of, "{kind}: and {count} more like it within {} s", LOG_INTERVAL.as_secs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lines_of_a_kind_are_logged_and_the_rest_is_counted() {
        let logged = |of: &str, count: usize| (0..count).filter(|_| is_logged("a test", of)).count();
        assert_eq!(logged("one", 1_000), 5);
        assert_eq!(logged("other", 3), 3, "each actor has its own");
        let left_out = |of: &str| {
            let windows = WINDOWS.lock().unwrap();
            windows.get(&("a test", of.to_owned())).and_then(Window::left_out)
        };
        assert_eq!((left_out("one"), left_out("other")), (Some(995), None));
    }

    #[test]
    fn an_interval_ends() {
        let window = Window { began: Instant::now(), lines: 7 };
        assert!(!window.is_over(window.began) && window.is_over(window.began + LOG_INTERVAL));
        assert_eq!(window.left_out(), Some(2));
    }
}
