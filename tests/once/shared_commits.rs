//! Messages that wait for a `&mut self` handler anyway are committed together, and each keeps every promise.

use std::sync::Arc;
use std::time::Duration;

use postrider::message::Key;
use postrider::sqlx;
use postrider::{
    AnyTx, App, Context, Envelope, Failure, Kind, MediaType, Payload, Postgres, RequestError, Running, Sqlite,
    distributed,
};
use postrider_tests::bank;
use postrider_tests::database::{Database, Kind as In};
use postrider_tests::world::{Seen, World, eventually_async, run_within};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

/// What a handler does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Does {
    Books,
    /// Books and takes longer than others may wait for it.
    BooksSlowly,
    Rejects,
    /// Fails at its first attempt, after it has booked.
    FailsOnce,
    PanicsOnce,
    FailsForGood,
    /// Swallows an error of the database that ends the transaction.
    Swallows,
    /// Ends its transaction itself.
    RollsBack,
    /// Asks another service, before it books.
    Asks,
}

const ALL: [Does; 9] = [
    Does::Books,
    Does::BooksSlowly,
    Does::Rejects,
    Does::FailsOnce,
    Does::PanicsOnce,
    Does::FailsForGood,
    Does::Swallows,
    Does::RollsBack,
    Does::Asks,
];

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Play {
    does: Does,
    amount: i64,
}

#[derive(Clone)]
struct Player {
    gate: Arc<Semaphore>,
    attempts: Arc<Seen<(i64, u32)>>,
}

#[distributed(service = "bank", guarantee = "effectively_once", retry = "2", prefetch = 100, timeout = "5s")]
impl Player {
    /// Holds up all that comes behind it.
    #[distributed(command = "bank.wait")]
    async fn wait(&mut self, _: ()) {
        self.gate.acquire().await.expect("it is never closed").forget();
    }

    #[distributed(command = "bank.play")]
    async fn play(&mut self, play: Play, cx: &Context, tx: &mut AnyTx) -> Result<i64, Failure> {
        let failed = |error: sqlx::Error| Failure::transient(error.to_string());
        let first = cx.attempt() == 1;
        if play.does == Does::Asks {
            let asked = cx.request_key::<()>("helper.help", Payload::json(&())).await;
            asked.map_err(|error| Failure::permanent(error.to_string()))?;
        }
        bank::book(tx, cx.id().as_str(), play.amount).await.map_err(failed)?;
        cx.publish_key("bank.booked", Payload::json(&play.amount))?;
        self.attempts.add((play.amount, cx.attempt()));
        match play.does {
            Does::Rejects => return Err(Failure::rejected("no", "it is refused")),
            Does::FailsOnce if first => return Err(Failure::transient("the first attempt fails")),
            Does::PanicsOnce if first => panic!("the first attempt panics"),
            Does::FailsForGood => return Err(Failure::permanent("it fails for good")),
            Does::BooksSlowly => tokio::time::sleep(Duration::from_millis(25)).await,
            Does::Swallows => {
                run(tx, "INSERT OR ROLLBACK INTO bookings (message, amount) VALUES (NULL, 1)", "SELECT 1 / 0").await
            }
            Does::RollsBack => run(tx, "ROLLBACK", "ROLLBACK").await,
            _ => {}
        }
        sum(tx).await.map_err(failed)
    }
}

/// Runs a statement and swallows its error.
async fn run(tx: &mut AnyTx, on_sqlite: &'static str, on_postgres: &'static str) {
    if let Some(conn) = tx.conn_of::<Sqlite>() {
        let _ = sqlx::raw_sql(on_sqlite).execute(conn).await;
    } else if let Some(conn) = tx.conn_of::<Postgres>() {
        let _ = sqlx::raw_sql(on_postgres).execute(conn).await;
    }
}

/// What is booked so far, or nothing if the transaction is over.
async fn sum(tx: &mut AnyTx) -> Result<i64, sqlx::Error> {
    let sum = "SELECT CAST(coalesce(sum(amount), 0) AS bigint) FROM bookings";
    if let Some(conn) = tx.conn_of::<Sqlite>() {
        return sqlx::query_scalar(sum).fetch_one(conn).await;
    }
    match tx.conn_of::<Postgres>() {
        Some(conn) => sqlx::query_scalar(sum).fetch_one(conn).await.or(Ok(-1)),
        None => Ok(-1),
    }
}

struct Helper;

#[distributed(service = "helper")]
impl Helper {
    #[distributed(command = "helper.help")]
    async fn help(&self, _: ()) {}
}

struct Ear(Arc<Seen<i64>>);

#[distributed(service = "ear", guarantee = "effectively_once")]
impl Ear {
    #[distributed(event = "bank.booked")]
    async fn booked(&mut self, amount: i64) {
        self.0.add(amount);
    }
}

/// What a run of some plays left behind.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    booked: Vec<i64>,
    heard: Vec<i64>,
    answers: Vec<String>,
    noted: i64,
    duplicates: u64,
    attempts: Vec<(i64, u32)>,
}

/// The first `again` plays come once before, so that they are known when all come.
async fn play(kind: In, shared: usize, plays: &[Play], again: usize) -> (Left, u64) {
    let (books, ears) = (Database::new(kind).await, Database::new(In::Sqlite).await);
    let world = World::in_process();
    let heard = Arc::new(Seen::default());
    let ear = Arc::clone(&heard);
    let _helper = world.start(App::new("helper").actor(|| Helper)).await;
    let _ear = world.start(ears.of(App::new("ear").actor(move || Ear(Arc::clone(&ear))))).await;
    let player = Player { gate: Arc::new(Semaphore::new(0)), attempts: Arc::default() };
    let actor = player.clone();
    let app = books.of(App::new("bank").actor(move || actor.clone()));
    let bank = world.start(app.configure(move |config| config.store_settings.shared_commit = shared)).await;
    let client = world.client().await;
    // The handler is known to be quick.
    ask(&client, "warm", Play { does: Does::Books, amount: 0 }).await;
    for (number, play) in plays[..again].iter().enumerate() {
        ask(&client, leak(format!("id-{number}")), *play).await;
    }
    client.bus().send_key("bank.wait", Payload::json(&())).await.unwrap();
    let asks = plays.iter().enumerate().map(|(number, play)| ask(&client, leak(format!("id-{number}")), *play));
    let answers = futures::future::join_all(asks);
    let waiting = async {
        // All of them wait behind the gate.
        let queue = world.names.queue("bank", None);
        let delivered = || async { world.ready(&queue).await == Some(0) };
        eventually_async("all are delivered", delivered).await;
        player.gate.add_permits(1);
    };
    let (answers, ()) = tokio::join!(answers, waiting);
    let booked = books.amounts().await;
    heard.reach(booked.len()).await;
    eventually_async("the outbox is empty", || async { books.count("outbox").await == 0 }).await;
    let mut attempts = player.attempts.all();
    attempts.sort_unstable();
    // A handler may run once more than attempts are counted, because its message was to share a commit.
    attempts.dedup();
    let (noted, duplicates, commits) = (books.count("inbox").await, bank.stats().duplicates, bank.stats().commits);
    let left = Left { booked, heard: heard.all(), answers, noted, duplicates, attempts };
    bank.stop().await;
    (left, commits)
}

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

async fn ask(client: &Running, id: &'static str, play: Play) -> String {
    let options = |o: postrider::Options| o.id(id).timeout(Duration::from_secs(60));
    let asked = client.bus().request_key_with::<i64>("bank.play", Payload::json(&play), options).await;
    match asked {
        Ok(sum) => sum.to_string(),
        Err(RequestError::Remote(remote)) => remote.problem.code,
        Err(other) => panic!("{other}"),
    }
}

fn plays(seed: u64, length: usize, mostly: u8) -> Vec<Play> {
    let mut random = fastrand::Rng::with_seed(seed);
    (1..=length)
        .map(|amount| {
            let does = if random.u8(..100) < mostly { Does::Books } else { ALL[random.usize(..ALL.len())] };
            Play { does, amount: amount as i64 }
        })
        .collect()
}

async fn compare(kind: In, seeds: std::ops::Range<u64>) {
    let mut shared = 0;
    for seed in seeds {
        let plays = plays(seed, 60, [60, 90, 97][(seed % 3) as usize]);
        let (together, commits) = play(kind, 32, &plays, 8).await;
        let (alone, each) = play(kind, 1, &plays, 8).await;
        assert_eq!(together, alone, "seed {seed}: {plays:?}");
        assert!(commits <= each, "seed {seed}");
        shared += u64::from(commits < each);
    }
    assert!(shared > 0, "no run shared a commit");
}

#[test]
fn shared_commits_do_what_one_commit_each_does_on_sqlite() {
    run_within(Duration::from_secs(150), compare(In::Sqlite, 0..9));
}

#[test]
fn shared_commits_do_what_one_commit_each_does_on_postgres() {
    run_within(Duration::from_secs(150), compare(In::Postgres, 100..106));
}

#[test]
fn messages_that_wait_share_a_commit_and_each_is_answered_and_told_of() {
    for kind in [In::Sqlite, In::Postgres] {
        run_within(Duration::from_secs(60), async {
            let plays = plays(1, 64, 100);
            let (left, commits) = play(kind, 32, &plays, 0).await;
            assert_eq!(left.booked, (0..=64).collect::<Vec<_>>());
            let sums = (1..=64).map(|last: i64| (last * (last + 1) / 2).to_string());
            assert_eq!(left.answers, sums.collect::<Vec<_>>());
            assert_eq!(left.noted, 66, "one row each, and those of the first and of the one that held them up");
            assert!(commits <= 12, "66 messages took {commits} commits on {kind:?}");
        });
    }
}

#[test]
fn repetitions_that_wait_behind_each_other_have_one_effect() {
    for kind in [In::Sqlite, In::Postgres] {
        run_within(Duration::from_secs(60), async {
            let database = Database::new(kind).await;
            let world = World::in_process();
            let bank = world.start(database.of(bank::bank())).await;
            let client = world.client().await;
            let payload = |amount| serde_json::to_vec(&bank::Book { amount }).unwrap();
            for number in 0..200 {
                let amount = number % 40 + 1;
                let (key, id) = (Key::new("bank.book").unwrap(), format!("id-{amount}"));
                let message =
                    Envelope::with_id(Kind::Command, key, id.as_str().into(), MediaType::JSON, payload(amount).into());
                client.bus().dispatch(message).await.unwrap();
            }
            let ended = || async { bank.stats().duplicates >= 160 && bank.stats().handled == 200 };
            eventually_async("all are handled", ended).await;
            assert_eq!(database.amounts().await, (1..=40).collect::<Vec<_>>());
        });
    }
}
