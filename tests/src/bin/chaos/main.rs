//! All faults at random under load, and the books at the end: `cargo xtask chaos --minutes 1 --seed 7`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program that reports to its standard output and stops at the first surprise"
)]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

mod broker_faults;
mod cancelled;
mod company;
mod consumer;
mod queue_faults;
mod restarts;
mod runs;
mod services;
mod world;

use postrider::Payload;
use postrider::operate::{DeadFilter, DeadLetters};
use postrider_tests::strangers::STRANGER;

use crate::world::{LOOK, RECOVERY, World};

/// How many tasks publish at once.
const PUBLISHERS: usize = 32;
/// A run with fewer confirmed messages proves little and fails.
const LEAST_CONFIRMED: usize = 10_000;
/// The most dead letters that are shown.
const MOST_SHOWN: usize = 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| arguments.iter().position(|word| word == name).and_then(|at| arguments.get(at + 1));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let tells_runs = arguments.iter().any(|word| word == "--tell-runs");
    for (option, is_keeper) in [("--consume", false), ("--keep", true)] {
        if let Some(url) = after(option) {
            runtime.block_on(services::consume(url, is_keeper, tells_runs));
            return ExitCode::SUCCESS;
        }
    }
    let minutes = after("--minutes").and_then(|text| text.parse::<f64>().ok()).unwrap_or(1.0);
    let seed = after("--seed").and_then(|text| text.parse().ok()).unwrap_or(7);
    let time = Duration::from_secs_f64(minutes * 60.0);
    let ended = match after("--store") {
        Some(store) => runtime.block_on(company::run(time, seed, store)),
        None => runtime.block_on(chaos(time, seed)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    BrokerKilled,
    BrokerFrozen,
    ConnectionsClosed,
    NetworkSwallows,
    NetworkCut,
    MemoryAlarm,
    ConsumerKilled,
    ConsumerStopped,
    ExchangeDeleted,
    VirtualHostFull,
    StrangersMessages,
    OtherFrames,
    QueueSuspended,
    LateConfirms,
    ConsumerChannelClosed,
    PublisherChannelClosed,
    QueueFull,
    CallsCancelled,
    OrderlyRestarts,
}

const FAULTS: [Fault; 19] = [
    Fault::BrokerKilled,
    Fault::BrokerFrozen,
    Fault::ConnectionsClosed,
    Fault::NetworkSwallows,
    Fault::NetworkCut,
    Fault::MemoryAlarm,
    Fault::ConsumerKilled,
    Fault::ConsumerStopped,
    Fault::ExchangeDeleted,
    Fault::VirtualHostFull,
    Fault::StrangersMessages,
    Fault::OtherFrames,
    Fault::QueueSuspended,
    Fault::LateConfirms,
    Fault::ConsumerChannelClosed,
    Fault::PublisherChannelClosed,
    Fault::QueueFull,
    Fault::CallsCancelled,
    Fault::OrderlyRestarts,
];

fn publish(world: &World, stop: &Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<()>> {
    let numbers = Arc::<AtomicU64>::default();
    let one = |_| {
        let (bus, ledger) = (world.running.bus().clone(), world.books.ledger.clone());
        let (stop, numbers) = (Arc::clone(stop), Arc::clone(&numbers));
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let number = numbers.fetch_add(1, Ordering::SeqCst);
                let id = format!("m{number}");
                ledger.attempts(&id);
                let sent = bus.send_key_with("worker.do", Payload::msgpack(&number), |o| o.id(id.as_str())).await;
                match sent {
                    Ok(_) => ledger.confirms(&id),
                    // A stopped app refuses at once, so yield before the next attempt.
                    Err(_) => tokio::time::sleep(LOOK).await,
                }
            }
        })
    };
    (0..PUBLISHERS).map(one).collect()
}

async fn chaos(time: Duration, seed: u64) -> Result<(), String> {
    println!("seed {seed}, {time:?}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut world = World::start().await?;
    let begin = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let publishers = publish(&world, &stop);
    world.until("the consumers work", |world| world.handled() > 0).await?;
    // A queue that is younger than this does not come back from a kill (seen with RabbitMQ 3.10).
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut order = Vec::new();
    let mut rounds = 0;
    // Each fault happens at least once, however short the time is.
    while begin.elapsed() < time || rounds < 2 {
        if order.is_empty() {
            rounds += 1;
            if begin.elapsed() >= time && rounds > 1 {
                break;
            }
            order = FAULTS.to_vec();
            rng.shuffle(&mut order);
        }
        let Some(fault) = order.pop() else { break };
        world.faults += 1;
        let proof = world.make(fault, &mut rng).await.map_err(|error| format!("{fault:?} without effect: {error}"))?;
        println!("{:6.1} s  {fault:?}: {proof}", begin.elapsed().as_secs_f64());
        world.works().await.map_err(|error| format!("after {fault:?}: {error}"))?;
    }
    stop.store(true, Ordering::SeqCst);
    for publisher in publishers {
        publisher.await.map_err(|error| error.to_string())?;
    }
    world.work_off_the_rest().await?;
    balance(&world).await
}

/// Every confirmed message is handled or a dead letter in the end, and no forbidden run happened.
async fn balance(world: &World) -> Result<(), String> {
    let (ledger, waited) = (&world.books.ledger, Instant::now());
    let mut letters = Vec::new();
    while waited.elapsed() < 2 * RECOVERY {
        let list = DeadLetters::new(world.running.bus()).list(&DeadFilter::all()).await;
        letters = list.map_err(|error| error.to_string())?;
        let unwritten = ledger.balance();
        letters
            .iter()
            .filter(|letter| !letter.id().starts_with(STRANGER))
            .for_each(|letter| ledger.buries(letter.id()));
        if unwritten.lost == 0 || ledger.balance().lost == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for letter in letters.iter().filter(|letter| !letter.id().starts_with(STRANGER)).take(MOST_SHOWN) {
        println!("dead letter {}: {} {}", letter.id(), letter.reason(), letter.error());
    }
    let balance = ledger.balance();
    println!("{balance}");
    let findings = world.books.runs.findings(&letters);
    if balance.lost > 0 || balance.unexpected > 0 {
        return Err("something was lost, or came from nowhere".into());
    }
    if !findings.is_empty() {
        return Err(findings.join("\n"));
    }
    if balance.confirmed < LEAST_CONFIRMED {
        return Err(format!("fewer than {LEAST_CONFIRMED} messages were confirmed: the run proves little"));
    }
    Ok(())
}
