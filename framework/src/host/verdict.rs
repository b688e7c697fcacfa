//! Decides what comes after an attempt. It is pure: no I/O, no clock, no random source.

use std::time::Duration;

use postrider_grammar::NextAttempt;

use crate::handler::{Asked, FailureClass, Outcome, Policy};

/// How long a message whose key has no handler is tried again. During a rollout an old instance may receive messages that only
/// the new version handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkewPolicy {
    /// How long, from the first try. Default: 10 min.
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
    /// Acknowledged; the broker forgets it.
    Ack,
    /// Acknowledged if a caller takes the answer, else dead-lettered.
    AckIfAnswered,
    /// Dead-lettered, then acknowledged.
    DeadLetter,
    /// Acknowledged and so dropped, as the policy says.
    Discard,
    /// Given back to its queue, for any consumer.
    GiveBack,
    /// Given back to its place in the queue, and the actor stops there.
    Stop,
    /// Published to its queue with a delay, for the next attempt, then acknowledged.
    Retry(Duration),
    /// Published to its queue with a delay, for the same attempt, then acknowledged.
    Later(Duration),
}

/// What comes after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Another attempt in place, after this pause.
    Again(Duration),
    /// The delivery is settled like this.
    Settle(Settlement),
}

/// What a verdict depends on.
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
    /// How long ago a build without a handler for the key first got the message.
    pub skewed_for: Duration,
    /// How long and how often such a message is tried again.
    pub skew: &'a SkewPolicy,
    /// Whether the actor stops at a message that it would otherwise dead-letter.
    pub stops: bool,
    /// From 0 to 1; spreads delays.
    pub chance: f64,
}

/// What comes after an attempt. Only this function asks the policy.
#[must_use]
pub fn verdict(case: &Case<'_>) -> Verdict {
    let Outcome::Failed(failed) = case.outcome else { return Verdict::Settle(settlement(case, NextAttempt::None)) };
    match case.policy.after(failed.class, case.attempt, case.chance) {
        NextAttempt::InPlace(pause) if case.asked != Asked::Query => Verdict::Again(pause),
        next => Verdict::Settle(settlement(case, next)),
    }
}

fn settlement(case: &Case<'_>, next: NextAttempt) -> Settlement {
    let Case { outcome, asked, policy, .. } = *case;
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
            // An actor that stops dead-letters no message, so there the answer is best effort.
            let nobody_needs_to_hear = case.stops || policy.discard.contains(&FailureClass::Rejected);
            return settle(true, if nobody_needs_to_hear { End::Ack } else { End::AckIfAnswered });
        }
        FailureClass::NoHandler if case.skewed_for < case.skew.window => {
            return settle(false, End::Later(case.skew.pause));
        }
        _ => {}
    }
    match next {
        NextAttempt::Delayed(delay) => settle(false, End::Retry(delay)),
        _ if policy.discard.contains(&failed.class) => settle(true, End::Discard),
        // It is tried again when the cause is fixed.
        _ if case.stops => settle(false, End::Stop),
        _ => settle(true, End::DeadLetter),
    }
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
        Case { outcome, asked, attempt, policy, skewed_for: Duration::ZERO, skew: &SKEW, stops: false, chance: 0.0 }
    }

    fn decide(case: &Case<'_>) -> Settlement {
        if let Verdict::Settle(settlement) = verdict(case) { settlement } else { panic!("there is another attempt") }
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
    fn an_actor_that_stops_gives_up_no_message() {
        let policy = Policy::default();
        let stops =
            |class, asked, attempt| decide(&Case { stops: true, ..case(&failed(class), asked, attempt, &policy) });
        assert_eq!(stops(F::Permanent, Asked::Reply, 1), Settlement { answer: false, end: End::Stop });
        assert_eq!(stops(F::CrashSuspected, Asked::OneWay, 1).end, End::Stop);
        assert_eq!(stops(F::Transient, Asked::OneWay, 3).end, End::Retry(Duration::from_secs(1)));
        assert_eq!(stops(F::Rejected, Asked::OneWay, 1).end, End::Stop);
        assert_eq!(stops(F::Rejected, Asked::Reply, 1), Settlement { answer: true, end: End::Ack });
        let discards = Policy { discard: vec![F::Permanent], ..Policy::default() };
        let outcome = failed(F::Permanent);
        let case = Case { stops: true, policy: &discards, ..case(&outcome, Asked::OneWay, 1, &policy) };
        assert_eq!(decide(&case).end, End::Discard);
    }

    #[test]
    fn only_failures_that_may_pass_are_followed_by_another_attempt_and_queries_never() {
        let policy = Policy::default();
        let again = |class, asked, attempt| verdict(&case(&failed(class), asked, attempt, &policy));
        assert_eq!(again(F::Transient, Asked::OneWay, 2), Verdict::Again(policy.retry.pause * 2));
        for (class, asked, attempt) in [
            (F::Infrastructure, Asked::OneWay, 1),
            (F::Transient, Asked::Query, 1),
            (F::Transient, Asked::OneWay, 3),
            (F::Rejected, Asked::OneWay, 1),
            (F::CrashSuspected, Asked::OneWay, 1),
        ] {
            assert!(matches!(again(class, asked, attempt), Verdict::Settle(_)), "{class:?} {asked:?}");
        }
    }
}

#[cfg(test)]
mod property_tests;
