//! What becomes of a delivery: pure. It does no I/O and reads neither clock nor random source.

use std::time::Duration;

use crate::handler::{Asked, FailureClass, Outcome, Retry};
use crate::host::Again;

/// The first pause when something of ours failed; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause when something of ours failed.
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// How long a key without a handler is tried again: while a new version is rolled out, an old instance may
/// receive what only the new one handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkewPolicy {
    /// For how long, from the first time. Default: 10 min.
    pub window: Duration,
    /// The pause between two tries. Default: 5 s.
    pub pause: Duration,
}

impl Default for SkewPolicy {
    fn default() -> Self {
        Self { window: Duration::from_secs(600), pause: Duration::from_secs(5) }
    }
}

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// Whether the sender gets an answer, be it a result or a problem.
    pub answer: bool,
    /// What then becomes of the delivery.
    pub end: End,
}

/// How a delivery ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Done; the broker forgets it.
    Ack,
    /// To the dead-letter queue, then as done.
    DeadLetter,
    /// Back to its queue for somebody else.
    GiveBack,
    /// Into its queue again after a pause, then as done.
    Later(Duration),
}

/// Whether a failed attempt is followed by another one in place.
#[must_use]
pub fn in_place(outcome: &Outcome, asked: Asked, attempt: u32, uncounted: u32, retry: &Retry) -> Again {
    let Outcome::Failed(failed) = outcome else { return Again::No };
    match failed.class {
        _ if asked == Asked::Query => Again::No,
        FailureClass::Infrastructure => Again::Uncounted(doubled(FIRST_PAUSE, uncounted).min(LAST_PAUSE)),
        FailureClass::Transient | FailureClass::Panic | FailureClass::TimedOut if attempt < retry.attempts => {
            Again::After(doubled(retry.pause, attempt.saturating_sub(1)))
        }
        _ => Again::No,
    }
}

/// What becomes of a delivery whose handling has ended. `skewed_for` is how long ago its key first met a build
/// without a handler for it.
#[must_use]
pub fn decide(
    outcome: &Outcome,
    asked: Asked,
    attempt: u32,
    retry: &Retry,
    skewed_for: Duration,
    skew: &SkewPolicy,
) -> Settlement {
    let settle = |answer: bool, end: End| Settlement { answer: answer && asked != Asked::OneWay, end };
    let given_up = match asked {
        Asked::Query => settle(true, End::Ack),
        Asked::Reply | Asked::OneWay => settle(true, End::DeadLetter),
    };
    let failed = match outcome {
        Outcome::Done(_) => return settle(true, End::Ack),
        Outcome::Expired => return settle(false, End::Ack),
        Outcome::Failed(failed) => failed,
    };
    match failed.class {
        FailureClass::Shutdown => settle(false, End::GiveBack),
        FailureClass::Infrastructure if asked == Asked::Query => settle(true, End::Ack),
        FailureClass::Infrastructure => settle(false, End::GiveBack),
        FailureClass::Rejected if asked != Asked::OneWay => settle(true, End::Ack),
        FailureClass::NoHandler if asked != Asked::Query && skewed_for < skew.window => {
            settle(false, End::Later(skew.pause))
        }
        // The attempts were cut short, because the app stops: somebody else has the rest of them.
        FailureClass::Transient | FailureClass::Panic | FailureClass::TimedOut
            if asked != Asked::Query && attempt < retry.attempts =>
        {
            settle(false, End::GiveBack)
        }
        _ => given_up,
    }
}

fn doubled(pause: Duration, times: u32) -> Duration {
    pause.saturating_mul(2_u32.saturating_pow(times.min(16)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureClass as F;

    fn failed(class: FailureClass) -> Outcome {
        Outcome::failed(class, "code", "text")
    }

    fn settled(outcome: &Outcome, asked: Asked, attempt: u32) -> Settlement {
        decide(outcome, asked, attempt, &Retry::default(), Duration::ZERO, &SkewPolicy::default())
    }

    #[test]
    #[rustfmt::skip]
    fn every_outcome_is_settled_as_the_table_says() {
        use Asked::{OneWay, Query, Reply};
        let skew = End::Later(Duration::from_secs(5));
        let table = [
            (Outcome::Done(None), [(OneWay, false, End::Ack), (Reply, true, End::Ack), (Query, true, End::Ack)]),
            (Outcome::Expired, [(OneWay, false, End::Ack), (Reply, false, End::Ack), (Query, false, End::Ack)]),
            (failed(F::Rejected), [(OneWay, false, End::DeadLetter), (Reply, true, End::Ack), (Query, true, End::Ack)]),
            (failed(F::Permanent), [(OneWay, false, End::DeadLetter), (Reply, true, End::DeadLetter), (Query, true, End::Ack)]),
            (failed(F::Transient), [(OneWay, false, End::DeadLetter), (Reply, true, End::DeadLetter), (Query, true, End::Ack)]),
            (failed(F::Panic), [(OneWay, false, End::DeadLetter), (Reply, true, End::DeadLetter), (Query, true, End::Ack)]),
            (failed(F::TimedOut), [(OneWay, false, End::DeadLetter), (Reply, true, End::DeadLetter), (Query, true, End::Ack)]),
            (failed(F::Infrastructure), [(OneWay, false, End::GiveBack), (Reply, false, End::GiveBack), (Query, true, End::Ack)]),
            (failed(F::Shutdown), [(OneWay, false, End::GiveBack), (Reply, false, End::GiveBack), (Query, false, End::GiveBack)]),
            (failed(F::Undecodable), [(OneWay, false, End::DeadLetter), (Reply, true, End::DeadLetter), (Query, true, End::Ack)]),
            (failed(F::NoHandler), [(OneWay, false, skew), (Reply, false, skew), (Query, true, End::Ack)]),
        ];
        for (outcome, row) in table {
            for (asked, answer, end) in row {
                let expected = Settlement { answer, end };
                assert_eq!(settled(&outcome, asked, 3), expected, "{} {asked:?}", outcome.as_str());
            }
        }
    }

    #[test]
    fn attempts_cut_short_are_given_back_and_not_dead_lettered() {
        for class in [F::Transient, F::Panic, F::TimedOut] {
            assert_eq!(settled(&failed(class), Asked::OneWay, 2).end, End::GiveBack);
        }
    }

    #[test]
    fn a_key_without_handler_is_dead_lettered_after_the_window() {
        let decide_at =
            |age| decide(&failed(F::NoHandler), Asked::OneWay, 1, &Retry::default(), age, &SkewPolicy::default()).end;
        assert_eq!(decide_at(Duration::from_secs(599)), End::Later(Duration::from_secs(5)));
        assert_eq!(decide_at(Duration::from_secs(600)), End::DeadLetter);
    }

    #[test]
    fn failures_of_ours_count_no_attempt_and_queries_are_never_repeated() {
        let retry = Retry::default();
        assert_eq!(in_place(&failed(F::Infrastructure), Asked::OneWay, 3, 0, &retry), Again::Uncounted(FIRST_PAUSE));
        assert_eq!(in_place(&failed(F::Infrastructure), Asked::OneWay, 3, 99, &retry), Again::Uncounted(LAST_PAUSE));
        assert_eq!(in_place(&failed(F::Transient), Asked::Query, 1, 0, &retry), Again::No);
        assert_eq!(in_place(&failed(F::Transient), Asked::OneWay, 2, 0, &retry), Again::After(retry.pause * 2));
        assert_eq!(in_place(&failed(F::Transient), Asked::OneWay, 3, 0, &retry), Again::No);
        assert_eq!(in_place(&failed(F::Rejected), Asked::OneWay, 1, 0, &retry), Again::No);
    }
}
