//! The steps between two of which a test lets the process die.

use std::sync::atomic::{AtomicU32, Ordering};

use once_cell::sync::Lazy;

/// Names the fault point at which the process ends, and how often it is passed before: `committed:3`.
pub const FAULT_VARIABLE: &str = "POSTRIDER_TEST_FAULT";

macro_rules! fault_points {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// A step between two of which a process may end.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum FaultPoint { $($(#[$doc])* $variant),* }

        impl FaultPoint {
            /// All of them, in the order in which a message passes them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name in [`FAULT_VARIABLE`].
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

fault_points! {
    /// The transaction is open and the message noted; the handler has not begun.
    Begun = "begun",
    /// The handler has ended; nothing of its transaction is committed.
    Handled = "handled",
    /// Answer and outbox rows are written, not committed.
    Written = "written",
    /// The transaction is committed; nothing is answered or acknowledged.
    Committed = "committed",
    /// The relay has read rows and published none.
    Read = "read",
    /// The relay has published rows, of which none is confirmed.
    Published = "published",
    /// The rows' messages are confirmed; the rows still stand.
    Confirmed = "confirmed",
    /// The confirmed rows are removed.
    Removed = "removed",
}

/// Where this process ends, and how often it still passes that point before.
static CHOSEN: Lazy<Option<(String, AtomicU32)>> = Lazy::new(|| {
    let chosen = std::env::var(FAULT_VARIABLE).ok()?;
    let (name, passes) = chosen.split_once(':').unwrap_or((&chosen, "0"));
    Some((name.to_owned(), AtomicU32::new(passes.parse().unwrap_or(0))))
});

/// Reaches a fault point. The process ends here, without any clean-up, if [`FAULT_VARIABLE`] says so.
pub(crate) fn reach(point: FaultPoint) {
    let Some((name, passes)) = &*CHOSEN else { return };
    if name != point.name() {
        return;
    }
    if passes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
        die();
    }
}

/// Ends the process as SIGKILL does.
fn die() {
    let id = std::process::id().to_string();
    // If there is no such program, aborting also runs no clean-up.
    let _ = std::process::Command::new("kill").args(["-KILL", &id]).status();
    std::process::abort();
}
