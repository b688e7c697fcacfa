//! The in-process broker while others write into its queues and delete its sources.

use std::collections::BTreeSet;
use std::time::Duration;

use postrider::operate::{DeadFilter, DeadLetters};
use postrider::testing::{FaultKind, FaultReport, FaultTest, Faults, MakeApp, run};
use postrider::{App, Context, Failure, Payload, distributed};
use postrider_tests::world::{Seen, assert_same};
use tokio::time::{Instant, sleep};

const COMMANDS: u32 = 60;
/// How long it may take until all is handled, on the test's clock.
const PATIENCE: Duration = Duration::from_secs(1_800);

#[derive(Default)]
struct Alpha;

#[distributed(service = "alpha")]
impl Alpha {
    #[distributed(command = "alpha.pass")]
    async fn pass(&self, number: u32, cx: &Context) -> Result<(), Failure> {
        cx.send_key("beta.do", Payload::json(&number))?;
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Beta(Seen<u32>);

#[distributed(service = "beta")]
impl Beta {
    #[distributed(command = "beta.do")]
    async fn act(&self, number: u32) {
        self.0.add(number);
    }
}

/// What beta has handled when all is done, the reasons of the dead letters, and what happened.
fn passed_on(kind: FaultKind, seed: u64) -> (Vec<u32>, Vec<String>, FaultReport) {
    let beta = Beta::default();
    let other = beta.clone();
    let apps: [MakeApp; 2] = [
        Box::new(|| App::new("alpha").actor(Alpha::default)),
        Box::new(move || {
            let beta = other.clone();
            App::new("beta").actor(move || beta.clone())
        }),
    ];
    let mut faults = Faults::seeded(seed);
    (faults.kinds, faults.rate) = (vec![kind], 0.1);
    run(async {
        let test = FaultTest::start(faults, apps).await;
        let (letters, report) = test
            .run(async |bus| {
                let start = Instant::now();
                let in_time = |what: &str| assert!(start.elapsed() < PATIENCE, "seed {seed}: not in time: {what}");
                for number in 1..=COMMANDS {
                    // While the source is gone, sending is an error.
                    while bus.send_key("alpha.pass", Payload::json(&number)).await.is_err() {
                        in_time("a command is taken");
                        sleep(Duration::from_millis(100)).await;
                    }
                }
                while beta.0.all().iter().collect::<BTreeSet<_>>().len() < COMMANDS as usize {
                    in_time("all are handled");
                    sleep(Duration::from_secs(1)).await;
                }
                DeadLetters::new(bus).list(&DeadFilter::all()).await.unwrap()
            })
            .await;
        (beta.0.all(), letters.iter().map(|letter| letter.reason().to_owned()).collect(), report)
    })
}

#[test]
fn strangers_messages_among_good_ones_are_dead_letters_and_every_good_one_is_handled_once() {
    let mut faults = 0;
    for seed in 1..=10 {
        let (handled, reasons, report) = passed_on(FaultKind::Stranger, seed);
        assert_same(1..=COMMANDS, handled);
        // One that was written in front of a dead letter has no reason.
        assert!(reasons.iter().all(|reason| reason == "undecodable" || reason.is_empty()), "seed {seed}: {reasons:?}");
        assert!(!reasons.is_empty() && reasons.len() <= report.faults.len(), "seed {seed}: {report:?}");
        faults += report.faults.len();
    }
    assert!(faults > 50, "only {faults} strangers");
}

#[test]
fn no_command_is_lost_or_handled_twice_while_its_source_is_deleted_again_and_again() {
    let mut faults = 0;
    for seed in 1..=10 {
        let (handled, reasons, report) = passed_on(FaultKind::SourceDeleted, seed);
        assert_same(1..=COMMANDS, handled);
        assert_eq!(reasons, [""; 0], "seed {seed}");
        faults += report.faults.len();
    }
    assert!(faults > 50, "only {faults} deletions");
}
