//! Limits the deliveries of a lane, so that none waits until the broker closes the channel for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// How long the broker lets a delivery stay unacknowledged, as far as this process knows. Clones share it.
#[derive(Debug, Clone)]
pub struct ConsumerTimeout(Arc<AtomicU64>);

impl ConsumerTimeout {
    /// Starts with the configured time.
    #[must_use]
    pub fn new(configured: Duration) -> Self {
        Self(Arc::new(AtomicU64::new(millis(configured))))
    }

    /// The time as known now.
    #[must_use]
    pub fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    /// Shortens the time to what the broker has shown. Returns the time before, if that was longer.
    pub(super) fn shorten(&self, to: Duration) -> Option<Duration> {
        let before = Duration::from_millis(self.0.fetch_min(millis(to), Ordering::Relaxed));
        (before > to).then_some(before)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How fast an actor handles messages in the worst case.
#[derive(Debug, Clone)]
pub struct Pace {
    /// How long a handler may run.
    pub timeout: Duration,
    /// Whether some handlers run alone.
    pub exclusive: bool,
    /// How many of the other handlers run at once.
    pub concurrency: watch::Receiver<usize>,
    /// Whether deliveries may also wait for a circuit breaker.
    pub breaker: bool,
}

impl Pace {
    /// The most deliveries that are all handled within the broker's time. Further attempts in place are not counted: they rarely
    /// take the whole time, and a channel that the broker closes costs only a redelivery.
    #[must_use]
    pub fn most_prefetch(&self, consumer_timeout: Duration) -> u16 {
        let at_once = if self.exclusive { 1 } else { (*self.concurrency.borrow()).max(1) };
        let time = if self.breaker { consumer_timeout / BREAKER_SHARE } else { consumer_timeout };
        let most = time.as_secs_f64() / self.timeout.as_secs_f64() * at_once as f64;
        most.clamp(1.0, f64::from(u16::MAX)) as u16
    }

    /// Whether a delivery that came this long before the end of a breaker's pause goes back instead of waiting for it.
    pub(super) fn is_too_long(wait: Duration, consumer_timeout: Duration) -> bool {
        wait >= consumer_timeout - consumer_timeout / BREAKER_SHARE
    }
}

/// Divides the broker's time where deliveries may wait for a circuit breaker. The quotient is left for handling.
const BREAKER_SHARE: u32 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pace(exclusive: bool, concurrency: usize, breaker: bool) -> Pace {
        Pace { timeout: Duration::from_secs(10), exclusive, concurrency: watch::channel(concurrency).1, breaker }
    }

    #[test]
    fn a_lane_holds_what_it_handles_within_the_brokers_time() {
        let most = |pace: Pace| pace.most_prefetch(Duration::from_secs(60));
        assert_eq!(most(pace(true, 16, false)), 6, "one after the other");
        assert_eq!(most(pace(false, 1, false)), 6, "the same");
        assert_eq!(most(pace(false, 16, false)), 96);
        assert_eq!(most(pace(false, 16, true)), 48, "half of the time may be a pause");
        assert_eq!(pace(false, 1, false).most_prefetch(Duration::from_secs(1)), 1, "without one it would do nothing");
    }

    #[test]
    fn the_time_only_ever_shortens() {
        let time = ConsumerTimeout::new(Duration::from_secs(1_800));
        assert_eq!(time.clone().shorten(Duration::from_secs(60)), Some(Duration::from_secs(1_800)));
        assert_eq!((time.shorten(Duration::from_secs(60)), time.shorten(Duration::from_secs(90))), (None, None));
        assert_eq!(time.get(), Duration::from_secs(60));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn whatever_is_held_is_handled_in_time_after_the_longest_wait_for_a_breaker(
            seconds in 20..3_600_u64, timeout in 1..10_u64, concurrency in 1..64_usize, breaker: bool
        ) {
            let limit = Duration::from_secs(seconds);
            let pace = Pace { timeout: Duration::from_secs(timeout), ..pace(false, concurrency, breaker) };
            let rounds = usize::from(pace.most_prefetch(limit)).div_ceil(concurrency) as u32;
            let wait = (1..=seconds * 2).map(|half| Duration::from_millis(half * 500));
            let wait = wait.take_while(|wait| breaker && !Pace::is_too_long(*wait, limit)).last().unwrap_or_default();
            prop_assert!(wait + pace.timeout * (rounds - 1) <= limit, "the last one begins too late");
        }
    }
}
