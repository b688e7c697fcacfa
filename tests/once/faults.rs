//! Databases that fail and processes that freeze or crowd: no effect is lost or doubled, and no attempt is charged.

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use postrider::message::Key;
use postrider::sqlx;
use postrider::{
    AnyTx, App, Context, Envelope, Failure, Kind, MediaType, Payload, Postgres, Running, Secret, distributed,
};
use postrider_tests::bank::{Book, audit, bank, book};
use postrider_tests::database::{Database, Kind as In};
use postrider_tests::postgres::Postgres as Server;
use postrider_tests::program::program;
use postrider_tests::proxy::{Network, Proxy};
use postrider_tests::world::{Seen, World, amqp_url, eventually_async, run, run_within};
use tokio::sync::Semaphore;

struct Process(Child);

impl Process {
    fn bank(world: &World, database: &Database) -> Self {
        let mut command = program("bank");
        command.env("POSTRIDER_BROKER", amqp_url()).env("POSTRIDER_NAMESPACE", world.names.namespace());
        command.env("POSTRIDER_STORE", database.address()).env("POSTRIDER_PUBLISH_INTERVAL", "100ms");
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, signal: &str) {
        let id = self.0.id().to_string();
        assert!(std::process::Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn consumers(world: &World, count: u64) {
    let queue = world.names.queue("bank", None);
    eventually_async("the banks consume", || async {
        world.broker().await.inspect(&queue).await.unwrap().is_some_and(|state| state.consumers >= count)
    })
    .await;
}

async fn ask(client: &Running, key: &str, id: String, amount: i64) {
    let payload = serde_json::to_vec(&Book { amount }).unwrap();
    let message = Envelope::with_id(Kind::Command, Key::new(key).unwrap(), id.into(), MediaType::JSON, payload.into());
    client.bus().dispatch(message).await.unwrap();
}

fn sorted(mut amounts: Vec<i64>) -> Vec<i64> {
    amounts.sort_unstable();
    amounts
}

#[test]
fn five_processes_share_one_sqlite_file_and_no_attempt_is_charged() {
    run_within(Duration::from_secs(150), async {
        let (world, database) = (World::rabbitmq(), Database::new(In::Sqlite).await);
        // All at once: one of them makes the tables.
        let _banks: Vec<Process> = (0..5).map(|_| Process::bank(&world, &database)).collect();
        consumers(&world, 5).await;
        let client = world.client().await;
        for number in 0..200 {
            ask(&client, "bank.slow", format!("id-{number}"), number).await;
        }
        eventually_async("all are booked", || async { database.count("bookings").await >= 200 }).await;
        assert_eq!(database.amounts().await, [1; 200], "each at its first attempt, and once");
        assert_eq!(world.ready(&world.names.dead_queue(&world.names.queue("bank", None))).await, Some(0));
    });
}

fn one_id_at_several_processes(kind: In) {
    run_within(Duration::from_secs(100), async move {
        let (world, database) = (World::rabbitmq(), Database::new(kind).await);
        let _banks: Vec<Process> = (0..3).map(|_| Process::bank(&world, &database)).collect();
        consumers(&world, 3).await;
        let client = world.client().await;
        for _ in 0..9 {
            ask(&client, "bank.slow", "one".into(), 1).await;
        }
        let queue = world.names.queue("bank", None);
        eventually_async("all are handled", || async {
            let state = world.broker().await.inspect(&queue).await.unwrap().unwrap();
            state.ready == 0 && database.count("inbox").await == 1
        })
        .await;
        ask(&client, "bank.slow", "last".into(), 2).await;
        eventually_async("the last one is booked", || async { database.count("inbox").await == 2 }).await;
        assert_eq!(database.amounts().await, [1, 1], "each id once, at its first attempt");
    });
}

#[test]
fn one_id_is_handled_once_although_it_runs_at_several_processes_at_once_on_sqlite() {
    one_id_at_several_processes(In::Sqlite);
}

#[test]
fn one_id_is_handled_once_although_it_runs_at_several_processes_at_once_on_postgres() {
    one_id_at_several_processes(In::Postgres);
}

#[test]
fn a_server_that_dies_under_load_loses_and_doubles_nothing_and_charges_no_attempt() {
    run_within(Duration::from_secs(150), async {
        let mut server = tokio::task::spawn_blocking(Server::start).await.unwrap().unwrap();
        let world = World::rabbitmq();
        let (books, audits) =
            (Database::on(&server.address("postgres")).await, Database::on(&server.address("postgres")).await);
        let _audit = world.start(audits.of(audit())).await;
        let _bank = world.start(books.of(bank())).await;
        let client = world.client().await;
        for number in 1..=600 {
            ask(&client, "bank.book", format!("id-{number}"), number).await;
        }
        for stops in [100, 300] {
            eventually_async("some are booked", || async { _bank.stats().handled >= stops }).await;
            server.kill();
            eventually_async("it is seen that the store is away", || async { !_bank.health().ready }).await;
            assert!(
                _bank.health().stores[0].contains("store postgres://postgres@127.0.0.1"),
                "{:?}",
                _bank.health().stores
            );
            server.run().unwrap();
        }
        eventually_async("all are heard of", || async { audits.count("bookings").await >= 600 }).await;
        assert_eq!(sorted(books.amounts().await), (1..=600).collect::<Vec<_>>());
        assert_eq!(sorted(audits.amounts().await), (1..=600).collect::<Vec<_>>());
        assert_eq!(_bank.stats().dead_lettered + _audit.stats().dead_lettered, 0);
        assert_eq!(_bank.stats().retried, 0, "no attempt is charged");
        eventually_async("it is ready again", || async { _bank.health().ready }).await;
    });
}

#[test]
fn a_process_that_was_frozen_past_its_lease_sends_nothing_that_is_handled_twice() {
    run_within(Duration::from_secs(150), async {
        let world = World::rabbitmq();
        let (books, audits) = (Database::new(In::Postgres).await, Database::new(In::Postgres).await);
        let audit = world.start(audits.of(audit())).await;
        let frozen = Process::bank(&world, &books);
        consumers(&world, 1).await;
        let client = world.client().await;
        for number in 1..=400 {
            ask(&client, "bank.book", format!("id-{number}"), number).await;
        }
        eventually_async("it works and sends", || async { audit.stats().handled > 20 }).await;
        frozen.signal("-STOP");
        let _other = Process::bank(&world, &books);
        let client = world.client().await;
        for number in 401..=500 {
            ask(&client, "bank.book", format!("id-{number}"), number).await;
        }
        // What it holds unacknowledged comes to the other one when its connection is given up.
        eventually_async("the other one took the lease", || async {
            let held = books.numbers("SELECT count(*) FROM bookings").await[0];
            held >= 100 && audits.count("bookings").await >= held
        })
        .await;
        frozen.signal("-CONT");
        eventually_async("all are heard of", || async { audits.count("bookings").await >= 500 }).await;
        assert_eq!(sorted(books.amounts().await), (1..=500).collect::<Vec<_>>());
        assert_eq!(sorted(audits.amounts().await), (1..=500).collect::<Vec<_>>());
    });
}

/// Two handlers that lock the same rows in opposite orders.
struct Crossing {
    attempts: Arc<Seen<u32>>,
}

#[distributed(service = "bank", guarantee = "effectively_once", concurrency = 2)]
impl Crossing {
    #[distributed(command = "bank.book")]
    async fn cross(&self, booking: Book, cx: &Context, tx: &mut AnyTx) -> Result<(), Failure> {
        self.attempts.add(cx.attempt());
        let rows = if booking.amount % 2 == 0 { [1, 2] } else { [2, 1] };
        for row in rows {
            let Some(conn) = tx.conn_of::<Postgres>() else { continue };
            let update = sqlx::query("UPDATE bookings SET amount = amount + 1 WHERE id = $1").bind(row);
            update.execute(conn).await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

#[test]
fn handlers_in_a_deadlock_are_all_done_in_the_end() {
    run_within(Duration::from_secs(100), async {
        let (world, database) = (World::rabbitmq(), Database::new(In::Postgres).await);
        database.run("INSERT INTO bookings (message, amount) VALUES ('one', 0), ('two', 0)").await;
        let attempts = Arc::new(Seen::default());
        let made = Arc::clone(&attempts);
        let bank = App::new("bank").actor(move || Crossing { attempts: Arc::clone(&made) });
        let _bank = world.start(database.of(bank)).await;
        let client = world.client().await;
        for number in 0..10 {
            ask(&client, "bank.book", format!("id-{number}"), number).await;
        }
        eventually_async("all are done", || async { _bank.stats().handled + _bank.stats().dead_lettered >= 10 }).await;
        assert_eq!(sorted(database.amounts().await), [10, 10], "each has had its effect once");
        assert!(attempts.all().iter().all(|attempt| *attempt == 1), "no attempt is charged: {:?}", attempts.all());
        assert!(attempts.count() > 10, "there was no deadlock");
    });
}

struct Checked;

#[distributed(service = "bank", guarantee = "effectively_once", retry = "none")]
impl Checked {
    #[distributed(command = "bank.book")]
    async fn book(&mut self, booking: Book, cx: &Context, tx: &mut AnyTx) -> Result<(), Failure> {
        let booked = book(tx, cx.id().as_str(), booking.amount).await;
        booked.map_err(|error| Failure::transient(error.to_string()))?;
        cx.send_key("bank.heard", Payload::json(&booking.amount))?;
        Ok(())
    }
}

#[test]
fn a_constraint_that_fails_at_the_commit_is_the_handlers_failure() {
    run(async {
        let (world, database) = (World::rabbitmq(), Database::new(In::Postgres).await);
        database
            .run(
                "CREATE TABLE allowed (amount bigint PRIMARY KEY); INSERT INTO allowed VALUES (1);
                ALTER TABLE bookings ADD FOREIGN KEY (amount) REFERENCES allowed DEFERRABLE INITIALLY DEFERRED",
            )
            .await;
        let _bank = world.start(database.of(App::new("bank").actor(|| Checked))).await;
        let client = world.client().await;
        ask(&client, "bank.book", "wrong".into(), 7).await;
        ask(&client, "bank.book", "right".into(), 1).await;
        let letter = world.dead_letters("bank", 1).await.remove(0);
        let error = letter.headers.text("postrider-dead-error").unwrap_or_default().to_owned();
        assert!(error.contains("the commit failed") && error.contains("foreign key"), "{error}");
        eventually_async("the other one is booked", || async { database.amounts().await == [1] }).await;
        assert_eq!((database.count("inbox").await, database.count("outbox").await), (1, 1));
    });
}

/// Waits at a gate between its two statements, or in front of its only message.
#[derive(Clone)]
struct Halting {
    gate: Arc<Semaphore>,
    runs: Arc<Seen<u32>>,
}

#[distributed(service = "bank", guarantee = "effectively_once", retry = "none", timeout = "8s")]
impl Halting {
    #[distributed(command = "bank.book")]
    async fn book(&mut self, asked: Book, cx: &Context, tx: &mut AnyTx) -> Result<(), Failure> {
        let failed = |error: sqlx::Error| Failure::transient(error.to_string());
        book(tx, cx.id().as_str(), asked.amount).await.map_err(failed)?;
        self.runs.add(cx.attempt());
        self.gate.acquire().await.expect("it is never closed").forget();
        book(tx, cx.id().as_str(), asked.amount).await?;
        Ok(())
    }

    /// Nothing is left to do after the gate.
    #[distributed(command = "bank.halt")]
    async fn halt(&mut self, asked: Book, cx: &Context, tx: &mut AnyTx) -> Result<(), Failure> {
        book(tx, cx.id().as_str(), asked.amount).await.map_err(|error| Failure::transient(error.to_string()))?;
        cx.publish_key("bank.booked", Payload::json(&1))?;
        self.runs.add(cx.attempt());
        self.gate.acquire().await.expect("it is never closed").forget();
        Ok(())
    }

    #[distributed(command = "bank.call")]
    async fn call(&mut self, _: Book, cx: &Context) -> Result<(), Failure> {
        self.runs.add(cx.attempt());
        cx.publish_key("bank.booked", Payload::json(&1))?;
        self.gate.acquire().await.expect("it is never closed").forget();
        Ok(())
    }
}

async fn halting(world: &World, books: &Database) -> (Halting, Running) {
    let halting = Halting { gate: Arc::new(Semaphore::new(0)), runs: Arc::default() };
    let made = halting.clone();
    let running = world.start(books.of(App::new("bank").actor(move || made.clone()))).await;
    (halting, running)
}

#[test]
fn a_server_that_ends_in_the_middle_of_a_handler_charges_no_attempt() {
    run_within(Duration::from_secs(150), async {
        let mut server = tokio::task::spawn_blocking(Server::start).await.unwrap().unwrap();
        let world = World::in_process();
        let books = Database::on(&server.address("postgres")).await;
        let (halting, bank) = halting(&world, &books).await;
        ask(&world.client().await, "bank.book", "one".into(), 5).await;
        halting.runs.reach(1).await;
        server.kill();
        server.run().unwrap();
        halting.gate.add_permits(100);
        eventually_async("it is booked", || async { books.amounts().await == [5, 5] }).await;
        assert_eq!(bank.stats().dead_lettered, 0);
        assert!(halting.runs.all().iter().all(|attempt| *attempt == 1), "{:?}", halting.runs.all());
    });
}

#[test]
fn a_server_that_freezes_in_the_middle_of_a_handler_charges_no_attempt() {
    run_within(Duration::from_secs(150), async {
        let server = tokio::task::spawn_blocking(Server::start).await.unwrap().unwrap();
        let world = World::in_process();
        let books = Database::on(&server.address("postgres")).await;
        let (halting, bank) = halting(&world, &books).await;
        ask(&world.client().await, "bank.book", "one".into(), 5).await;
        halting.runs.reach(1).await;
        server.freeze(true);
        halting.gate.add_permits(100);
        eventually_async("its time-out is over", || async { !bank.health().ready }).await;
        server.freeze(false);
        eventually_async("it is booked", || async { books.amounts().await == [5, 5] }).await;
        assert_eq!(bank.stats().dead_lettered, 0);
        assert!(halting.runs.all().iter().all(|attempt| *attempt == 1), "{:?}", halting.runs.all());
    });
}

#[test]
fn a_handler_without_a_transaction_does_not_run_again_while_the_store_is_away() {
    run_within(Duration::from_secs(150), async {
        let mut server = tokio::task::spawn_blocking(Server::start).await.unwrap().unwrap();
        let world = World::in_process();
        let books = Database::on(&server.address("postgres")).await;
        let (halting, bank) = halting(&world, &books).await;
        ask(&world.client().await, "bank.call", "one".into(), 5).await;
        halting.runs.reach(1).await;
        server.kill();
        halting.gate.add_permits(100);
        eventually_async("the store is missed", || async { !bank.health().ready }).await;
        let begin = std::time::Instant::now();
        while begin.elapsed() < Duration::from_secs(2) {
            assert_eq!(halting.runs.count(), 1, "it runs again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server.run().unwrap();
        eventually_async("it is noted", || async { bank.stats().handled == 1 }).await;
        assert_eq!(halting.runs.all(), [1]);
        eventually_async("and what it sent has left", || async { books.count("outbox").await == 0 }).await;
        assert_eq!((bank.stats().relayed, books.count("inbox").await), (1, 1));
    });
}

#[test]
fn a_server_that_answers_nothing_is_seen_and_what_waits_is_handled_once_it_does() {
    run_within(Duration::from_secs(200), async {
        let server = tokio::task::spawn_blocking(Server::start).await.unwrap().unwrap();
        let world = World::in_process();
        let books = Database::on(&server.address("postgres")).await;
        let bank = world.start(books.of(bank())).await;
        let client = world.client().await;
        ask(&client, "bank.book", "before".into(), 1).await;
        eventually_async("it works", || async { bank.stats().handled == 1 }).await;
        server.freeze(true);
        ask(&client, "bank.book", "one".into(), 5).await;
        let begin = std::time::Instant::now();
        while bank.health().ready {
            assert!(begin.elapsed() < Duration::from_secs(60), "nobody sees that the store does not answer");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(bank.health().stores[0].contains("no answer within"), "{:?}", bank.health().stores);
        server.freeze(false);
        // What was begun while the server was frozen may still hold the row.
        eventually_async("it is booked", || async { books.amounts().await == [1, 5] }).await;
        eventually_async("all has left", || async { books.count("outbox").await == 0 }).await;
        assert_eq!(bank.stats().dead_lettered + bank.stats().retried, 0);
        eventually_async("it is ready again", || async { bank.health().ready }).await;
    });
}

/// The server commits, and its answer is lost with the connection.
#[test]
fn a_commit_whose_answer_is_cut_off_is_found_in_the_inbox_and_nothing_runs_again() {
    run_within(Duration::from_secs(150), async {
        let world = World::in_process();
        let books = Database::new(In::Postgres).await;
        let (rest, database) = books.address().rsplit_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let (user, port) = rest.rsplit_once(':').unwrap();
        let proxy = Proxy::start(port.parse().unwrap()).await;
        let through = Secret::new(format!("{user}:{}/{database}", proxy.port()));
        let halting = Halting { gate: Arc::new(Semaphore::new(0)), runs: Arc::default() };
        let made = halting.clone();
        let app = App::new("bank").actor(move || made.clone());
        let bank = world.start(books.of(app).configure(|config| config.store = Some(through))).await;
        let client = world.client().await;
        let done = async |count: u64| {
            eventually_async("it is done", || async { bank.stats().handled == count }).await;
            eventually_async("what it sent has left", || async { books.count("outbox").await == 0 }).await;
            eventually_async("the store works", || async { bank.health().ready }).await;
        };
        let (mut asked, mut runs) = (0, 0);
        // With a transaction, and without one.
        for key in ["bank.halt", "bank.call"] {
            // The first one opens the connection.
            for cuts in [false, true] {
                (asked, runs) = (asked + 1, runs + 1);
                ask(&client, key, format!("m{asked}"), 5).await;
                halting.runs.reach(runs).await;
                proxy.set(if cuts { Network::Late(Duration::from_secs(120)) } else { Network::Fine });
                halting.gate.add_permits(1);
                if cuts {
                    let noted = i64::try_from(asked).unwrap();
                    eventually_async("the server has committed", || async { books.count("inbox").await == noted })
                        .await;
                    assert_eq!(bank.stats().handled, asked - 1, "{key}: nobody knows of it");
                    proxy.set(Network::Cut);
                    proxy.set(Network::Fine);
                }
                done(asked).await;
                assert_eq!(halting.runs.count(), runs, "{key} has run again");
            }
        }
        assert_eq!((books.amounts().await, bank.stats().relayed), (vec![5, 5], 4));
        assert_eq!(bank.stats().dead_lettered + bank.stats().retried, 0);
    });
}
