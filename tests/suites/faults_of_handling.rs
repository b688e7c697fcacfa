//! Faults while handlers run, stop and send, each with a seed that has shown a broken promise.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider::operate::{DeadFilter, DeadLetters};
use postrider::testing::{FaultKind, FaultTest, Faults, MakeApp, run};
use postrider::{App, Context, Failure, Payload, distributed};

/// By id, the attempts that have begun, each as often as it began.
type Runs = Arc<Mutex<BTreeMap<String, Vec<u32>>>>;

#[derive(Clone, Default)]
struct Gamma(Runs);

impl Gamma {
    async fn note(&self, cx: &Context) {
        self.0.lock().unwrap().entry(cx.envelope().id.to_string()).or_default().push(cx.attempt());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[distributed(service = "gamma")]
impl Gamma {
    #[distributed(command = "gamma.do")]
    async fn take(&mut self, _: u32, cx: &Context) {
        self.note(cx).await;
    }

    #[distributed(command = "gamma.pass")]
    async fn pass(&mut self, number: u32, cx: &Context) -> Result<(), Failure> {
        self.note(cx).await;
        cx.publish_key("gamma.passed", Payload::json(&number))?;
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Delta(Runs);

#[distributed(service = "delta", ordered = true)]
impl Delta {
    #[distributed(command = "delta.do")]
    async fn take(&mut self, _: u32, cx: &Context) {
        Gamma(self.0.clone()).note(cx).await;
    }

    #[distributed(event = "gamma.passed")]
    async fn passed(&mut self, _: u32) {}
}

/// What began, and the reasons of the dead letters, after so many commands under these faults and a while.
fn runs_under(faults: Faults, key: &str, count: u32) -> (BTreeMap<String, Vec<u32>>, Vec<String>) {
    let runs = Runs::default();
    let (gamma, delta) = (Gamma(runs.clone()), Delta(runs.clone()));
    let apps: [MakeApp; 2] = [
        Box::new(move || {
            App::new("gamma").actor({
                let gamma = gamma.clone();
                move || gamma.clone()
            })
        }),
        Box::new(move || {
            App::new("delta").actor({
                let delta = delta.clone();
                move || delta.clone()
            })
        }),
    ];
    let letters = run(async {
        let test = FaultTest::start(faults, apps).await;
        let (letters, _) = test
            .run(async |bus| {
                for number in 0..count {
                    bus.send_key_with(key, Payload::json(&number), |o| o.id(format!("m{number}"))).await.unwrap();
                }
                tokio::time::sleep(Duration::from_secs(900)).await;
                DeadLetters::new(bus).list(&DeadFilter::all()).await.unwrap()
            })
            .await;
        letters.iter().map(|letter| format!("{} {}", letter.id(), letter.reason())).collect()
    });
    let runs = runs.lock().unwrap().clone();
    (runs, letters)
}

fn only(kinds: &[FaultKind], seed: u64, rate: f64, most: usize) -> Faults {
    let mut faults = Faults::seeded(seed);
    (faults.kinds, faults.rate, faults.most) = (kinds.to_vec(), rate, most);
    faults
}

fn each_began_once(runs: &BTreeMap<String, Vec<u32>>, letters: &[String], count: u32) {
    let other: Vec<_> = runs.iter().filter(|(_, attempts)| **attempts != [1]).collect();
    assert!(
        runs.len() == count as usize && other.is_empty() && letters.is_empty(),
        "{} of {count} began; other than once at attempt 1: {other:?}; letters {letters:?}",
        runs.len()
    );
}

#[test]
fn an_orderly_stop_raises_no_attempt_however_often_it_happens() {
    let (runs, letters) = runs_under(only(&[FaultKind::Stop], 1, 0.1, 40), "gamma.do", 60);
    each_began_once(&runs, &letters, 60);
}

#[test]
fn an_orderly_stop_gives_up_nothing_of_an_ordered_actor_however_often_it_happens() {
    let (runs, letters) = runs_under(only(&[FaultKind::Stop], 1, 0.1, 40), "delta.do", 60);
    each_began_once(&runs, &letters, 60);
}

#[test]
fn a_handler_that_succeeded_does_not_run_again_when_what_it_sends_is_refused() {
    let (runs, letters) = runs_under(only(&[FaultKind::QueueFull], 1, 0.3, 3), "gamma.pass", 5);
    each_began_once(&runs, &letters, 5);
}

#[test]
fn a_handler_that_succeeded_does_not_run_again_when_a_queue_confirms_nothing() {
    let (runs, letters) = runs_under(only(&[FaultKind::NoConfirm], 1, 0.3, 3), "gamma.pass", 5);
    each_began_once(&runs, &letters, 5);
}

/// Handlers that fail for good, so that each message ends as one dead letter.
#[derive(Clone, Default)]
struct Epsilon(Runs);

#[distributed(service = "epsilon")]
impl Epsilon {
    #[distributed(command = "epsilon.do")]
    async fn take(&self, _: u32, cx: &Context) -> Result<(), Failure> {
        Gamma(self.0.clone()).note(cx).await;
        Err(Failure::permanent("it cannot"))
    }
}

#[test]
fn a_dead_letter_is_written_once_when_its_consuming_channel_ends_meanwhile() {
    for seed in 1..=10 {
        let epsilon = Epsilon::default();
        let make: MakeApp = Box::new(move || {
            App::new("epsilon").actor({
                let epsilon = epsilon.clone();
                move || epsilon.clone()
            })
        });
        let ids = run(async {
            let kinds = [FaultKind::ConsumerChannel, FaultKind::LateConfirm];
            let mut faults = only(&kinds, seed, 0.2, 20);
            faults.longest_silence = Duration::from_secs(5);
            let test = FaultTest::start(faults, [make]).await;
            let (letters, _) = test
                .run(async |bus| {
                    for number in 0..20 {
                        let id = format!("m{number}");
                        bus.send_key_with("epsilon.do", Payload::json(&number), |o| o.id(id)).await.unwrap();
                    }
                    tokio::time::sleep(Duration::from_secs(900)).await;
                    DeadLetters::new(bus).list(&DeadFilter::all()).await.unwrap()
                })
                .await;
            let mut ids: Vec<String> = letters.iter().map(|letter| letter.id().to_owned()).collect();
            ids.sort_unstable();
            ids
        });
        let mut once = ids.clone();
        once.dedup();
        assert_eq!(ids, once, "seed {seed}");
    }
}
