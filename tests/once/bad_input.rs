//! Stores that cannot be used: each error names the store, says what to do, and shows no password.

use std::process::Command;
use std::time::Duration;

use postrider::{App, Context, Failure, MessageId, Payload, Secret, Sqlite, Tx, distributed};
use postrider_tests::bank::{Book, bank};
use postrider_tests::database::{Database, Kind, postgres_address};
use postrider_tests::program::{err, finish, out, program};
use postrider_tests::world::{World, eventually_async, run};

const SECRET: &str = "s3cret-Pa55word";

/// What the start says with this store.
async fn refused(app: App, address: &str) -> String {
    let address = address.to_owned();
    let app = app.configure(move |config| {
        config.store = Some(Secret::new(address));
        config.start_timeout = Duration::from_secs(2);
    });
    match World::in_process().try_start(app).await {
        Ok(_) => panic!("it starts"),
        Err(error) => error.to_string(),
    }
}

fn says(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "it does not say {word:?}: {error}");
    }
    assert!(!error.contains(SECRET), "it shows the password: {error}");
}

#[test]
fn addresses_that_name_no_store_are_refused_with_what_to_write() {
    run(async {
        let error = refused(bank(), &format!("mysql://root:{SECRET}@host/db")).await;
        says(&error, &["mysql", "sqlite:path/to/file.db", "postgres://user:password@host/database"]);
        says(&refused(bank(), "sqlite::memory:").await, &["must outlive its process", "sqlite:orders.db"]);
        says(&refused(bank(), "postgres://[").await, &["postgres://user:password@host"]);
    });
}

#[test]
fn files_that_cannot_be_used_are_named_with_what_to_do() {
    run(async {
        let file = Database::empty(Kind::Sqlite).await;
        let foreign = file.folder().join("foreign.db");
        std::fs::write(&foreign, "this is no database, and longer than a header of one hundred bytes is".repeat(10))
            .unwrap();
        says(
            &refused(bank(), &format!("sqlite:{}", foreign.display())).await,
            &["foreign.db", "no SQLite database", "another file"],
        );
        let nowhere = file.folder().join("nowhere/store.db");
        says(
            &refused(bank(), &format!("sqlite:{}", nowhere.display())).await,
            &["nowhere/store.db", "folder must exist"],
        );
        let altered = Database::empty(Kind::Sqlite).await;
        altered.run("CREATE TABLE postrider_inbox (something INTEGER)").await;
        says(&refused(bank(), &altered.address()).await, &["store.db", "changed by hand"]);
    });
}

async fn of_a_newer_release(kind: Kind) {
    let database = Database::new(kind).await;
    let world = World::in_process();
    world.start(database.of(bank())).await.stop().await;
    database.run("INSERT INTO postrider_schema (version) VALUES (99)").await;
    says(&refused(bank(), &database.address()).await, &["version 99", "up to 2", "newer release"]);
}

#[test]
fn tables_of_a_newer_release_are_left_alone() {
    run(async {
        of_a_newer_release(Kind::Sqlite).await;
        of_a_newer_release(Kind::Postgres).await;
    });
}

#[test]
fn servers_that_cannot_be_used_are_named_without_their_password() {
    run(async {
        let error = refused(bank(), &format!("postgres://anybody:{SECRET}@127.0.0.1:1/orders")).await;
        says(&error, &["postgres://anybody@127.0.0.1:1/orders", "is the server up"]);
        let (server, _) =
            postgres_address().rsplit_once('/').map(|(server, db)| (server.to_owned(), db.to_owned())).unwrap();
        says(&refused(bank(), &format!("{server}/missing")).await, &["missing", "create the database"]);
        let database = Database::empty(Kind::Postgres).await;
        let role = format!("r{}", postrider::MessageId::new().as_str().replace('-', ""));
        database
            .run(&format!("CREATE ROLE {role} LOGIN PASSWORD '{SECRET}'; REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
            .await;
        let address = database.address().replacen("postgres@", &format!("{role}:{SECRET}@"), 1);
        says(&refused(bank(), &address).await, &[&role, "right to create tables"]);
    });
}

struct OnSqlite;

#[distributed(service = "bank")]
impl OnSqlite {
    #[distributed(command = "bank.book")]
    async fn book(&mut self, _: (), _: &Context, _: &mut Tx<Sqlite>) -> Result<(), Failure> {
        Ok(())
    }
}

#[test]
fn a_handler_for_another_database_and_a_promise_without_a_store_are_refused_at_the_start() {
    run(async {
        let error = refused(App::new("bank").actor(|| OnSqlite), &postgres_address()).await;
        says(&error, &["book", "sqlite", "postgres", "service \"bank\""]);
        let Err(error) = World::in_process().try_start(App::new("bank").actor(|| OnSqlite)).await else {
            panic!("it starts")
        };
        says(&error.to_string(), &["book", "takes a transaction", "POSTRIDER_STORE=sqlite:bank.db", "[service.bank]"]);
        let Err(error) = World::in_process().try_start(bank()).await else { panic!("it starts") };
        says(&error.to_string(), &["Bank", "effectively_once", "POSTRIDER_STORE=sqlite:bank.db"]);
    });
}

#[test]
fn a_file_that_somebody_else_locks_is_waited_for_and_no_attempt_is_charged() {
    run(async {
        let (world, database) = (World::rabbitmq(), Database::new(Kind::Sqlite).await);
        let app =
            database.of(bank()).configure(|config| config.store_settings.lock_timeout = Duration::from_millis(300));
        let bank = world.start(app).await;
        let mut lock = Command::new("python3");
        let script = format!(
            "import sqlite3, sys\nc = sqlite3.connect({:?}, isolation_level=None)\nc.execute('BEGIN EXCLUSIVE')\nprint('locked', flush=True)\nsys.stdin.read()",
            database.folder().join("store.db")
        );
        let mut lock = lock
            .args(["-c", &script])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut locked = [0; 6];
        std::io::Read::read_exact(lock.stdout.as_mut().unwrap(), &mut locked).unwrap();
        world
            .client()
            .await
            .bus()
            .send_key("bank.book", Payload::json(&serde_json::json!({ "amount": 5 })))
            .await
            .unwrap();
        eventually_async("it says why it waits", || async {
            bank.health().stores.iter().any(|problem| problem.contains("another process holds the file's lock"))
        })
        .await;
        drop(lock.stdin.take());
        lock.wait().unwrap();
        eventually_async("it is booked", || async { database.amounts().await == [5] }).await;
        assert_eq!((bank.stats().retried, bank.stats().dead_lettered), (0, 0));
        eventually_async("it is ready again", || async { bank.health().ready }).await;
    });
}

fn store(arguments: &[&str], address: &str) -> (bool, String, String) {
    let output =
        finish(program("postrider").args(["store"]).args(arguments).args(["--store", address]).spawn().unwrap());
    (output.status.success(), out(&output), err(&output))
}

/// What `docs/stores.md` says that a user needs.
const GRANTS: &str = "GRANT SELECT, INSERT, UPDATE, DELETE ON postrider_schema, postrider_actors, postrider_inbox, postrider_outbox, postrider_sent, postrider_leases TO";
const GRANT_NUMBERS: &str = "GRANT SELECT ON SEQUENCE postrider_outbox_number_seq TO";

#[test]
fn a_user_who_may_not_create_tables_uses_those_that_an_administrator_has_made() {
    run(async {
        let text = std::fs::read_to_string("../docs/stores.md").unwrap();
        assert!([GRANTS, GRANT_NUMBERS].iter().all(|grant| text.contains(grant)), "docs/stores.md says other rights");
        let (world, database) = (World::in_process(), Database::new(Kind::Postgres).await);
        let (fine, _, error) = store(&["migrate"], &database.address());
        assert!(fine, "{error}");
        let user = format!("clerk_{}", MessageId::new().as_str().replace('-', ""));
        let rights = format!(
            "CREATE ROLE {user} LOGIN PASSWORD 'clerk'; {GRANTS} {user}; {GRANT_NUMBERS} {user}; GRANT SELECT, INSERT ON bookings TO {user}"
        );
        database.run(&rights).await;
        let address = database.address();
        let (_, server) = address.split_once('@').expect("an address with a user");
        let clerk = Secret::new(format!("postgres://{user}:clerk@{server}"));
        let app = world.start(bank().configure(move |config| config.store = Some(clerk))).await;
        app.bus().send_key("bank.book", Payload::json(&serde_json::json!({ "amount": 5 }))).await.unwrap();
        eventually_async("it is booked", || async { database.amounts().await == [5] }).await;
        eventually_async("what it sent has left", || async { app.stats().relayed == 1 }).await;
        assert_eq!((app.stats().retried, app.health().stores.len()), (0, 0));
    });
}

fn looks_and_changes_nothing(kind: Kind) {
    run(async move {
        let database = Database::empty(kind).await;
        let address = database.address();
        for look in [&["status"][..], &["check"], &["outbox", "list"], &["outbox", "retry", "--all"]] {
            let (fine, said, error) = store(look, &address);
            assert!(!fine && error.contains("postrider store migrate") && said.is_empty(), "{look:?}: {said}{error}");
        }
        if kind == Kind::Sqlite {
            let file = address.trim_start_matches("sqlite:");
            assert!(!std::path::Path::new(file).exists(), "a look has made {file}");
        }
        let (fine, migrated, error) = store(&["migrate"], &address);
        assert!(fine && migrated.contains("version 2"), "{migrated}{error}");
        let (fine, status, error) = store(&["status"], &address);
        assert!(fine && status.contains("0 waiting"), "{status}{error}");
        database.run("UPDATE postrider_schema SET version = 7").await;
        let (fine, _, error) = store(&["status"], &address);
        assert!(!fine && error.contains("version 7"), "{error}");
    });
}

#[test]
fn who_looks_at_a_sqlite_store_that_is_not_there_makes_none() {
    looks_and_changes_nothing(Kind::Sqlite);
}

#[test]
fn who_looks_at_a_postgresql_store_without_tables_makes_none() {
    looks_and_changes_nothing(Kind::Postgres);
}

fn operating(kind: Kind) {
    run(async move {
        let (world, database) = (World::in_process(), Database::new(kind).await);
        let app = database.of(bank()).configure(|config| {
            config.namespace = postrider::broker::Names::default();
            config.store_settings.outbox_alarm = Duration::from_millis(100);
        });
        let app = world.in_namespace(postrider::broker::Names::default()).start(app).await;
        let (bytes, now) = match kind {
            Kind::Sqlite => ("X'c1c2'", "unixepoch('subsec') - 60"),
            Kind::Postgres | Kind::Pooled => ("'\\xc1c2'::bytea", "clock_timestamp() - interval '60 s'"),
        };
        let insert = format!(
            "INSERT INTO postrider_outbox (namespace, address, version, envelope, written_at) VALUES ('postrider', 'event bank.odd', 1, {bytes}, {now})"
        );
        database.run(&insert).await;
        eventually_async("it is put aside", || async { database.count("parked").await == 1 }).await;
        let address = database.address();
        let (fine, status, _) = store(&["status", "--json"], &address);
        assert!(fine && status.contains("\"parked\":1") && status.contains("\"version\":2"), "{status}");
        let (fine, list, _) = store(&["outbox", "list"], &address);
        assert!(
            fine && list.contains("event bank.odd") && list.contains("put aside: its bytes are not an envelope"),
            "{list}"
        );
        let number = list.split_whitespace().next().unwrap().to_owned();
        let (fine, shown, _) = store(&["outbox", "show", &number], &address);
        assert!(fine && shown.contains("unreadable") && shown.contains("193"), "{shown}");
        let (fine, retried, _) = store(&["outbox", "retry", &number], &address);
        assert!(fine && retried.contains("is tried again"), "{retried}");
        eventually_async("it is put aside again", || async { app.stats().parked == 2 }).await;
        let (fine, retried, _) = store(&["outbox", "retry", "--all"], &address);
        assert!(fine && retried.trim() == "rows that are tried again: 1", "{retried}");
        eventually_async("it is put aside once more", || async { app.stats().parked == 3 }).await;
        let (fine, dropped, _) = store(&["outbox", "drop", &number], &address);
        assert!(fine && dropped.contains("is removed"), "{dropped}");
        let (fine, _, error) = store(&["outbox", "drop", &number], &address);
        assert!(!fine && error.contains("there is no row"), "{error}");
        let (fine, checked, error) = store(&["check"], &address);
        assert!(fine && checked.trim() == "ok", "{checked}{error}");
        assert_eq!(database.count("outbox").await, 0);
    });
}

fn keeps_what_was_sent(kind: Kind) {
    run(async move {
        let (world, database) = (World::in_process(), Database::new(kind).await);
        let world = world.in_namespace(postrider::broker::Names::default());
        let start = async |retention: Option<Duration>| {
            let app = database.of(bank()).configure(|config| config.store_settings.sent_retention = retention);
            world.start(app).await
        };
        let kept = async || database.numbers("SELECT count(*) FROM postrider_sent").await[0];
        // The tables of the release before.
        start(None).await.stop().await;
        database.run("DROP TABLE postrider_sent; DELETE FROM postrider_schema WHERE version = 2").await;
        let running = start(Some(Duration::from_secs(3_600))).await;
        for amount in 1..=5 {
            running.bus().send_key("bank.book", Payload::json(&Book { amount })).await.unwrap();
        }
        eventually_async("all has left", || async { running.stats().relayed == 5 }).await;
        eventually_async("and is kept", || async { kept().await == 5 }).await;
        assert_eq!(database.count("outbox").await, 0);
        let address = database.address();
        let (fine, list, error) = store(&["outbox", "list", "--sent"], &address);
        assert!(fine && list.lines().count() == 5 && list.contains("event bank.booked"), "{list}{error}");
        let number = list.split_whitespace().next().unwrap().to_owned();
        let (fine, shown, _) = store(&["outbox", "show", &number], &address);
        assert!(fine && shown.contains("\"sent\": true") && shown.contains("bank.booked"), "{shown}");
        let (fine, _, error) = store(&["outbox", "drop", &number], &address);
        assert!(!fine && error.contains("there is no row"), "{error}");
        running.stop().await;
        // Without the setting nothing is kept, and what was kept goes. The right to clean up may be that of a process that has ended.
        database.run("DELETE FROM postrider_leases").await;
        let running = start(None).await;
        eventually_async("nothing is kept any more", || async { kept().await == 0 }).await;
        running.bus().send_key("bank.book", Payload::json(&Book { amount: 6 })).await.unwrap();
        eventually_async("it has left", || async { running.stats().relayed == 1 }).await;
        eventually_async("the outbox is empty", || async { database.count("outbox").await == 0 }).await;
        assert_eq!(kept().await, 0);
    });
}

#[test]
fn what_was_sent_is_kept_for_its_retention_on_sqlite() {
    keeps_what_was_sent(Kind::Sqlite);
}

#[test]
fn what_was_sent_is_kept_for_its_retention_on_postgres() {
    keeps_what_was_sent(Kind::Postgres);
}

#[test]
fn what_cannot_leave_a_sqlite_outbox_is_seen_and_repaired_from_the_shell() {
    operating(Kind::Sqlite);
}

#[test]
fn what_cannot_leave_a_postgres_outbox_is_seen_and_repaired_from_the_shell() {
    operating(Kind::Postgres);
}

#[test]
fn settings_of_a_server_that_break_a_promise_are_named_and_fail_the_check() {
    run(async {
        let database = Database::empty(Kind::Postgres).await;
        let name = database.address().rsplit('/').next().unwrap().to_owned();
        database.run(&format!("ALTER DATABASE {name} SET synchronous_commit = off")).await;
        assert!(store(&["migrate"], &database.address()).0);
        let (fine, _, error) = store(&["check"], &database.address());
        assert!(!fine && error.contains("synchronous_commit is off"), "{error}");
    });
}
