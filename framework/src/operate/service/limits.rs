//! Stops a process when one of its limits is reached.

use std::time::Duration;

use tokio::time::Instant;

use crate::app::config::RunLimits;
use crate::app::running::Running;

/// How often the limits are checked.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Why a process stops by itself.
pub(super) enum Reached {
    /// A limit that was set was reached.
    Limit(String),
    /// A message failed, and the process was to stop at the first failure.
    Failure,
}

/// Waits until a limit is reached; for ever if there is none.
pub(super) async fn reached(running: &Running, limits: RunLimits) -> Reached {
    if limits == RunLimits::default() {
        return std::future::pending().await;
    }
    let started = Instant::now();
    let mut quiet_since = (Instant::now(), 0);
    let mut looks = tokio::time::interval(POLL_INTERVAL);
    loop {
        looks.tick().await;
        let stats = running.stats();
        if limits.first_failure && stats.dead_lettered + stats.rejected > 0 {
            return Reached::Failure;
        }
        if limits.messages.is_some_and(|most| stats.handled >= most) {
            return Reached::Limit(format!("{} messages handled", stats.handled));
        }
        if let Some(time) = limits.time.filter(|time| started.elapsed() >= *time) {
            return Reached::Limit(format!("{time:?} are over"));
        }
        if let Some(most) = limits.memory_mib.filter(|most| resident_mib().is_some_and(|used| used > *most)) {
            return Reached::Limit(format!("more than {most} MiB of memory used"));
        }
        // A process that waits for the services it needs is not idle. That wait has its own limit.
        if stats.in_flight > 0 || running.health.waits() || stats.handled != quiet_since.1 {
            quiet_since = (Instant::now(), stats.handled);
        }
        if let Some(idle) = limits.idle.filter(|idle| quiet_since.0.elapsed() >= *idle) {
            return Reached::Limit(format!("nothing to do for {idle:?}"));
        }
    }
}

/// Resident memory, where the system reports it (`/proc`, Linux).
fn resident_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib / 1024)
}
