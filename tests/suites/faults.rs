//! The in-process broker with its fault script: whatever a seed does, nothing is lost, nothing hangs, and the same seed
//! does the same again. `POSTRIDER_SEED=N` runs one seed alone.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider::operate::{DeadFilter, DeadLetters};
use postrider::testing::{Fault, FaultKind, FaultReport, FaultTest, Faults, MakeApp, run};
use postrider::{App, Bus, Context, Failure, Payload, distributed};
use postrider_tests::ledger::{Balance, Ledger};
use postrider_tests::world::Seen;

/// How many commands a run sends.
const COMMANDS: u32 = 120;
/// How long it may take until all is in the books, on the test's clock.
const PATIENCE: Duration = Duration::from_secs(1_800);

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("POSTRIDER_SEED") {
        Ok(seed) => vec![seed.parse().expect("POSTRIDER_SEED is a number")],
        Err(_) => (1..=count).collect(),
    }
}

/// What runs in one process, and what has overlapped there.
#[derive(Clone, Default)]
struct UnderWay(Arc<Mutex<(BTreeSet<String>, Vec<String>)>>);

impl UnderWay {
    fn overlapped(&self) -> Vec<String> {
        self.0.lock().unwrap().1.clone()
    }

    /// A run, until it is dropped. It takes some time, so that another one could begin beside it.
    async fn run(&self, cx: &Context) -> Run {
        let id = cx.envelope().id.to_string();
        {
            let mut books = self.0.lock().unwrap();
            if !books.0.insert(id.clone()) {
                books.1.push(id.clone());
            }
        }
        let run = Run { id, under_way: self.clone() };
        tokio::time::sleep(Duration::from_millis(1)).await;
        run
    }
}

struct Run {
    id: String,
    under_way: UnderWay,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.under_way.0.lock().unwrap().0.remove(&self.id);
    }
}

#[derive(Clone, Default)]
struct Alpha {
    ledger: Ledger,
    seen: Seen<u32>,
    under_way: UnderWay,
    processes: Arc<Mutex<Vec<UnderWay>>>,
}

impl Alpha {
    /// What has overlapped in any of its processes.
    fn overlapped(&self) -> Vec<String> {
        self.processes.lock().unwrap().iter().flat_map(UnderWay::overlapped).collect()
    }

    /// As it begins in another process.
    fn anew(&self) -> Self {
        let under_way = UnderWay::default();
        self.processes.lock().unwrap().push(under_way.clone());
        Self { under_way, ..self.clone() }
    }
}

#[distributed(service = "alpha")]
impl Alpha {
    /// Every seventh fails once in passing, every fortieth for good.
    #[distributed(command = "alpha.do")]
    async fn take(&self, number: u32, cx: &Context) -> Result<(), Failure> {
        let _run = self.under_way.run(cx).await;
        if number.is_multiple_of(40) {
            return Err(Failure::permanent("it cannot"));
        }
        if number.is_multiple_of(7) && cx.attempt() < 5 {
            return Err(Failure::transient("not yet"));
        }
        cx.publish_key("alpha.done", Payload::json(&number))?;
        self.ledger.handles(&format!("alpha {number}"));
        self.seen.add(number);
        Ok(())
    }

    #[distributed(query = "alpha.ask")]
    async fn ask(&self, number: u32) -> Result<u32, Failure> {
        Ok(number + 1)
    }
}

#[derive(Clone, Default)]
struct Beta {
    ledger: Ledger,
    seen: Seen<u32>,
}

#[distributed(service = "beta", ordered = true)]
impl Beta {
    #[distributed(event = "alpha.*")]
    async fn done(&mut self, number: u32) {
        self.ledger.handles(&format!("beta {number}"));
        self.seen.add(number);
    }

    #[distributed(command = "beta.do")]
    async fn next(&mut self, number: u32) {
        self.ledger.handles(&format!("ordered {number}"));
        self.seen.add(number);
    }
}

fn apps(alpha: &Alpha, beta: &Beta) -> [MakeApp; 2] {
    let (alpha, beta) = (alpha.clone(), beta.clone());
    let first = move || {
        let alpha = alpha.anew();
        App::new("alpha").actor(move || alpha.clone())
    };
    let second = move || {
        let beta = beta.clone();
        App::new("beta").actor(move || beta.clone())
    };
    [Box::new(first), Box::new(second)]
}

/// Waits until what was confirmed was handled or is a dead letter.
async fn balanced(seed: u64, bus: &Bus, ledger: &Ledger, names: &[&str]) -> Balance {
    let start = tokio::time::Instant::now();
    let mut buried = BTreeSet::new();
    loop {
        // A dead-letter queue may stand still too; then all of it is seen at another look.
        for letter in DeadLetters::new(bus).list(&DeadFilter::all()).await.unwrap_or_default() {
            let number: u32 = serde_json::from_slice(&letter.envelope.payload).unwrap();
            if buried.insert(number) {
                names.iter().for_each(|name| ledger.buries(&format!("{name} {number}")));
            }
        }
        let balance = ledger.balance();
        assert_eq!(balance.unexpected, 0, "seed {seed}: {balance}");
        if balance.lost == 0 {
            return balance;
        }
        assert!(start.elapsed() < PATIENCE, "seed {seed}: {balance}; run it again with POSTRIDER_SEED={seed}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Commands whose handler publishes events, under the faults of a seed.
async fn cascade(seed: u64, faults: Faults) -> (Balance, FaultReport, Vec<u32>) {
    let ledger = Ledger::default();
    let alpha = Alpha { ledger: ledger.clone(), ..Alpha::default() };
    let beta = Beta { ledger: ledger.clone(), ..Beta::default() };
    let test = FaultTest::start(faults, apps(&alpha, &beta)).await;
    let (balance, report) = test
        .run(async |bus| {
            for number in 1..=COMMANDS {
                ["alpha", "beta"].iter().for_each(|service| ledger.attempts(&format!("{service} {number}")));
                let sent = bus.send_key_with("alpha.do", Payload::json(&number), |o| o.id(format!("m{number}"))).await;
                sent.unwrap_or_else(|error| panic!("seed {seed}: the client has no faults: {error}"));
                ["alpha", "beta"].iter().for_each(|service| ledger.confirms(&format!("{service} {number}")));
            }
            balanced(seed, bus, &ledger, &["alpha", "beta"]).await
        })
        .await;
    let overlapped = alpha.overlapped();
    assert!(overlapped.is_empty(), "seed {seed}: two runs of one message at once in a process: {overlapped:?}");
    (balance, report, alpha.seen.all())
}

#[test]
fn whatever_a_seed_does_nothing_that_was_confirmed_is_lost() {
    let mut kinds = BTreeSet::new();
    let (mut total, mut crashes) = (0, 0);
    for seed in seeds(40) {
        let (balance, report, _) = run(cascade(seed, Faults::seeded(seed)));
        println!("seed {seed}: {balance}; {} faults, {} crashes", report.faults.len(), report.crashes);
        kinds.extend(report.faults.iter().map(|fault| fault.kind));
        (total, crashes) = (total + report.faults.len(), crashes + report.crashes);
    }
    if std::env::var("POSTRIDER_SEED").is_err() {
        assert_eq!(kinds.len(), Faults::seeded(0).kinds.len(), "every kind happened: {kinds:?}");
        assert!(total > 1_000 && crashes > 50, "the faults did not bite: {total} faults, {crashes} crashes");
    }
}

#[test]
fn a_seed_that_was_run_does_the_same_again() {
    let once = || {
        let (balance, report, seen) = run(cascade(11, Faults::seeded(11)));
        (balance, report.faults, report.crashes, seen)
    };
    let (first, second) = (once(), once());
    assert!(first.1.len() > 20, "{first:?}");
    assert_eq!(first, second);
}

#[test]
fn each_kind_of_fault_alone_loses_nothing() {
    for kind in Faults::seeded(0).kinds {
        let mut faults = Faults::seeded(3);
        (faults.kinds, faults.rate, faults.most) = (vec![kind], 0.3, 100);
        let (balance, report, _) = run(cascade(3, faults));
        println!(
            "{kind:?}: {balance}; {} faults, {} crashes, {} stops",
            report.faults.len(),
            report.crashes,
            report.stops
        );
        let crashes = matches!(kind, FaultKind::CrashBefore | FaultKind::CrashAfter);
        assert!(report.faults.iter().all(|fault: &Fault| fault.kind == kind) && report.faults.len() > 20, "{kind:?}");
        assert_eq!((report.crashes > 0, report.stops > 0), (crashes, kind == FaultKind::Stop), "{kind:?}");
    }
}

#[test]
fn an_ordered_actor_keeps_the_order_whatever_a_seed_does() {
    for seed in seeds(20) {
        let ledger = Ledger::default();
        let beta = Beta { ledger: ledger.clone(), ..Beta::default() };
        let [_, app] = apps(&Alpha::default(), &beta);
        run(async {
            let mut faults = Faults::seeded(seed);
            // With more faults than that a message is delivered ten times before it begins, and is given up as suspect.
            faults.rate = 0.01;
            let test = FaultTest::start(faults, [app]).await;
            test.run(async |bus| {
                for number in 1..=COMMANDS {
                    ledger.attempts(&format!("ordered {number}"));
                    bus.send_key("beta.do", Payload::json(&number)).await.unwrap();
                    ledger.confirms(&format!("ordered {number}"));
                }
                balanced(seed, bus, &ledger, &["ordered"]).await
            })
            .await
        });
        let mut known = BTreeSet::new();
        let first: Vec<u32> = beta.seen.all().into_iter().filter(|number| known.insert(*number)).collect();
        assert_eq!(first, (1..=COMMANDS).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[test]
fn requests_end_whatever_a_seed_does() {
    for seed in seeds(20) {
        let (answered, failed) = run(async {
            let [app, _] = apps(&Alpha::default(), &Beta::default());
            let mut faults = Faults::seeded(seed);
            faults.rate = 0.1;
            let test = FaultTest::start(faults, [app]).await;
            let (counts, _) = test
                .run(async |bus| {
                    let (mut answered, mut failed) = (0, 0);
                    for number in 0..COMMANDS {
                        match bus.request_key::<u32>("alpha.ask", Payload::json(&number)).await {
                            Ok(answer) => {
                                assert_eq!(answer, number + 1, "seed {seed}: somebody else's answer");
                                answered += 1;
                            }
                            Err(_) => failed += 1,
                        }
                    }
                    (answered, failed)
                })
                .await;
            counts
        });
        assert!(answered > failed, "seed {seed}: {answered} answered, {failed} failed");
    }
}
