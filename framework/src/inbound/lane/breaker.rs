//! A circuit breaker: handlers that keep failing are left alone for a while.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use postrider_grammar::{parse_duration, show_duration};
use tokio::time::Instant;

use crate::handler::{FailureClass, Outcome};

/// When an actor pauses by itself: `50% of 20 in 30s, pause 1m`. Then one message is tried; if it succeeds, all are handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    /// Percentage of outcomes that must be failures.
    pub percent: u32,
    /// The fewest outcomes that the percentage is computed from.
    pub least: u32,
    /// How far back outcomes count.
    pub window: Duration,
    /// How long it pauses.
    pub pause: Duration,
}

/// The most outcomes that are remembered.
const MOST_OUTCOMES: usize = 10_000;

impl fmt::Display for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { percent, least, window, pause } = self;
        write!(f, "{percent}% of {least} in {}, pause {}", show_duration(*window), show_duration(*pause))
    }
}

impl FromStr for Breaker {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (percent, rest) = text.split_once('%')?;
            let (least, rest) = rest.trim().strip_prefix("of")?.split_once(" in ")?;
            let (window, pause) = rest.split_once(',')?;
            Some(Self {
                percent: percent.trim().parse().ok().filter(|percent| (1..=100).contains(percent))?,
                least: least.trim().parse().ok().filter(|least| (1..=MOST_OUTCOMES as u32).contains(least))?,
                window: parse_duration(window)?,
                pause: parse_duration(pause.trim().strip_prefix("pause")?)?,
            })
        };
        read().ok_or_else(|| {
            format!("{text:?} is no circuit breaker; write \"50% of 20 in 30s, pause 1m\": a rate of failures from 1 to 100, of at least how many outcomes (up to {MOST_OUTCOMES}), within which time, and for how long to pause")
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Circuit {
    Closed,
    /// Paused until this time.
    Open(Instant),
    /// One message is tried: the first with this number or a higher one.
    HalfOpen(u64),
}

/// A lane's breaker, if it has one.
pub(super) struct BreakerState {
    breaker: Option<Breaker>,
    circuit: Circuit,
    /// Outcomes, the oldest first: when, and whether it was a failure.
    outcomes: VecDeque<(Instant, bool)>,
}

impl BreakerState {
    pub(super) fn new(breaker: Option<Breaker>) -> Self {
        Self { breaker, circuit: Circuit::Closed, outcomes: VecDeque::new() }
    }

    /// Counts an outcome.
    pub(super) fn count(&mut self, outcome: &Outcome, number: u64, clock: impl FnOnce() -> Instant) {
        let Some(breaker) = &self.breaker else { return };
        let failed = match outcome {
            Outcome::Failed(failed) => match failed.class {
                FailureClass::Transient | FailureClass::Permanent | FailureClass::Panic | FailureClass::TimedOut => {
                    true
                }
                FailureClass::Rejected => false,
                // The handler did not cause it.
                _ => return,
            },
            Outcome::Done(_) => false,
            Outcome::Expired => return,
        };
        let now = clock();
        match self.circuit {
            // It began before the pause.
            Circuit::HalfOpen(first) if number < first => {}
            Circuit::HalfOpen(_) if failed => self.open(now),
            Circuit::HalfOpen(_) => {
                tracing::info!("the circuit breaker closes: the message it tried was handled");
                self.circuit = Circuit::Closed;
                self.outcomes.clear();
            }
            // It began before the pause.
            Circuit::Open(_) => {}
            Circuit::Closed => {
                self.outcomes.push_back((now, failed));
                let old = |at: &Instant| now.duration_since(*at) > breaker.window;
                while self.outcomes.len() > MOST_OUTCOMES || self.outcomes.front().is_some_and(|(at, _)| old(at)) {
                    self.outcomes.pop_front();
                }
                let (all, failures) = (self.outcomes.len(), self.outcomes.iter().filter(|(_, failed)| *failed).count());
                if failed && all >= breaker.least as usize && failures * 100 >= all * breaker.percent as usize {
                    self.open(now);
                }
            }
        }
    }

    fn open(&mut self, now: Instant) {
        let Some(breaker) = &self.breaker else { return };
        tracing::error!(breaker = %breaker, "handlers keep failing: the circuit breaker pauses the queue");
        self.circuit = Circuit::Open(now + breaker.pause);
        self.outcomes.clear();
    }

    /// How many deliveries may be held, at most `permits`. `next` is the number of the next delivery.
    pub(super) fn permits(&mut self, permits: usize, next: u64, clock: impl FnOnce() -> Instant) -> usize {
        if let Circuit::Open(until) = self.circuit
            && clock() >= until
        {
            self.circuit = Circuit::HalfOpen(next);
        }
        match self.circuit {
            Circuit::Closed => permits,
            Circuit::Open(_) => 0,
            Circuit::HalfOpen(_) => 1,
        }
    }

    /// When the pause ends, if there is one.
    pub(super) fn opens_at(&self) -> Option<Instant> {
        if let Circuit::Open(until) = self.circuit { Some(until) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn breaker() -> impl Strategy<Value = Breaker> {
        let time = || prop_oneof![1..=u64::MAX, 1..100_000_u64].prop_map(Duration::from_millis);
        (1..=100_u32, 1..=MOST_OUTCOMES as u32, time(), time()).prop_map(|(percent, least, window, pause)| Breaker {
            percent,
            least,
            window,
            pause,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn any_breaker_is_read_as_it_is_written(breaker in breaker()) {
            prop_assert_eq!(breaker.to_string().parse(), Ok(breaker));
        }

        #[test]
        fn any_text_is_a_breaker_or_says_what_to_write(
            text in prop_oneof![
                "\\PC{0,40}",
                "[0-9]{0,4} ?%? ?(of)? ?[0-9]{0,6}( in )?[0-9]{0,3}(ms|s|m|)?,? ?(pause)? ?[0-9]{0,20}(s|m|d|)?",
            ]
        ) {
            match text.parse::<Breaker>() {
                Ok(breaker) => prop_assert_eq!(breaker.to_string().parse(), Ok(breaker)),
                Err(error) => prop_assert!(error.contains("pause 1m")),
            }
        }

        /// Steps: the milliseconds that pass, and how the message ends: well, with a failure, with one that does not count, or
        /// not at all yet.
        #[test]
        fn whatever_happens_it_lets_some_through_in_the_end(
            breaker in breaker(), steps in prop::collection::vec((0..40_000_u64, 0..4_u8), 0..60)
        ) {
            let mut state = BreakerState::new(Some(breaker.clone()));
            let (mut now, mut number) = (Instant::now(), 0);
            for (millis, ends) in steps {
                now += Duration::from_millis(millis);
                let permits = state.permits(8, number, || now);
                let open = state.opens_at().is_some_and(|until| until > now);
                prop_assert_eq!(permits == 0, open, "it pauses only until it opens");
                prop_assert!(state.opens_at().is_none_or(|until| until <= now + breaker.pause));
                if permits > 0 {
                    number += 1;
                }
                match ends {
                    0 => state.count(&Outcome::Done(None), number.saturating_sub(1), || now),
                    1 => state.count(&failed(), number.saturating_sub(1), || now),
                    2 => state.count(&Outcome::failed(FailureClass::Infrastructure, "code", "text"), number, || now),
                    _ => {}
                }
                prop_assert!(state.outcomes.len() <= MOST_OUTCOMES);
            }
            let later = state.opens_at().unwrap_or(now);
            prop_assert!(state.permits(8, number, || later) > 0);
            state.count(&Outcome::Done(None), number, || later);
            prop_assert_eq!(state.permits(8, number + 1, || later), 8);
        }
    }

    fn failed() -> Outcome {
        Outcome::failed(FailureClass::Transient, "code", "text")
    }

    #[test]
    fn it_is_written_as_it_is_read() {
        for text in ["50% of 20 in 30s, pause 1m", "100% of 1 in 500ms, pause 2s"] {
            assert_eq!(text.parse::<Breaker>().unwrap().to_string(), text);
        }
        for text in ["", "50%", "0% of 20 in 30s, pause 1m", "50% of 0 in 30s, pause 1m", "50% of 20 in 30, pause 1m"] {
            assert!(text.parse::<Breaker>().is_err(), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_pauses_tries_one_and_goes_on() {
        let mut state = BreakerState::new("50% of 4 in 10s, pause 5s".parse().ok());
        for outcome in [Outcome::Done(None), failed(), Outcome::Done(None)] {
            state.count(&outcome, 9, Instant::now);
        }
        assert_eq!(state.permits(64, 9, Instant::now), 64);
        state.count(&failed(), 9, Instant::now);
        assert_eq!(state.permits(64, 9, Instant::now), 0);
        state.count(&Outcome::Done(None), 9, Instant::now);
        assert_eq!(state.permits(64, 9, Instant::now), 0, "what ran before the pause says nothing");
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(state.permits(64, 9, Instant::now), 1);
        state.count(&failed(), 9, Instant::now);
        assert_eq!(state.permits(64, 9, Instant::now), 0, "the one that was tried failed");
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(state.permits(64, 9, Instant::now), 1);
        state.count(&Outcome::Done(None), 9, Instant::now);
        assert_eq!(state.permits(64, 9, Instant::now), 64);
    }

    #[tokio::test(start_paused = true)]
    async fn old_outcomes_are_forgotten_and_rejections_are_no_failures() {
        let mut state = BreakerState::new("50% of 2 in 10s, pause 5s".parse().ok());
        state.count(&failed(), 9, Instant::now);
        tokio::time::advance(Duration::from_secs(11)).await;
        state.count(&failed(), 9, Instant::now);
        assert_eq!(state.permits(64, 9, Instant::now), 64);
        state.count(&Outcome::failed(FailureClass::Rejected, "no", "no"), 9, Instant::now);
        state.count(&Outcome::Done(None), 9, Instant::now);
        assert_eq!(state.permits(64, 9, Instant::now), 64);
    }
}
