//! A store behind a pooler in transaction mode, which has fewer connections than handlers run at once.

use std::collections::BTreeSet;

use postrider::sqlx::{self, Connection, PgConnection};
use postrider::{App, Context, Failure, Payload, Postgres, Secret, Tx, distributed};
use postrider_tests::bank::{Book, bank};
use postrider_tests::database::{Database, Kind};
use postrider_tests::world::{World, eventually_async, run};

struct Cashiers;

#[distributed(service = "cashiers", guarantee = "effectively_once", concurrency = 16, prefetch = 64)]
impl Cashiers {
    #[distributed(command = "cashiers.book")]
    async fn book(&self, book: Book, cx: &Context, tx: &mut Tx<Postgres>) -> Result<(), Failure> {
        let insert = "INSERT INTO bookings (message, amount) VALUES ($1, $2)";
        let insert = sqlx::query(insert).bind(cx.id().as_str()).bind(book.amount);
        insert.execute(tx.conn()).await.map_err(Failure::transient)?;
        // Other handlers have their turn, on the same connections.
        tokio::task::yield_now().await;
        let look = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM bookings WHERE message = $1");
        let found = look.bind(cx.id().as_str()).fetch_one(tx.conn()).await.map_err(Failure::transient)?;
        if found == 1 { Ok(()) } else { Err(Failure::permanent(format!("booked {found} times"))) }
    }
}

/// Somebody else uses the same pooler, and leaves statements on its connections under the names that every client gives.
async fn leave_statements(pooler: &str) {
    for number in 0..20 {
        let Ok(mut other) = PgConnection::connect(&format!("{pooler}?statement-cache-capacity=100")).await else {
            return;
        };
        let text = sqlx::AssertSqlSafe(format!("SELECT {number} + $1::bigint"));
        let _ = sqlx::query(text).bind(1_i64).execute(&mut other).await;
        let _ = other.close().await;
    }
}

#[test]
fn more_handlers_at_once_than_a_pooler_has_connections_each_have_their_effect_once() {
    const MESSAGES: i64 = 300;
    run(async {
        let (world, database) = (World::in_process(), Database::new(Kind::Pooled).await);
        let running = world.start(database.of(App::new("cashiers").actor(|| Cashiers))).await;
        let pooler = database.pooler().unwrap();
        let sends = async {
            for amount in 1..=MESSAGES {
                for _ in 0..2 {
                    let id = format!("m{amount}");
                    let book = Payload::json(&Book { amount });
                    running.bus().send_key_with("cashiers.book", book, |o| o.id(id)).await.unwrap();
                }
            }
        };
        tokio::join!(sends, leave_statements(&pooler));
        eventually_async("all are handled", || async { running.stats().handled >= 2 * MESSAGES as u64 }).await;
        let amounts = database.amounts().await;
        assert_eq!(amounts.len(), MESSAGES as usize, "each once");
        assert_eq!(amounts.into_iter().collect::<BTreeSet<_>>(), (1..=MESSAGES).collect());
        let stats = running.stats();
        assert_eq!((stats.dead_lettered, stats.failed_permanent, stats.failed_transient), (0, 0, 0), "{stats:?}");
    });
}

#[test]
fn a_pooler_of_another_database_or_of_none_is_refused() {
    run(async {
        let (world, database) = (World::in_process(), Database::new(Kind::Pooled).await);
        let other = Database::new(Kind::Pooled).await.pooler();
        let file = Database::new(Kind::Sqlite).await;
        let pooler = other.clone().unwrap();
        for (store, expected) in [
            (Some(database.address()), "leads to another database than postgres://"),
            (Some(file.address()), "a SQLite file has no pooler"),
            (None, "there is no store behind it"),
        ] {
            let pooler = Secret::new(&pooler);
            let app = bank().configure(move |config| {
                config.store = store.map(Secret::new);
                config.store_pooler = Some(pooler);
            });
            let Err(error) = world.try_start(app).await else { panic!("it started: {expected}") };
            assert!(error.to_string().contains(expected), "{error}");
        }
    });
}
