//! How often a failed message is tried again, as users write it: `3 then 1s, 10s, 1m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::duration::{parse_duration, show_duration};

/// The most attempts in place.
pub const MAX_IN_PLACE: u32 = 100;
/// The most delayed attempts.
pub const MAX_DELAYED: u32 = 100;
/// The shortest delay.
pub const MIN_DELAY: Duration = Duration::from_millis(100);
/// The longest delay: 38 days.
pub const MAX_DELAY: Duration = Duration::from_secs(38 * 86_400);

/// When a failed message is tried again: first in place, where the queue's order is kept, then after delays, in which
/// others overtake it. Written `none`, `blocking`, `delayed`, or `ATTEMPTS then DELAYS`:
///
/// ```
/// use postrider_grammar::Retry;
///
/// let retry: Retry = "2 then 1s, 10s".parse().unwrap();
/// assert_eq!(retry.most_attempts(), 4);
/// let growing: Retry = "1 then 1s..10m x8".parse().unwrap();
/// assert_eq!(growing.most_attempts(), 9);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// The attempts in place, the first included. Default: 3.
    pub in_place: u32,
    /// The pause before the second attempt in place; it doubles with each further one. Default: 50 ms.
    pub pause: Duration,
    /// The later attempts, one after each delay. Default: after 1 s, 10 s and 1 min.
    pub delays: Delays,
}

/// The delays between later attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delays {
    /// One after the other.
    List(Vec<Duration>),
    /// Doubling, each randomly lengthened by up to a quarter.
    Growing {
        /// The first.
        first: Duration,
        /// The longest, before the random part.
        cap: Duration,
        /// How many.
        times: u32,
    },
}

/// What comes after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextAttempt {
    /// Another one in place, after this pause.
    InPlace(Duration),
    /// Another one after this delay.
    Delayed(Duration),
    /// None.
    None,
}

/// The text is not a retry plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryError(String);

impl fmt::Display for RetryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RetryError {}

impl Default for Retry {
    fn default() -> Self {
        let delays = [1, 10, 60].map(Duration::from_secs).to_vec();
        Self { delays: Delays::List(delays), ..Self::in_place(3) }
    }
}

impl Retry {
    /// This number of attempts, all of them in place.
    #[must_use]
    pub const fn in_place(attempts: u32) -> Self {
        Self { in_place: attempts, pause: Duration::from_millis(50), delays: Delays::List(Vec::new()) }
    }

    /// The same without delayed attempts: it never leaves the order of its queue.
    #[must_use]
    pub fn blocking(self) -> Self {
        Self { delays: Delays::List(Vec::new()), ..self }
    }

    /// The most attempts there are in all.
    #[must_use]
    pub fn most_attempts(&self) -> u32 {
        self.in_place.max(1).saturating_add(self.delays.count())
    }

    /// What comes after this failed attempt, counted from 1. `chance`, a random number from 0 to 1, spreads growing delays.
    #[must_use]
    pub fn after(&self, attempt: u32, chance: f64) -> NextAttempt {
        let in_place = self.in_place.max(1);
        if attempt < in_place {
            let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1).min(16));
            return NextAttempt::InPlace(self.pause.saturating_mul(doubled));
        }
        self.delays.get(attempt - in_place, chance).map_or(NextAttempt::None, NextAttempt::Delayed)
    }
}

impl Delays {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        match self {
            Self::List(delays) => u32::try_from(delays.len()).unwrap_or(u32::MAX),
            Self::Growing { times, .. } => *times,
        }
    }

    /// The longest of them, without the random part; zero if there are none.
    #[must_use]
    pub fn longest(&self) -> Option<Duration> {
        match self {
            Self::List(delays) => delays.iter().max().copied(),
            // They grow, so the last one is the longest.
            Self::Growing { times, .. } => self.get(times.checked_sub(1)?, 0.0),
        }
    }

    fn get(&self, index: u32, chance: f64) -> Option<Duration> {
        match self {
            Self::List(delays) => delays.get(index as usize).copied(),
            Self::Growing { first, cap, times } => (index < *times).then(|| {
                let base = first.saturating_mul(2_u32.saturating_pow(index.min(31))).min(*cap);
                // NaN adds nothing.
                base.saturating_add(base.mul_f64((chance.clamp(0.0, 1.0) / 4.0).max(0.0)))
            }),
        }
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.in_place.max(1))?;
        match &self.delays {
            Delays::List(delays) if delays.is_empty() => Ok(()),
            Delays::List(delays) => {
                let shown: Vec<String> = delays.iter().map(|delay| show_duration(*delay)).collect();
                write!(f, " then {}", shown.join(", "))
            }
            Delays::Growing { first, cap, times } => {
                write!(f, " then {}..{} x{times}", show_duration(*first), show_duration(*cap))
            }
        }
    }
}

impl FromStr for Retry {
    type Err = RetryError;

    fn from_str(text: &str) -> Result<Self, RetryError> {
        let text = text.trim();
        match text {
            "none" => return Ok(Self::in_place(1)),
            "blocking" => return Ok(Self::in_place(3)),
            "delayed" => return Ok(Self::default()),
            _ => {}
        }
        let (attempts, delays) = match text.split_once("then") {
            Some((attempts, delays)) => (attempts.trim(), Some(delays.trim())),
            None => (text, None),
        };
        let in_place = attempts.parse().ok().filter(|attempts| (1..=MAX_IN_PLACE).contains(attempts));
        let Some(in_place) = in_place else { return Err(no_plan(text)) };
        let delays = delays.map_or_else(|| Ok(Delays::List(Vec::new())), |delays| delays_in(delays, text))?;
        Ok(Self { delays, ..Self::in_place(in_place) })
    }
}

fn no_plan(text: &str) -> RetryError {
    RetryError(format!(
        "{text:?} is no retry plan; write \"none\", \"blocking\" (3 attempts in place), \"delayed\" (3, then after 1s, 10s, 1m), a number of attempts such as \"5\", \"3 then 1s, 10s, 1m\", or \"1 then 1s..10m x8\" for delays that double"
    ))
}

fn delays_in(delays: &str, text: &str) -> Result<Delays, RetryError> {
    let delay = |part: &str| match parse_duration(part) {
        Some(delay) if (MIN_DELAY..=MAX_DELAY).contains(&delay) => Ok(delay),
        Some(_) => Err(RetryError(format!("{:?} is no delay: it lasts from 100ms to 38d", part.trim()))),
        None => Err(no_plan(text)),
    };
    let bounded = |count: u32| {
        if (1..=MAX_DELAYED).contains(&count) {
            return Ok(count);
        }
        Err(RetryError(format!("{count} delayed attempts are not possible; there are from 1 to {MAX_DELAYED}")))
    };
    if let Some((first, rest)) = delays.split_once("..") {
        let (cap, times) = rest.split_once('x').ok_or_else(|| no_plan(text))?;
        let times = bounded(times.trim().parse().map_err(|_| no_plan(text))?)?;
        let (first, cap) = (delay(first)?, delay(cap)?);
        if first > cap {
            return Err(RetryError(format!("the first delay is longer than the longest in {text:?}")));
        }
        return Ok(Delays::Growing { first, cap, times });
    }
    let list = delays.split(',').map(delay).collect::<Result<Vec<_>, _>>()?;
    bounded(u32::try_from(list.len()).unwrap_or(u32::MAX))?;
    Ok(Delays::List(list))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn delay() -> impl Strategy<Value = Duration> {
        let longest = MAX_DELAY.as_millis() as u64;
        prop_oneof![100..2_000_u64, 100..=longest, (1..3_000_u64).prop_map(|n| n * 1_000)]
            .prop_map(Duration::from_millis)
    }

    fn plan() -> impl Strategy<Value = Retry> {
        let list = prop::collection::vec(delay(), 0..=MAX_DELAYED as usize).prop_map(Delays::List);
        let growing = (delay(), delay(), 1..=MAX_DELAYED).prop_map(|(a, b, times)| Delays::Growing {
            first: a.min(b),
            cap: a.max(b),
            times,
        });
        (1..=MAX_IN_PLACE, prop_oneof![list, growing])
            .prop_map(|(in_place, delays)| Retry { delays, ..Retry::in_place(in_place) })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn any_plan_is_read_as_it_is_written(plan in plan()) {
            prop_assert_eq!(plan.to_string().parse::<Retry>(), Ok(plan));
        }

        #[test]
        fn any_plan_ends_after_its_most_attempts_and_waits_as_long_as_it_says(plan in plan(), chance in 0.0..=1.0_f64) {
            for attempt in 1..plan.most_attempts() {
                match plan.after(attempt, chance) {
                    NextAttempt::InPlace(pause) => prop_assert!(attempt < plan.in_place && pause >= plan.pause),
                    NextAttempt::Delayed(delay) => {
                        prop_assert!(attempt >= plan.in_place && delay >= MIN_DELAY && delay <= MAX_DELAY + MAX_DELAY / 4);
                    }
                    NextAttempt::None => prop_assert!(false, "it ends at {attempt} of {}", plan.most_attempts()),
                }
            }
            prop_assert_eq!(plan.after(plan.most_attempts(), chance), NextAttempt::None);
            prop_assert_eq!(plan.after(u32::MAX, chance), NextAttempt::None);
        }

        #[test]
        fn any_numbers_in_a_plan_made_by_hand_are_added_without_a_panic(
            in_place in prop_oneof![0..5_u32, Just(u32::MAX)], times in prop_oneof![0..5_u32, Just(u32::MAX)],
            first in prop_oneof![Just(Duration::ZERO), Just(Duration::MAX), delay()],
            attempt in prop_oneof![0..9_u32, any::<u32>()], chance in any::<f64>(),
        ) {
            let delays = Delays::Growing { first, cap: Duration::MAX, times };
            let plan = Retry { in_place, pause: first, delays };
            prop_assert!(plan.most_attempts() >= in_place.max(times));
            if let NextAttempt::Delayed(delay) = plan.after(attempt, chance) {
                prop_assert!(delay >= first);
            }
        }

        #[test]
        fn any_text_is_a_plan_that_is_written_as_it_is_read_or_says_what_to_write(
            text in prop_oneof![
                "\\PC{0,40}",
                "[0-9]{1,3} ?(then)? ?([0-9]{1,4}(ms|s|m|h|d)?[, x.]{0,3}){0,4}",
                "(none|blocking|delayed|then|x|\\.\\.|,| |[0-9]{1,11}|ms|s|d){0,8}",
            ]
        ) {
            match text.parse::<Retry>() {
                Ok(plan) => {
                    prop_assert!(plan.most_attempts() <= MAX_IN_PLACE + MAX_DELAYED, "{}", text);
                    prop_assert_eq!(plan.to_string().parse::<Retry>(), Ok(plan));
                }
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }

    fn steps(text: &str) -> Vec<NextAttempt> {
        let retry: Retry = text.parse().unwrap();
        (1..=retry.most_attempts()).map(|attempt| retry.after(attempt, 0.0)).collect()
    }

    #[test]
    fn attempts_in_place_come_first_then_one_after_each_delay() {
        use NextAttempt::{Delayed, InPlace, None};
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        assert_eq!(steps("none"), [None]);
        assert_eq!(steps("blocking"), [InPlace(ms(50)), InPlace(ms(100)), None]);
        assert_eq!(
            steps("delayed"),
            [InPlace(ms(50)), InPlace(ms(100)), Delayed(s(1)), Delayed(s(10)), Delayed(s(60)), None]
        );
        assert_eq!(steps("1 then 1s..3s x3"), [Delayed(s(1)), Delayed(s(2)), Delayed(s(3)), None]);
    }

    #[test]
    fn chance_makes_growing_delays_longer_and_never_shorter() {
        let retry: Retry = "1 then 4s..1h x5".parse().unwrap();
        assert_eq!(retry.after(1, 1.0), NextAttempt::Delayed(Duration::from_secs(5)));
        assert_eq!(retry.after(1, 0.0), NextAttempt::Delayed(Duration::from_secs(4)));
    }

    #[test]
    fn a_plan_is_written_as_it_is_read() {
        for text in ["1", "5", "3 then 1s, 10s, 1m", "1 then 500ms..10m x8"] {
            assert_eq!(text.parse::<Retry>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_plan_is_refused_with_what_to_write() {
        for text in [
            "",
            "forever",
            "0",
            "101",
            "3 then",
            "3 then soon",
            "3 then 1s..2s",
            "3 then 1s..2s x0",
            "3 then 1s..2s x999",
        ] {
            assert!(text.parse::<Retry>().is_err(), "{text}");
        }
        assert!("3 then 50ms".parse::<Retry>().unwrap_err().to_string().contains("100ms to 38d"));
        assert!("3 then 39d".parse::<Retry>().unwrap_err().to_string().contains("38d"));
        assert!("3 then 5s..2s x2".parse::<Retry>().unwrap_err().to_string().contains("longer"));
    }
}
