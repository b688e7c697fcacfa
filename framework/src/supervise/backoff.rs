//! Growing pauses between tries.

use std::time::Duration;

/// A pause between tries that doubles up to a longest one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    pause: Duration,
}

impl Backoff {
    /// Begins with the first pause.
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, pause: first }
    }

    /// The pause before the next try.
    pub(crate) const fn pause(&self) -> Duration {
        self.pause
    }

    /// The pause, half of it random, so that parties that failed together do not come back at the same moment.
    pub(crate) fn random(&self) -> Duration {
        half_by_chance(self.pause)
    }

    /// Doubles the next pause after another failure.
    pub(crate) fn grow(&mut self) {
        self.pause = (self.pause * 2).min(self.longest);
    }

    /// Starts again with the first pause, after things went well for a while.
    pub(crate) fn reset(&mut self) {
        self.pause = self.first;
    }
}

/// A random time between half of a time and all of it.
pub(crate) fn half_by_chance(time: Duration) -> Duration {
    time / 2 + (time / 2).mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_the_longest_and_begins_again() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(5));
        let pauses = [(); 4].map(|()| {
            let (pause, random) = (backoff.pause(), backoff.random());
            assert!(pause / 2 <= random && random <= pause, "{random:?} of {pause:?}");
            backoff.grow();
            pause
        });
        assert_eq!(pauses, [1, 2, 4, 5].map(seconds));
        assert_eq!(backoff.pause(), seconds(5));
        backoff.reset();
        assert_eq!(backoff.pause(), seconds(1));
    }
}
