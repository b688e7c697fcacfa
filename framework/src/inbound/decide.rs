//! What becomes of a delivery: pure. It does no I/O and reads neither clock nor random source.

use std::time::Duration;

use postrider_grammar::NextAttempt;

use crate::handler::{Asked, FailureClass, Outcome, Policy};
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
    /// Done, if somebody takes the answer; else to the dead-letter queue.
    AckIfAnswered,
    /// To the dead-letter queue, then as done.
    DeadLetter,
    /// Dropped, as the policy says; then as done.
    Discard,
    /// Back to its queue for somebody else.
    GiveBack,
    /// Into its queue again at once, for the next attempt; then as done.
    Restart,
    /// Into its queue again after a delay, for the next attempt; then as done.
    Retry(Duration),
    /// Into its queue again after a delay, for the same attempt; then as done.
    Later(Duration),
}

/// What a delivery's end depends on.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// How handling ended.
    pub outcome: &'a Outcome,
    /// What the sender asked for.
    pub asked: Asked,
    /// The attempt, counted from 1.
    pub attempt: u32,
    /// What the handler's policy says.
    pub policy: &'a Policy,
    /// How long ago the key first met a build without a handler for it.
    pub skewed_for: Duration,
    /// What is done about that.
    pub skew: &'a SkewPolicy,
    /// From 0 to 1; spreads delays.
    pub chance: f64,
}

/// Whether a failed attempt is followed by another one in place.
#[must_use]
pub fn in_place(outcome: &Outcome, asked: Asked, attempt: u32, uncounted: u32, policy: &Policy) -> Again {
    let Outcome::Failed(failed) = outcome else { return Again::No };
    if asked == Asked::Query {
        return Again::No;
    }
    if failed.class == FailureClass::Infrastructure {
        return Again::Uncounted(doubled(FIRST_PAUSE, uncounted).min(LAST_PAUSE));
    }
    match policy.after(failed.class, attempt, 0.0) {
        NextAttempt::InPlace(pause) => Again::After(pause),
        NextAttempt::Delayed(_) | NextAttempt::None => Again::No,
    }
}

/// What becomes of a delivery whose handling has ended.
#[must_use]
pub fn decide(case: &Case<'_>) -> Settlement {
    let Case { outcome, asked, attempt, policy, .. } = *case;
    let settle = |answer: bool, end: End| Settlement { answer: answer && asked != Asked::OneWay, end };
    let failed = match outcome {
        Outcome::Done(_) => return settle(true, End::Ack),
        Outcome::Expired => return settle(false, End::Ack),
        Outcome::Failed(failed) => failed,
    };
    match failed.class {
        FailureClass::Shutdown => return settle(false, End::GiveBack),
        _ if asked == Asked::Query => return settle(true, End::Ack),
        FailureClass::Infrastructure => return settle(false, End::GiveBack),
        FailureClass::Rejected if asked == Asked::Reply => {
            let discarded = policy.discard.contains(&FailureClass::Rejected);
            return settle(true, if discarded { End::Ack } else { End::AckIfAnswered });
        }
        FailureClass::NoHandler if case.skewed_for < case.skew.window => {
            return settle(false, End::Later(case.skew.pause));
        }
        _ => {}
    }
    match policy.after(failed.class, attempt, case.chance) {
        // The attempts were cut short, because the app stops: somebody else has the rest of them.
        NextAttempt::InPlace(_) => settle(false, End::GiveBack),
        NextAttempt::Delayed(delay) => settle(false, End::Retry(delay)),
        NextAttempt::None if policy.discard.contains(&failed.class) => settle(true, End::Discard),
        NextAttempt::None => settle(true, End::DeadLetter),
    }
}

/// From so many deliveries without an end on a crash is suspected, and counted as an attempt.
pub(super) const SUSPECTED_AFTER: u32 = 3;
/// From so many on a message is given up that has no attempt left, or that has to keep its place. More than above:
/// also those that only waited beside a message that ends its process are counted, and those that were given back.
const GIVES_UP_AFTER: u32 = 10;

/// What becomes of a message that was given back or lost so often before this delivery; `None` if it is handled.
#[must_use]
pub fn after_crashes(deliveries: u32, ordered: bool, attempt: u32, most_attempts: u32) -> Option<End> {
    if ordered || attempt >= most_attempts {
        return (deliveries >= GIVES_UP_AFTER).then_some(End::DeadLetter);
    }
    (deliveries >= SUSPECTED_AFTER).then_some(End::Restart)
}

fn doubled(pause: Duration, times: u32) -> Duration {
    pause.saturating_mul(2_u32.saturating_pow(times.min(16)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureClass as F;
    use postrider_grammar::Retry;

    fn failed(class: FailureClass) -> Outcome {
        Outcome::failed(class, "code", "text")
    }

    const SKEW: SkewPolicy = SkewPolicy { window: Duration::from_secs(600), pause: Duration::from_secs(5) };

    fn case<'a>(outcome: &'a Outcome, asked: Asked, attempt: u32, policy: &'a Policy) -> Case<'a> {
        Case { outcome, asked, attempt, policy, skewed_for: Duration::ZERO, skew: &SKEW, chance: 0.0 }
    }

    fn blocking() -> Policy {
        Policy { retry: Retry::in_place(3), ..Policy::default() }
    }

    #[test]
    #[rustfmt::skip]
    fn every_outcome_is_settled_as_the_table_says() {
        use Asked::{OneWay, Query, Reply};
        let skew = End::Later(Duration::from_secs(5));
        let table = [
            (Outcome::Done(None), [(OneWay, false, End::Ack), (Reply, true, End::Ack), (Query, true, End::Ack)]),
            (Outcome::Expired, [(OneWay, false, End::Ack), (Reply, false, End::Ack), (Query, false, End::Ack)]),
            (failed(F::Rejected), [(OneWay, false, End::DeadLetter), (Reply, true, End::AckIfAnswered), (Query, true, End::Ack)]),
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
                assert_eq!(decide(&case(&outcome, asked, 3, &blocking())), expected, "{} {asked:?}", outcome.as_str());
            }
        }
    }

    #[test]
    fn attempts_cut_short_are_given_back_and_not_dead_lettered() {
        for class in [F::Transient, F::Panic, F::TimedOut] {
            assert_eq!(decide(&case(&failed(class), Asked::OneWay, 2, &blocking())).end, End::GiveBack);
        }
    }

    #[test]
    fn attempts_in_place_are_followed_by_delayed_ones_and_these_by_the_end() {
        let (policy, outcome) = (Policy::default(), failed(F::Transient));
        let ends = [3, 4, 5, 6, 7].map(|attempt| decide(&case(&outcome, Asked::OneWay, attempt, &policy)).end);
        let retry = |seconds| End::Retry(Duration::from_secs(seconds));
        assert_eq!(ends, [retry(1), retry(10), retry(60), End::DeadLetter, End::DeadLetter]);
        assert_eq!(decide(&case(&outcome, Asked::Reply, 3, &policy)), Settlement { answer: false, end: retry(1) });
    }

    #[test]
    fn a_policy_may_give_up_at_once_or_discard() {
        let policy = Policy { give_up: vec![F::Panic], discard: vec![F::Panic, F::Rejected], ..blocking() };
        assert_eq!(in_place(&failed(F::Panic), Asked::OneWay, 1, 0, &policy), Again::No);
        assert_eq!(
            decide(&case(&failed(F::Panic), Asked::Reply, 1, &policy)),
            Settlement { answer: true, end: End::Discard }
        );
        assert_eq!(decide(&case(&failed(F::Rejected), Asked::OneWay, 1, &policy)).end, End::Discard);
        assert_eq!(decide(&case(&failed(F::Permanent), Asked::OneWay, 1, &policy)).end, End::DeadLetter);
    }

    #[test]
    fn a_key_without_handler_is_dead_lettered_after_the_window() {
        let (policy, outcome) = (Policy::default(), failed(F::NoHandler));
        let decide_at = |age| {
            let skewed_for = Duration::from_secs(age);
            decide(&Case { skewed_for, ..case(&outcome, Asked::OneWay, 1, &policy) }).end
        };
        assert_eq!(decide_at(599), End::Later(Duration::from_secs(5)));
        assert_eq!(decide_at(600), End::DeadLetter);
    }

    #[test]
    fn deliveries_without_an_end_are_counted_as_attempts() {
        assert_eq!([0, 1, 2].map(|count| after_crashes(count, false, 1, 6)), [None; 3]);
        assert_eq!(after_crashes(3, false, 1, 6), Some(End::Restart));
        assert_eq!((after_crashes(9, false, 6, 6), after_crashes(10, false, 6, 6)), (None, Some(End::DeadLetter)));
        assert_eq!((after_crashes(9, true, 1, 3), after_crashes(10, true, 1, 3)), (None, Some(End::DeadLetter)));
    }

    #[test]
    fn failures_of_ours_count_no_attempt_and_queries_are_never_repeated() {
        let policy = Policy::default();
        assert_eq!(in_place(&failed(F::Infrastructure), Asked::OneWay, 3, 0, &policy), Again::Uncounted(FIRST_PAUSE));
        assert_eq!(in_place(&failed(F::Infrastructure), Asked::OneWay, 3, 99, &policy), Again::Uncounted(LAST_PAUSE));
        assert_eq!(in_place(&failed(F::Transient), Asked::Query, 1, 0, &policy), Again::No);
        assert_eq!(in_place(&failed(F::Transient), Asked::OneWay, 2, 0, &policy), Again::After(policy.retry.pause * 2));
        assert_eq!(in_place(&failed(F::Transient), Asked::OneWay, 3, 0, &policy), Again::No);
        assert_eq!(in_place(&failed(F::Rejected), Asked::OneWay, 1, 0, &policy), Again::No);
    }
}

#[cfg(test)]
mod properties;
