//! The inbox forgets what is older than its retention, in portions.

use postrider::Payload;
use postrider_tests::bank::{Book, bank};
use postrider_tests::database::{Database, Kind};
use postrider_tests::world::{World, eventually_async, run};

fn forgets(kind: Kind) {
    run(async move {
        let (world, database) = (World::in_process(), Database::new(kind).await);
        let first = world.start(database.of(bank())).await;
        let client = world.client().await;
        client.bus().send_key("bank.book", Payload::json(&Book { amount: 1 })).await.unwrap();
        eventually_async("it is handled", || async { database.count("inbox").await == 1 }).await;
        first.stop().await;
        let (id, then) = match kind {
            Kind::Sqlite => ("randomblob(17)", "unixepoch() - 864000"),
            Kind::Postgres | Kind::Pooled => ("decode(md5(i::text), 'hex')", "clock_timestamp() - interval '10 d'"),
        };
        let numbers = match kind {
            Kind::Sqlite => "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)",
            Kind::Postgres | Kind::Pooled => "WITH n AS (SELECT generate_series(1, 2500) AS i)",
        };
        let old = format!(
            "{numbers} INSERT INTO postrider_inbox (actor, id, content, handled_at) SELECT 1, {id}, i, {then} FROM n"
        );
        if kind == Kind::Sqlite {
            // Its rows are numbered in the order of their handling: the old ones come first.
            database.run("UPDATE postrider_inbox SET number = 1000000").await;
            database
                .run(&old.replace(
                    "(actor, id, content, handled_at) SELECT 1",
                    "(number, actor, id, content, handled_at) SELECT i, 1",
                ))
                .await;
        } else {
            database.run(&old).await;
        }
        assert_eq!(database.count("inbox").await, 2_501);
        // With two processes one of them does it.
        let apps = (world.start(database.of(bank())).await, world.start(database.of(bank())).await);
        eventually_async("the old ones are forgotten", || async { database.count("inbox").await == 1 }).await;
        drop(apps);
    });
}

#[test]
fn what_is_older_than_the_retention_is_forgotten_on_sqlite() {
    forgets(Kind::Sqlite);
}

#[test]
fn what_is_older_than_the_retention_is_forgotten_on_postgres() {
    forgets(Kind::Postgres);
}
