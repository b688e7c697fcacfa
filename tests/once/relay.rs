//! The outbox and its relay: rows of every kind leave in their order, and what cannot leave holds up its own address alone.

use std::sync::Arc;
use std::time::Duration;

use postrider::message::Key;
use postrider::sqlx::{self, Connection, PgConnection};
use postrider::store::OutboxRow;
use postrider::{App, Context, Envelope, Kind, MediaType, Payload, Postgres, Running, Secret, Sqlite, distributed};
use postrider_tests::database::{Database, Kind as In};
use postrider_tests::node::Node;
use postrider_tests::world::{Seen, World, eventually_async, run, run_within};

struct Listener(Arc<Seen<i64>>);

#[distributed(service = "listener")]
impl Listener {
    #[distributed(command = "listener.hear")]
    async fn hear(&mut self, number: i64, _: &Context) {
        self.0.add(number);
    }
}

fn listener(heard: &Arc<Seen<i64>>) -> App {
    let heard = Arc::clone(heard);
    App::new("listener").actor(move || Listener(Arc::clone(&heard)))
}

struct Web;

#[distributed(service = "web")]
impl Web {
    #[distributed(query = "web.nothing")]
    async fn nothing(&self, _: ()) {}
}

fn web(database: &Database) -> App {
    database.of(App::new("web").actor(|| Web)).configure(|config| {
        config.store_settings.publish_interval = Duration::from_millis(200);
    })
}

/// Sends numbers in one transaction.
async fn send(web: &Running, kind: In, key: &str, numbers: std::ops::Range<i64>) {
    macro_rules! send {
        ($database:ty) => {{
            let tx = web.bus().transaction::<$database>().await.unwrap();
            for number in numbers {
                tx.send_key(key, Payload::json(&number)).unwrap();
            }
            tx.commit().await.unwrap();
        }};
    }
    match kind {
        In::Sqlite => send!(Sqlite),
        In::Postgres | In::Pooled => send!(Postgres),
    }
}

macro_rules! on_both_databases {
    ($($name:ident),* $(,)?) => {
        mod sqlite { $(#[test] fn $name() { super::run_within(super::Duration::from_secs(120), super::$name(super::In::Sqlite)); })* }
        mod postgres { $(#[test] fn $name() { super::run_within(super::Duration::from_secs(120), super::$name(super::In::Postgres)); })* }
    };
}

on_both_databases! {
    rows_wait_for_a_broker_that_is_away_and_leave_in_order,
    an_unreadable_row_is_put_aside_and_the_rest_leaves,
    a_row_that_nobody_takes_holds_up_its_address_alone,
    thousands_of_rows_of_one_transaction_leave_in_order,
    two_relays_send_each_row_once,
}

async fn rows_wait_for_a_broker_that_is_away_and_leave_in_order(kind: In) {
    let mut node = tokio::task::spawn_blocking(Node::start).await.unwrap().unwrap();
    let world = World::on(node.url());
    let (database, heard) = (Database::new(kind).await, Arc::new(Seen::default()));
    let _listener = world.start(listener(&heard)).await;
    let web = world.start(web(&database)).await;
    send(&web, kind, "listener.hear", 0..10).await;
    heard.reach(10).await;
    node.kill().unwrap();
    for batch in 1..=20 {
        send(&web, kind, "listener.hear", batch * 100..batch * 100 + 100).await;
    }
    assert_eq!(database.count("outbox").await, 2_000, "nothing is given up while the broker is away");
    node.restart().unwrap();
    eventually_async("all have left", || async { database.count("outbox").await == 0 }).await;
    let expected: Vec<i64> = (0..10).chain(100..2_100).collect();
    let mut heard = heard.reach(expected.len()).await;
    // Those whose confirm was lost with the connection may come twice; the first of each are in order.
    let mut seen = std::collections::HashSet::new();
    heard.retain(|number| seen.insert(*number));
    assert_eq!(heard, expected);
}

async fn an_unreadable_row_is_put_aside_and_the_rest_leaves(kind: In) {
    let world = World::rabbitmq();
    let (database, heard) = (Database::new(kind).await, Arc::new(Seen::default()));
    let _listener = world.start(listener(&heard)).await;
    let web = world.start(web(&database)).await;
    let namespace = world.names.namespace();
    let (bytes, now) = match kind {
        In::Sqlite => ("X'c1c2'", "unixepoch('subsec')"),
        In::Postgres | In::Pooled => ("'\\xc1c2'::bytea", "clock_timestamp()"),
    };
    for (address, version) in [("command listener.other", 1), ("command listener.newer", 99)] {
        let insert = format!(
            "INSERT INTO postrider_outbox (namespace, address, version, envelope, written_at) VALUES ('{namespace}', '{address}', {version}, {bytes}, {now})"
        );
        database.run(&insert).await;
    }
    send(&web, kind, "listener.hear", 0..50).await;
    assert_eq!(heard.reach(50).await, (0..50).collect::<Vec<_>>());
    eventually_async("both are put aside", || async { database.count("parked").await == 2 }).await;
    assert_eq!(database.count("outbox").await, 2, "with their bytes");
    assert_eq!(web.stats().parked, 2);
    // Later ones of the same address wait behind it.
    send(&web, kind, "listener.other", 0..3).await;
    send(&web, kind, "listener.hear", 50..60).await;
    assert_eq!(heard.reach(60).await, (0..60).collect::<Vec<_>>());
    eventually_async("the rest is gone", || async { database.count("outbox").await == 5 }).await;
}

async fn a_row_that_nobody_takes_holds_up_its_address_alone(kind: In) {
    let world = World::rabbitmq();
    let (database, heard) = (Database::new(kind).await, Arc::new(Seen::default()));
    let web = world.start(web(&database)).await;
    send(&web, kind, "nobody.hears", 0..3).await;
    send(&web, kind, "listener.hear", 0..3).await;
    eventually_async("it was tried", || async { web.stats().relayed == 0 && database.count("outbox").await == 6 })
        .await;
    // Its owner starts only now.
    let _listener = world.start(listener(&heard)).await;
    assert_eq!(heard.reach(3).await, [0, 1, 2]);
    send(&web, kind, "listener.hear", 3..6).await;
    assert_eq!(heard.reach(6).await, [0, 1, 2, 3, 4, 5]);
    eventually_async("those that nobody hears stay", || async { database.count("outbox").await == 3 }).await;
    assert_eq!(database.count("parked").await, 0, "the owner may still start");
}

async fn thousands_of_rows_of_one_transaction_leave_in_order(kind: In) {
    let world = World::rabbitmq();
    let (database, heard) = (Database::new(kind).await, Arc::new(Seen::default()));
    let _listener = world.start(listener(&heard)).await;
    let web = world.start(web(&database)).await;
    send(&web, kind, "listener.hear", 0..5_000).await;
    assert_eq!(heard.reach(5_000).await, (0..5_000).collect::<Vec<_>>());
    eventually_async("the outbox is empty", || async { database.count("outbox").await == 0 }).await;
    assert_eq!((heard.count(), web.stats().relayed), (5_000, 5_000));
}

async fn two_relays_send_each_row_once(kind: In) {
    let world = World::rabbitmq();
    let (database, heard) = (Database::new(kind).await, Arc::new(Seen::default()));
    let _listener = world.start(listener(&heard)).await;
    let (one, two) = (world.start(web(&database)).await, world.start(web(&database)).await);
    for batch in 0..40 {
        let web = if batch % 2 == 0 { &one } else { &two };
        send(web, kind, "listener.hear", batch * 10..batch * 10 + 10).await;
    }
    assert_eq!(heard.reach(400).await, (0..400).collect::<Vec<_>>());
    eventually_async("the outbox is empty", || async { database.count("outbox").await == 0 }).await;
    assert_eq!(heard.count(), 400);
    // The holder stops: the other one goes on at once.
    one.stop().await;
    send(&two, kind, "listener.hear", 400..410).await;
    heard.reach(410).await;
}

#[test]
fn a_row_that_is_committed_late_is_sent_although_later_ones_are_gone() {
    run(async {
        let world = World::rabbitmq();
        let (database, heard) = (Database::new(In::Postgres).await, Arc::new(Seen::default()));
        let _listener = world.start(listener(&heard)).await;
        let web = world.start(web(&database)).await;
        let payload = serde_json::to_vec(&-1).unwrap();
        let key = Key::new("listener.hear").unwrap();
        let row = OutboxRow::of(&Envelope::new(Kind::Command, key, MediaType::JSON, payload.into()));
        let mut late = PgConnection::connect(&database.address()).await.unwrap();
        let mut late = late.begin().await.unwrap();
        let insert = "INSERT INTO postrider_outbox (namespace, address, version, envelope) VALUES ($1, $2, $3, $4)";
        let insert = sqlx::query(insert).bind(world.names.namespace()).bind(row.address).bind(row.version);
        insert.bind(row.envelope).execute(&mut *late).await.unwrap();
        // So many that the relay's lower bound would move over it.
        for batch in 0..5 {
            send(&web, In::Postgres, "listener.hear", batch * 1_000..batch * 1_000 + 1_000).await;
        }
        assert_eq!(heard.reach(5_000).await, (0..5_000).collect::<Vec<_>>());
        late.commit().await.unwrap();
        assert_eq!(heard.reach(5_001).await.last(), Some(&-1));
    });
}

#[test]
fn a_transaction_that_somebody_holds_open_delays_nobody() {
    run(async {
        let world = World::rabbitmq();
        let (database, heard) = (Database::new(In::Postgres).await, Arc::new(Seen::default()));
        let elsewhere = Database::new(In::Postgres).await;
        let _listener = world.start(listener(&heard)).await;
        let web = world.start(web(&database)).await;
        for address in [database.address(), elsewhere.address()] {
            let mut open = PgConnection::connect(&address).await.unwrap();
            let begin =
                "BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO bookings (message, amount) VALUES ('open', 1)";
            sqlx::raw_sql(begin).execute(&mut open).await.unwrap();
            std::mem::forget(open);
        }
        for batch in 0..3 {
            send(&web, In::Postgres, "listener.hear", batch * 1_000..batch * 1_000 + 1_000).await;
        }
        assert_eq!(heard.reach(3_000).await, (0..3_000).collect::<Vec<_>>());
        eventually_async("the outbox is empty", || async { database.count("outbox").await == 0 }).await;
    });
}

#[test]
fn rows_leave_after_every_connection_to_the_database_was_killed() {
    run(async {
        let world = World::rabbitmq();
        let (database, heard) = (Database::new(In::Postgres).await, Arc::new(Seen::default()));
        let _listener = world.start(listener(&heard)).await;
        let (one, two) = (world.start(web(&database)).await, world.start(web(&database)).await);
        send(&one, In::Postgres, "listener.hear", 0..5).await;
        heard.reach(5).await;
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        database.run(kill).await;
        for number in 5..10 {
            // The first transaction after it may find its connection gone.
            let tx = loop {
                if let Ok(tx) = two.bus().transaction::<Postgres>().await {
                    break tx;
                }
            };
            tx.send_key("listener.hear", Payload::json(&number)).unwrap();
            tx.commit().await.unwrap();
        }
        assert_eq!(heard.reach(10).await, (0..10).collect::<Vec<_>>());
    });
}

struct Two;

#[distributed(service = "two")]
impl Two {
    #[distributed(query = "two.nothing")]
    async fn nothing(&self, _: ()) {}
}

#[test]
fn two_spellings_of_one_database_send_each_row_once() {
    run(async {
        let world = World::in_process();
        let database = Database::new(In::Sqlite).await;
        let heard = Arc::new(Seen::default());
        let _listener = world.start(listener(&heard)).await;
        let file = database.folder().display().to_string();
        let both = App::new("both").actor(|| Web).actor(|| Two).configure(move |config| {
            config.stores.insert("web".into(), Secret::new(format!("sqlite:{file}/store.db")));
            config.stores.insert("two".into(), Secret::new(format!("sqlite:{file}/./store.db")));
            config.store_settings.publish_interval = Duration::from_millis(20);
        });
        let both = world.start(both).await;
        let writer = world.start(web(&database)).await;
        for number in 0..20_i64 {
            send(&writer, In::Sqlite, "listener.hear", number * 100..(number + 1) * 100).await;
        }
        eventually_async("the outbox is empty", || async { database.count("outbox").await == 0 }).await;
        assert_eq!(heard.reach(2_000).await, (0..2_000).collect::<Vec<_>>());
        assert_eq!(both.stats().relayed + writer.stats().relayed, 2_000);
    });
}

struct Silent(Arc<Seen<i64>>);

#[distributed(service = "silent")]
impl Silent {
    #[distributed(command = "silent.note")]
    async fn note(&self, number: i64) {
        self.0.add(number);
    }
}

#[test]
fn a_queue_that_confirms_nothing_holds_up_only_its_own_rows_and_nothing_is_sent_twice() {
    let node = Node::start().unwrap_or_else(|error| panic!("this test needs a RabbitMQ of its own: {error}"));
    run_within(Duration::from_secs(200), async {
        let world = World::on(node.url());
        let database = Database::new(In::Sqlite).await;
        let (heard, noted) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
        let _listener = world.start(listener(&heard)).await;
        let made = Arc::clone(&noted);
        let silent = move || {
            let made = Arc::clone(&made);
            App::new("silent").actor(move || Silent(Arc::clone(&made)))
        };
        world.start(silent()).await.stop().await;
        // Each would send what the other one has sent and not removed in time.
        let (one, two) = (world.start(web(&database)).await, world.start(web(&database)).await);
        let queue = world.names.queue("silent", None);
        // Both have confirmed many, so that many may be unconfirmed.
        for key in ["silent.note", "listener.hear"] {
            send(&one, In::Sqlite, key, -300..0).await;
        }
        eventually_async("the channels are introduced", || async { database.count("outbox").await == 0 }).await;
        let set = |what: &str| {
            node.ctl(&["eval", &format!(r#"sys:{what}(whereis(list_to_atom("%2F_{queue}")))."#)]).unwrap();
        };
        set("suspend");
        send(&one, In::Sqlite, "silent.note", 0..1_500).await;
        send(&one, In::Sqlite, "listener.hear", 0..1_000).await;
        let heard = || async { heard.count() >= 1_300 };
        within(Duration::from_secs(60), "the others are heard", heard).await;
        assert!(database.count("outbox").await >= 1_500, "the silent ones wait");
        let relayed = one.stats().relayed + two.stats().relayed;
        assert_eq!(relayed, 600 + 1_000, "each of the others is sent once");
        set("resume");
        let running = world.start(silent()).await;
        within(Duration::from_secs(60), "the silent ones are sent", || async { database.count("outbox").await == 0 })
            .await;
        within(Duration::from_secs(30), "and handled", || async { noted.all().contains(&1_499) }).await;
        running.stop().await;
    });
}

async fn within<F: Future<Output = bool>>(limit: Duration, what: &str, mut holds: impl FnMut() -> F) {
    let begin = std::time::Instant::now();
    while !holds().await {
        assert!(begin.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
