//! Processes that are killed between any two steps: each effect happens once, and each message of it is handled once.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use postrider::message::Key;
use postrider::store::fault_points::{FAULT_VARIABLE, FaultPoint};
use postrider::{Envelope, Kind, MediaType, Running};
use postrider_tests::bank::{Book, audit};
use postrider_tests::database::{Database, Kind as In};
use postrider_tests::program::program;
use postrider_tests::world::{World, amqp_url, eventually_async, run_within};

/// How many bookings each test asks for; every third one is asked for twice.
const BOOKINGS: i64 = 240;
/// How long a life may go on without dying or finishing.
const PATIENCE: Duration = Duration::from_secs(60);

/// The bank as a process.
struct Life(Child);

impl Life {
    fn start(world: &World, file: &Database, fault: Option<String>) -> Self {
        let mut command = program("bank");
        command.env("POSTRIDER_BROKER", amqp_url()).env("POSTRIDER_NAMESPACE", world.names.namespace());
        command.env("POSTRIDER_STORE", file.address()).env("POSTRIDER_PUBLISH_INTERVAL", "50ms");
        if let Some(fault) = fault {
            command.env(FAULT_VARIABLE, fault);
        }
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn is_dead(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn ask_for_all(client: &Running) {
    for amount in 1..=BOOKINGS {
        let payload = serde_json::to_vec(&Book { amount }).unwrap();
        for _ in 0..(if amount % 3 == 0 { 2 } else { 1 }) {
            let key = Key::new("bank.book").unwrap();
            let id = format!("booking-{amount}").into();
            let message = Envelope::with_id(Kind::Command, key, id, MediaType::JSON, payload.clone().into());
            client.bus().dispatch(message).await.unwrap();
        }
    }
}

/// What must hold in the end: in the bank's database, and at whoever hears of the bookings.
async fn is_balanced(world: &World, books: &Database, audits: &Database) {
    let expected: Vec<i64> = (1..=BOOKINGS).collect();
    eventually_async("all are booked and heard of", || async {
        books.amounts().await.len() >= expected.len() && audits.amounts().await.len() >= expected.len()
    })
    .await;
    eventually_async("the outbox is empty", || async { books.count("outbox").await == 0 }).await;
    eventually_async("the queues are empty", || async {
        let (bank, audit) = (world.names.queue("bank", None), world.names.queue("audit", None));
        world.ready(&bank).await == Some(0) && world.ready(&audit).await == Some(0)
    })
    .await;
    let sorted = |mut amounts: Vec<i64>| {
        amounts.sort_unstable();
        amounts
    };
    assert_eq!(sorted(books.amounts().await), expected, "booked: missing or twice");
    assert_eq!(sorted(audits.amounts().await), expected, "heard of: missing or twice");
    assert_eq!(books.count("inbox").await, BOOKINGS);
}

fn dies_at(point: FaultPoint, kind: In) {
    run_within(Duration::from_secs(180), async move {
        let world = World::rabbitmq();
        let (books, audits) = (Database::new(kind).await, Database::new(kind).await);
        let _audit = world.start(audits.of(audit())).await;
        // A first life declares the queues.
        let first = Life::start(&world, &books, None);
        let queue = world.names.queue("bank", None);
        eventually_async("the bank consumes", || async {
            world.broker().await.inspect(&queue).await.unwrap().is_some_and(|state| state.consumers > 0)
        })
        .await;
        drop(first);
        ask_for_all(&world.client().await).await;
        let mut deaths = 0;
        for passes in [0, 7, 30, 3] {
            let mut life = Life::start(&world, &books, Some(format!("{}:{passes}", point.name())));
            let since = Instant::now();
            while !life.is_dead() && books.amounts().await.len() < BOOKINGS as usize {
                assert!(since.elapsed() < PATIENCE, "it neither dies at {point:?} nor finishes");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            deaths += u32::from(life.is_dead());
        }
        assert!(deaths > 0, "no process died at {point:?}");
        let _last = Life::start(&world, &books, None);
        is_balanced(&world, &books, &audits).await;
    });
}

#[test]
fn a_process_may_die_at_every_fault_point_on_sqlite() {
    FaultPoint::ALL.iter().for_each(|point| dies_at(*point, In::Sqlite));
}

#[test]
fn a_process_may_die_at_every_fault_point_on_postgres() {
    FaultPoint::ALL.iter().for_each(|point| dies_at(*point, In::Postgres));
}
