//! Transactions outside of handlers: web handlers and batch jobs.

use std::sync::Arc;

use postrider::sqlx;
use postrider::{App, Context, Payload, Postgres, Running, Sqlite, StoreError, distributed};
use postrider_tests::database::{Database, Kind};
use postrider_tests::world::{Seen, World, eventually_async, run};

struct Listener(Arc<Seen<i64>>);

#[distributed(service = "listener")]
impl Listener {
    #[distributed(command = "listener.hear")]
    async fn hear(&self, amount: i64, _: &Context) {
        self.0.add(amount);
    }
}

fn listener(heard: &Arc<Seen<i64>>) -> App {
    let heard = Arc::clone(heard);
    App::new("listener").actor(move || Listener(Arc::clone(&heard)))
}

const INSERT: &str = "INSERT INTO bookings (message, amount) VALUES ('web', $1)";

/// What a web handler does: it writes, sends and commits, or gives up.
async fn book(app: &Running, kind: Kind, amount: i64, keeps: bool) {
    macro_rules! book {
        ($database:ty) => {{
            let mut tx = app.bus().transaction::<$database>().await.unwrap();
            sqlx::query(INSERT).bind(amount).execute(tx.conn()).await.unwrap();
            tx.send_key("listener.hear", Payload::json(&amount)).unwrap();
            if keeps { tx.commit().await.unwrap() } else { drop(tx) }
        }};
    }
    match kind {
        Kind::Sqlite => book!(Sqlite),
        Kind::Postgres | Kind::Pooled => book!(Postgres),
    }
}

fn what_is_committed_is_sent(world: World, kind: Kind) {
    run(async move {
        let (database, heard) = (Database::new(kind).await, Arc::new(Seen::default()));
        let _listener = world.start(listener(&heard)).await;
        let web = world.start(database.of(App::new("web").actor(|| Web))).await;
        for amount in 0..20 {
            book(&web, kind, amount, amount % 2 == 0).await;
        }
        let even: Vec<i64> = (0..20).step_by(2).collect();
        assert_eq!(heard.reach(10).await, even);
        assert_eq!(database.amounts().await, even);
        eventually_async("the outbox is empty", || async { database.count("outbox").await == 0 }).await;
        assert_eq!(heard.count(), 10);
    });
}

struct Web;

#[distributed(service = "web")]
impl Web {
    #[distributed(query = "web.nothing")]
    async fn nothing(&self, _: ()) {}
}

#[test]
fn what_is_committed_is_sent_and_nothing_else_on_sqlite() {
    what_is_committed_is_sent(World::rabbitmq(), Kind::Sqlite);
}

#[test]
fn what_is_committed_is_sent_and_nothing_else_on_postgres() {
    what_is_committed_is_sent(World::rabbitmq(), Kind::Postgres);
}

#[test]
fn what_is_committed_is_sent_and_nothing_else_behind_a_pooler() {
    what_is_committed_is_sent(World::in_process(), Kind::Pooled);
}

#[test]
fn a_transaction_that_is_dropped_while_it_begins_holds_up_nobody() {
    run(async {
        let world = World::in_process();
        let database = Database::new(Kind::Sqlite).await;
        let web = world.start(database.of(App::new("web").actor(|| Web))).await;
        for _ in 0..200 {
            // Dropped after a few steps, at another one each time.
            let mut begin = Box::pin(web.bus().transaction::<Sqlite>());
            for _ in 0..fastrand::u8(1..4) {
                let _ = futures::poll!(&mut begin);
                tokio::task::yield_now().await;
            }
        }
        let mut tx = web.bus().transaction::<Sqlite>().await.unwrap();
        sqlx::query(INSERT).bind(1_i64).execute(tx.conn()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(database.amounts().await, [1]);
    });
}

#[test]
fn a_service_without_a_store_or_with_another_one_has_no_such_transaction() {
    run(async {
        let world = World::in_process();
        let web = world.start(App::new("web").actor(|| Web)).await;
        let Err(StoreError::Address { reason, .. }) = web.bus().transaction::<Sqlite>().await else {
            panic!("there is one")
        };
        assert!(reason.contains("POSTRIDER_STORE") && reason.contains("service.web.store"), "{reason}");
        let database = Database::new(Kind::Sqlite).await;
        let web = world.start(database.of(App::new("web").actor(|| Web))).await;
        let Err(StoreError::Address { reason, .. }) = web.bus().transaction::<Postgres>().await else {
            panic!("there is one")
        };
        assert!(reason.contains("sqlite") && reason.contains("postgres"), "{reason}");
    });
}

#[test]
fn an_app_stops_although_a_transaction_is_open() {
    run(async {
        let world = World::in_process();
        let database = Database::new(Kind::Sqlite).await;
        let web = world.start(database.of(App::new("web").actor(|| Web))).await;
        let mut open = web.bus().transaction::<Sqlite>().await.unwrap();
        sqlx::query(INSERT).bind(1_i64).execute(open.conn()).await.unwrap();
        web.stop().await;
        drop(open);
        assert_eq!(database.amounts().await, [0_i64; 0]);
    });
}
