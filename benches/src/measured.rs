//! The result of one run of a role.

use std::time::{Duration, Instant};

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::Serialize;

/// What a role prints at its end, as one line of JSON.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// How many messages were measured.
    pub messages: u64,
    /// From the first to the last of them.
    pub seconds: f64,
    /// This process's processor time in that span, user and system.
    pub cpu_seconds: f64,
    /// The peak memory of this process.
    pub peak_kib: u64,
    /// Microseconds, if single messages were timed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
}

/// How long single messages took, in microseconds.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile.
    pub p99: f64,
}

impl Latency {
    /// Of single times in nanoseconds; `None` without any.
    #[must_use]
    pub fn of(mut nanos: Vec<u64>) -> Option<Self> {
        nanos.sort_unstable();
        let last = nanos.len().checked_sub(1)?;
        let at = |percent: usize| nanos[last * percent / 100] as f64 / 1_000.0;
        Some(Self { p50: at(50), p90: at(90), p99: at(99) })
    }
}

/// Measures from its start on.
#[derive(Debug)]
pub struct Meter {
    began: Instant,
    cpu: Duration,
}

impl Meter {
    /// Begins to measure.
    #[must_use]
    pub fn start() -> Self {
        Self { began: Instant::now(), cpu: usage().map(|usage| used(&usage)).unwrap_or_default() }
    }

    /// What was measured.
    #[must_use]
    pub fn stop(&self, messages: u64, latency: Option<Latency>) -> Measured {
        let seconds = self.began.elapsed().as_secs_f64();
        let usage = usage();
        let cpu = usage.as_ref().map(used).unwrap_or_default().saturating_sub(self.cpu);
        let peak_kib = usage.and_then(|usage| u64::try_from(usage.max_rss()).ok()).unwrap_or_default();
        Measured { messages, seconds, cpu_seconds: cpu.as_secs_f64(), peak_kib, latency }
    }
}

fn usage() -> Option<Usage> {
    getrusage(UsageWho::RUSAGE_SELF).ok()
}

fn used(usage: &Usage) -> Duration {
    of_time(usage.user_time()) + of_time(usage.system_time())
}

fn of_time(time: TimeVal) -> Duration {
    let micros = i128::from(time.tv_sec()) * 1_000_000 + i128::from(time.tv_usec());
    Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}
