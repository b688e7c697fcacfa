//! What holds for every verdict.

use postrider_grammar::{Delays, Retry};
use proptest::prelude::*;

use super::*;

const CLASSES: [FailureClass; 10] = [
    FailureClass::Rejected,
    FailureClass::Permanent,
    FailureClass::Transient,
    FailureClass::Panic,
    FailureClass::TimedOut,
    FailureClass::Infrastructure,
    FailureClass::Shutdown,
    FailureClass::Undecodable,
    FailureClass::NoHandler,
    FailureClass::CrashSuspected,
];

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        1 => Just(Outcome::Done(None)),
        1 => Just(Outcome::Expired),
        10 => prop::sample::select(&CLASSES[..]).prop_map(|class| Outcome::failed(class, "code", "text")),
    ]
}

fn asked() -> impl Strategy<Value = Asked> {
    prop::sample::select(vec![Asked::OneWay, Asked::Event, Asked::Reply, Asked::Query])
}

fn policy() -> impl Strategy<Value = Policy> {
    let time = || (100..5_000_u64).prop_map(Duration::from_millis);
    let list = prop::collection::vec(time(), 0..5).prop_map(Delays::List);
    let growing =
        (time(), time(), 1..5_u32).prop_map(|(a, b, times)| Delays::Growing { first: a.min(b), cap: a.max(b), times });
    let retry = (1..6_u32, time(), prop_oneof![list, growing]).prop_map(|(in_place, pause, delays)| Retry {
        in_place,
        pause,
        delays,
    });
    let classes = || prop::collection::vec(prop::sample::select(&CLASSES[..]), 0..3);
    (retry, classes(), classes()).prop_map(|(retry, give_up, discard)| Policy { retry, give_up, discard })
}

fn skew() -> impl Strategy<Value = SkewPolicy> {
    (0..1_000_u64, 1..100_u64).prop_map(|(window, pause)| SkewPolicy {
        window: Duration::from_secs(window),
        pause: Duration::from_secs(pause),
    })
}

fn class_of(outcome: &Outcome) -> Option<FailureClass> {
    if let Outcome::Failed(failed) = outcome { Some(failed.class) } else { None }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn any_case_is_settled(
        outcome in outcome(), asked in asked(), attempt in prop_oneof![0..12_u32, any::<u32>()], policy in policy(),
        skewed_for in any::<u32>(), skew in skew(), chance in any::<f64>(), stops in any::<bool>(),
    ) {
        let skewed_for = Duration::from_secs(u64::from(skewed_for));
        let case = Case { outcome: &outcome, asked, attempt, policy: &policy, skewed_for, skew: &skew, stops, chance };
        let class = class_of(&outcome);
        let ours = matches!(class, Some(FailureClass::Infrastructure | FailureClass::Shutdown));
        let Settlement { answer, end } = match verdict(&case) {
            Verdict::Again(pause) => {
                prop_assert!(!ours && class.is_some() && asked != Asked::Query);
                prop_assert!(pause >= policy.retry.pause && attempt < policy.retry.in_place.max(1));
                return Ok(());
            }
            Verdict::Settle(settlement) => settlement,
        };

        // The caller gets an answer exactly when the message ends, unless it has stopped waiting.
        let ends = matches!(end, End::Ack | End::AckIfAnswered | End::DeadLetter | End::Discard);
        prop_assert_eq!(answer, ends && asked != Asked::OneWay && outcome != Outcome::Expired);
        if asked == Asked::Query {
            prop_assert!(end == End::Ack || end == End::GiveBack && class == Some(FailureClass::Shutdown));
        }
        if class == Some(FailureClass::Rejected) && matches!(asked, Asked::OneWay | Asked::Event) {
            prop_assert!(end != End::Ack, "nobody hears of it");
        }
        if ours {
            prop_assert!(end == End::GiveBack || asked == Asked::Query, "{end:?} for a failure of ours");
        }
        if class.is_none() {
            prop_assert!(end == End::Ack);
        }
        match end {
            End::Retry(delay) => {
                prop_assert!(delay >= postrider_grammar::MIN_DELAY && attempt < policy.retry.most_attempts());
            }
            End::Later(pause) => prop_assert!(pause == skew.pause && skewed_for < skew.window),
            End::Discard => prop_assert!(class.is_some_and(|class| policy.discard.contains(&class))),
            End::AckIfAnswered => {
                prop_assert!(class == Some(FailureClass::Rejected) && asked == Asked::Reply && !stops);
            }
            End::Stop => prop_assert!(stops),
            End::DeadLetter => prop_assert!(!stops),
            End::Ack | End::GiveBack => {}
        }
    }

    #[test]
    fn no_path_of_failures_has_more_than_the_most_attempts(
        failures in prop::collection::vec((prop::sample::select(&CLASSES[..]), 0.0..=1.0_f64, any::<bool>()), 60..61),
        asked in asked(), policy in policy(), skew in skew(),
    ) {
        let most = policy.retry.most_attempts();
        // The number of the present attempt, and how often one has run to its end.
        let (mut attempt, mut ran, mut skewed_for, mut ended) = (1, 0, Duration::ZERO, false);
        for (class, chance, stops) in failures {
            let outcome = Outcome::failed(class, "code", "text");
            let counts = !matches!(class, FailureClass::Infrastructure | FailureClass::Shutdown | FailureClass::NoHandler);
            ran += u32::from(counts);
            prop_assert!(ran <= most && attempt <= most, "{ran} runs, attempt {attempt} of {most}");
            let stops_at_poison = false;
            let case = Case {
                outcome: &outcome, asked, attempt, policy: &policy, skewed_for, skew: &skew, stops: stops_at_poison, chance,
            };
            let end = match verdict(&case) {
                Verdict::Again(_) => {
                    // Interrupted: it is given back, and the attempt runs again.
                    if stops { ran -= 1 } else { attempt += 1 }
                    continue;
                }
                Verdict::Settle(settlement) => settlement.end,
            };
            match end {
                End::Retry(_) => attempt += 1,
                End::Later(pause) => skewed_for += pause,
                End::GiveBack => {}
                End::Ack | End::AckIfAnswered | End::DeadLetter | End::Discard => { ended = true; break; }
                End::Stop => prop_assert!(false),
            }
        }
        // With this number of counted failures it cannot go on.
        prop_assert!(ended || ran <= most);
    }
}
