//! What a handler with a store may count on, on both brokers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use postrider::message::Key;
use postrider::operate::{DeadFilter, DeadLetters, Replay};
use postrider::sqlx::{self, Connection};
use postrider::{
    AnyTx, App, Context, Envelope, Failure, Kind, MediaType, Payload, Postgres, RequestError, Sqlite, distributed,
};
use postrider_tests::bank::{self, Book, audit, bank};
use postrider_tests::database::{self, Database};
use postrider_tests::world::{Seen, World, assert_same, eventually_async, run};

fn booking(id: &str, amount: i64) -> Envelope {
    let payload = serde_json::to_vec(&Book { amount }).unwrap();
    Envelope::with_id(Kind::Command, Key::new("bank.book").unwrap(), id.into(), MediaType::JSON, payload.into())
}

macro_rules! everywhere {
    ($($name:ident),* $(,)?) => {
        everywhere! { @ in_process_sqlite, in_process, Sqlite: $($name),* }
        everywhere! { @ rabbitmq_sqlite, rabbitmq, Sqlite: $($name),* }
        everywhere! { @ in_process_postgres, in_process, Postgres: $($name),* }
        everywhere! { @ rabbitmq_postgres, rabbitmq, Postgres: $($name),* }
        everywhere! { @ in_process_pooled, in_process, Pooled: $($name),* }
    };
    (@ $module:ident, $world:ident, $kind:ident: $($name:ident),*) => {
        mod $module {
            $(#[test] fn $name() { super::run(super::$name(super::World::$world(), super::database::Kind::$kind)); })*
        }
    };
}

everywhere! {
    a_message_that_comes_again_has_no_second_effect_and_the_first_answer,
    what_a_handler_sends_leaves_after_its_commit_with_ids_and_headers,
    a_handler_that_fails_leaves_nothing_and_its_retry_runs,
    an_id_with_other_content_is_a_dead_letter,
    a_message_without_an_id_is_a_dead_letter,
    a_refusal_is_remembered_and_its_replay_runs,
    a_replay_runs_although_the_refusal_was_noted,
    a_repetition_may_be_known_by_a_field_a_header_or_the_callers_key,
    the_same_id_is_handled_once_by_each_actor,
    a_handler_without_a_transaction_has_its_effect_once,
    a_swallowed_database_error_commits_nothing,
    a_handler_that_times_out_in_a_statement_leaves_nothing_and_holds_up_nobody,
    a_transaction_inside_the_handlers_own_may_fail_alone,
    a_begin_that_is_dropped_half_way_commits_all_or_nothing,
    a_request_that_others_would_wait_for_is_refused_at_once,
    many_bookings_are_each_booked_and_heard_of_once_and_in_order,
}

async fn a_message_that_comes_again_has_no_second_effect_and_the_first_answer(world: World, kind: database::Kind) {
    let file = Database::new(kind).await;
    let _bank = world.start(file.of(bank())).await;
    let client = world.client().await;
    let ask = async |id: &str, amount: i64| -> i64 {
        let options = |o: postrider::Options| o.id(id);
        client.bus().request_key_with("bank.book", Payload::json(&Book { amount }), options).await.unwrap()
    };
    assert_eq!(ask("one", 5).await, 5);
    assert_eq!(ask("two", 7).await, 12);
    assert_eq!(ask("one", 5).await, 5, "the answer of the first delivery");
    assert_eq!(file.amounts().await, [5, 7]);
    assert_eq!(_bank.stats().duplicates, 1);
}

async fn what_a_handler_sends_leaves_after_its_commit_with_ids_and_headers(world: World, kind: database::Kind) {
    let file = Database::new(kind).await;
    let heard = Arc::new(Seen::default());
    let _listener = world.start(listener(&heard)).await;
    let _bank = world.start(file.of(bank()).propagate(["tenant"])).await;
    let mut message = booking("one", 5);
    message.headers.set("tenant", "acme");
    world.client().await.bus().dispatch(message).await.unwrap();
    let heard = heard.reach(1).await.remove(0);
    assert_eq!(heard.headers.text("tenant"), Some("acme"));
    assert_eq!(heard.causation_id.as_ref().map(|id| id.as_str()), Some("one"));
    assert_eq!(heard.source.as_ref().map(|name| name.as_str()), Some("bank"));
    assert!(heard.headers.text("traceparent").is_some(), "the trace goes on: {heard:?}");
    eventually_async("the row is gone", || async { file.count("outbox").await == 0 }).await;
}

struct Listener(Arc<Seen<Envelope>>);

#[distributed(service = "listener")]
impl Listener {
    #[distributed(event = "bank.booked")]
    async fn booked(&self, _: i64, cx: &Context) {
        self.0.add(cx.envelope().clone());
    }
}

fn listener(heard: &Arc<Seen<Envelope>>) -> App {
    let heard = Arc::clone(heard);
    App::new("listener").actor(move || Listener(Arc::clone(&heard)))
}

/// Fails at first, each time in another way, after it has written and sent.
struct Clumsy {
    attempts: Arc<Seen<u32>>,
}

#[distributed(service = "bank", guarantee = "effectively_once")]
impl Clumsy {
    #[distributed(command = "bank.book")]
    async fn book(&mut self, book: Book, cx: &Context, tx: &mut AnyTx) -> Result<(), Failure> {
        self.attempts.add(cx.attempt());
        write(tx, cx, book.amount).await?;
        cx.publish_key("bank.booked", Payload::json(&book.amount))?;
        match cx.attempt() {
            1 => Err(Failure::transient("the first attempt fails")),
            2 => panic!("the second one panics"),
            _ => Ok(()),
        }
    }
}

async fn write(tx: &mut AnyTx, cx: &Context, amount: i64) -> Result<(), Failure> {
    bank::book(tx, cx.id().as_str(), amount).await.map_err(|error| Failure::transient(error.to_string()))
}

async fn a_handler_that_fails_leaves_nothing_and_its_retry_runs(world: World, kind: database::Kind) {
    let file = Database::new(kind).await;
    let (attempts, heard) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
    let _listener = world.start(listener(&heard)).await;
    let made = Arc::clone(&attempts);
    let _bank = world.start(file.of(App::new("bank").actor(move || Clumsy { attempts: Arc::clone(&made) }))).await;
    world.client().await.bus().dispatch(booking("one", 5)).await.unwrap();
    heard.reach(1).await;
    assert_eq!(attempts.all(), [1, 2, 3]);
    assert_eq!(file.amounts().await, [5]);
    assert_eq!(heard.count(), 1);
}

async fn an_id_with_other_content_is_a_dead_letter(world: World, kind: database::Kind) {
    let file = Database::new(kind).await;
    let _bank = world.start(file.of(bank())).await;
    let client = world.client().await;
    client.bus().dispatch(booking("one", 5)).await.unwrap();
    eventually_async("it is booked", || async { file.amounts().await == [5] }).await;
    client.bus().dispatch(booking("one", 6)).await.unwrap();
    let letter = world.dead_letters("bank", 1).await.remove(0);
    assert_eq!(letter.headers.text("postrider-dead-reason"), Some("id_reused"), "{letter:?}");
    assert_eq!(file.amounts().await, [5]);
}

async fn a_message_without_an_id_is_a_dead_letter(world: World, kind: database::Kind) {
    let file = Database::new(kind).await;
    let _bank = world.start(file.of(bank())).await;
    let message =
        postrider::testing::ForeignMessage { content_type: Some("application/json".into()), ..Default::default() };
    let payload = serde_json::to_vec(&Book { amount: 5 }).unwrap();
    world.publish_foreign(&world.names.exchange(Kind::Command), "bank.book", message, payload).await;
    let letter = world.dead_letters("bank", 1).await.remove(0);
    assert_eq!(letter.headers.text("postrider-dead-reason"), Some("no_id"), "{letter:?}");
    assert_eq!(file.amounts().await, [0_i64; 0]);
}

async fn a_refusal_is_remembered_and_its_replay_runs(world: World, kind: database::Kind) {
    let file = Database::new(kind).await;
    let _bank = world.start(file.of(bank())).await;
    let client = world.client().await;
    let refused = async || {
        let asked = client
            .bus()
            .request_key_with::<i64>("bank.book", Payload::json(&Book { amount: 0 }), |o| o.id("zero"))
            .await;
        match asked.unwrap_err() {
            RequestError::Remote(remote) => remote.problem.code,
            other => panic!("{other}"),
        }
    };
    assert_eq!(refused().await, "nothing");
    assert_eq!(refused().await, "nothing");
    assert_eq!(_bank.stats().duplicates, 1, "the second time it was not asked");
    assert_eq!(_bank.stats().rejected, 2);
    // One-way, a refusal is a dead letter, which leaves no note.
    client.bus().dispatch(booking("one-way", 0)).await.unwrap();
    world.dead_letters("bank", 1).await;
    assert_eq!(file.count("inbox").await, 1);
}

/// Refuses until its mind has changed.
#[derive(Clone, Default)]
struct Stubborn {
    accepts: Arc<AtomicBool>,
}

#[distributed(service = "bank", guarantee = "effectively_once")]
impl Stubborn {
    #[distributed(command = "bank.book")]
    async fn book(&self, book: Book, cx: &Context) -> Result<i64, Failure> {
        cx.publish_key("bank.booked", Payload::json(&book.amount))?;
        let accepts = self.accepts.load(Ordering::SeqCst);
        if accepts { Ok(book.amount) } else { Err(Failure::rejected("no", "not now")) }
    }

    #[distributed(command = "bank.tx")]
    async fn with_tx(&self, book: Book, cx: &Context, tx: &mut AnyTx) -> Result<i64, Failure> {
        write(tx, cx, book.amount).await?;
        self.book(book, cx).await
    }
}

async fn a_replay_runs_although_the_refusal_was_noted(world: World, kind: database::Kind) {
    let file = Database::new(kind).await;
    let (stubborn, heard) = (Stubborn::default(), Arc::new(Seen::default()));
    let _listener = world.start(listener(&heard)).await;
    let made = stubborn.clone();
    let bank = world.start(file.of(App::new("bank").actor(move || made.clone()))).await;
    // The callers are gone before they are answered, so the refusals are dead letters, and they are noted.
    for key in ["bank.book", "bank.tx"] {
        let gone = world.client().await;
        let asked = gone.bus().request_key_with::<i64>(key, Payload::json(&Book { amount: 7 }), |o| o.id(key));
        assert!(asked.await.is_err(), "it is refused");
        let message = postrider::testing::ForeignMessage {
            content_type: Some("application/json".into()),
            message_id: Some(key.into()),
            reply_to: Some("nobody.is.there".into()),
            ..Default::default()
        };
        let payload = serde_json::to_vec(&Book { amount: 7 }).unwrap();
        world.publish_foreign(&world.names.exchange(Kind::Command), key, message, payload).await;
    }
    let given_up = || async { bank.stats().dead_lettered == 2 };
    eventually_async("both refusals found nobody", given_up).await;
    assert_eq!(file.count("inbox").await, 2, "the refusals are noted");
    stubborn.accepts.store(true, Ordering::SeqCst);
    let letters = DeadLetters::new(bank.bus());
    let replayed = letters.replay(&DeadFilter::all(), &Replay::default()).await.unwrap();
    assert_eq!(replayed.replayed, 2);
    heard.reach(2).await;
    assert_eq!(file.amounts().await, [7], "what the one with a transaction wrote");
    assert_eq!(bank.stats().dead_lettered, 2);
}

/// Knows a repetition by what is booked.
struct ByField;

#[distributed(service = "bank", guarantee = "effectively_once", once_by = "amount")]
impl ByField {
    #[distributed(command = "bank.book")]
    async fn book(&mut self, book: Book, cx: &Context, tx: &mut AnyTx) -> Result<(), Failure> {
        write(tx, cx, book.amount).await
    }

    #[distributed(command = "bank.raw")]
    async fn raw(&mut self, _: postrider::Bytes, cx: &Context, tx: &mut AnyTx) -> Result<(), Failure> {
        write(tx, cx, 1_000).await
    }
}

async fn a_repetition_may_be_known_by_a_field_a_header_or_the_callers_key(world: World, kind: database::Kind) {
    let file = Database::new(kind).await;
    let by_field = world.start(file.of(App::new("bank").actor(|| ByField))).await;
    let client = world.client().await;
    for (id, amount) in [("one", 5), ("two", 5), ("three", 6)] {
        client.bus().dispatch(booking(id, amount)).await.unwrap();
    }
    // A header goes before a field; without either there is no id.
    let raw =
        |header: bool| {
            client.bus().send_key_with("bank.raw", Payload::text("x"), move |o| {
                if header { o.header("amount", 6_i64) } else { o }
            })
        };
    for header in [true, false] {
        raw(header).await.unwrap();
    }
    let mut letters = world.dead_letters("bank", 2).await;
    letters.sort_by_key(|letter| letter.headers.text("postrider-dead-reason").map(str::to_owned));
    let reasons: Vec<_> = letters.iter().map(|letter| letter.headers.text("postrider-dead-reason").unwrap()).collect();
    assert_eq!(reasons, ["id_reused", "no_id"], "6 was booked by another message");
    eventually_async("all are handled", || async { by_field.stats().duplicates == 1 }).await;
    assert_eq!(file.amounts().await, [5, 6]);
    by_field.stop().await;
    let by_key = world.start(file.of(bank())).await;
    for _ in 0..2 {
        let options = |o: postrider::Options| o.header("idempotency-key", "order-7");
        client.bus().send_key_with("bank.book", Payload::json(&Book { amount: 7 }), options).await.unwrap();
    }
    eventually_async("the second one is known", || async { by_key.stats().duplicates == 1 }).await;
    assert_eq!(file.amounts().await, [5, 6, 7]);
}

struct Other;

#[distributed(service = "bank", queue = "other", guarantee = "effectively_once")]
impl Other {
    #[distributed(event = "bank.done")]
    async fn done(&mut self, amount: i64, cx: &Context, tx: &mut AnyTx) -> Result<(), Failure> {
        write(tx, cx, amount).await
    }
}

struct Another;

#[distributed(service = "bank", queue = "another", guarantee = "effectively_once")]
impl Another {
    #[distributed(event = "bank.done")]
    async fn done(&mut self, amount: i64, cx: &Context, tx: &mut AnyTx) -> Result<(), Failure> {
        write(tx, cx, amount + 1).await
    }
}

async fn the_same_id_is_handled_once_by_each_actor(world: World, kind: database::Kind) {
    let file = Database::new(kind).await;
    let _bank = world.start(file.of(App::new("bank").actor(|| Other).actor(|| Another))).await;
    let client = world.client().await;
    for _ in 0..2 {
        client.bus().publish_key_with("bank.done", Payload::json(&1), |o| o.id("one").as_owner()).await.unwrap();
    }
    eventually_async("both have it twice", || async { _bank.stats().duplicates == 2 }).await;
    let mut amounts = file.amounts().await;
    amounts.sort_unstable();
    assert_eq!(amounts, [1, 2]);
}

struct Plain {
    seen: Arc<Seen<i64>>,
}

#[distributed(service = "bank", guarantee = "effectively_once")]
impl Plain {
    #[distributed(command = "bank.book")]
    async fn book(&self, book: Book, cx: &Context) -> Result<i64, Failure> {
        self.seen.add(book.amount);
        cx.publish_key("bank.booked", Payload::json(&book.amount))?;
        Ok(book.amount * 2)
    }
}

async fn a_handler_without_a_transaction_has_its_effect_once(world: World, kind: database::Kind) {
    let file = Database::new(kind).await;
    let (seen, heard) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
    let _listener = world.start(listener(&heard)).await;
    let made = Arc::clone(&seen);
    let _bank = world.start(file.of(App::new("bank").actor(move || Plain { seen: Arc::clone(&made) }))).await;
    let client = world.client().await;
    for amount in [3, 3, 4] {
        let options = |o: postrider::Options| o.id(format!("id-{amount}"));
        let answer: i64 =
            client.bus().request_key_with("bank.book", Payload::json(&Book { amount }), options).await.unwrap();
        assert_eq!(answer, amount * 2);
    }
    let heard = heard.reach(2).await;
    let heard: Vec<String> = heard.iter().map(|it| String::from_utf8_lossy(&it.payload).into_owned()).collect();
    assert_same(["3", "4"].map(str::to_owned).to_vec(), heard);
    assert_eq!(_bank.stats().duplicates, 1);
}

struct Swallows;

#[distributed(service = "bank", guarantee = "effectively_once", retry = "none")]
impl Swallows {
    #[distributed(command = "bank.book")]
    async fn book(&mut self, book: Book, cx: &Context, tx: &mut AnyTx) -> Result<(), Failure> {
        write(tx, cx, book.amount).await?;
        // The database rolls the whole transaction back; the handler goes on as if nothing had happened.
        if let Some(conn) = tx.conn_of::<Sqlite>() {
            let twice =
                "INSERT OR ROLLBACK INTO bookings (id, message, amount) SELECT id, message, amount FROM bookings";
            let _ = sqlx::raw_sql(twice).execute(conn).await;
        } else if let Some(conn) = tx.conn_of::<Postgres>() {
            let _ = sqlx::raw_sql("SELECT 1 / 0").execute(conn).await;
        }
        let _ = write(tx, cx, 100).await;
        cx.publish_key("bank.booked", Payload::json(&book.amount))?;
        Ok(())
    }
}

async fn a_swallowed_database_error_commits_nothing(world: World, kind: database::Kind) {
    let file = Database::new(kind).await;
    let heard = Arc::new(Seen::default());
    let _listener = world.start(listener(&heard)).await;
    let _bank = world.start(file.of(App::new("bank").actor(|| Swallows))).await;
    world.client().await.bus().dispatch(booking("one", 5)).await.unwrap();
    let letter = world.dead_letters("bank", 1).await.remove(0);
    let error = letter.headers.text("postrider-dead-error").unwrap_or_default().to_owned();
    assert!(error.contains("nothing it wrote was kept"), "{error}");
    assert_eq!(file.count("inbox").await, 0);
    assert_eq!(file.count("outbox").await, 0);
    assert_eq!(heard.count(), 0);
}

struct Slow;

#[distributed(service = "bank", guarantee = "effectively_once", retry = "none", timeout = "300ms")]
impl Slow {
    #[distributed(command = "bank.book")]
    async fn book(&mut self, book: Book, cx: &Context, tx: &mut AnyTx) -> Result<(), Failure> {
        write(tx, cx, book.amount).await?;
        if book.amount < 0 {
            if let Some(conn) = tx.conn_of::<Sqlite>() {
                let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
                let _ = sqlx::raw_sql(endless).execute(conn).await;
            } else if let Some(conn) = tx.conn_of::<Postgres>() {
                let _ = sqlx::raw_sql("SELECT pg_sleep(3600)").execute(conn).await;
            }
        }
        Ok(())
    }
}

async fn a_handler_that_times_out_in_a_statement_leaves_nothing_and_holds_up_nobody(
    world: World,
    kind: database::Kind,
) {
    let file = Database::new(kind).await;
    let _bank = world.start(file.of(App::new("bank").actor(|| Slow))).await;
    let client = world.client().await;
    client.bus().dispatch(booking("endless", -1)).await.unwrap();
    client.bus().dispatch(booking("behind", 5)).await.unwrap();
    let letter = world.dead_letters("bank", 1).await.remove(0);
    assert_eq!(letter.headers.text("postrider-dead-reason"), Some("timed_out"), "{letter:?}");
    eventually_async("the next one is booked", || async { file.amounts().await == [5] }).await;
}

struct Nested;

macro_rules! book_inside {
    ($conn:expr, $keeps:expr) => {{
        let mut inner = $conn.begin().await?;
        let insert = "INSERT INTO bookings (message, amount) VALUES ('inner', 100)";
        sqlx::raw_sql(insert).execute(&mut *inner).await?;
        if $keeps { inner.commit().await } else { inner.rollback().await }
    }};
}

async fn book_inside(tx: &mut AnyTx, keeps: bool) -> Result<(), sqlx::Error> {
    if let Some(conn) = tx.conn_of::<Sqlite>() {
        book_inside!(conn, keeps)
    } else if let Some(conn) = tx.conn_of::<Postgres>() {
        book_inside!(conn, keeps)
    } else {
        Ok(())
    }
}

#[distributed(service = "bank", guarantee = "effectively_once")]
impl Nested {
    #[distributed(command = "bank.book")]
    async fn book(&mut self, book: Book, cx: &Context, tx: &mut AnyTx) -> Result<(), Failure> {
        write(tx, cx, book.amount).await?;
        book_inside(tx, book.amount != 5).await.map_err(|error| Failure::transient(error.to_string()))
    }
}

async fn a_transaction_inside_the_handlers_own_may_fail_alone(world: World, kind: database::Kind) {
    let file = Database::new(kind).await;
    let _bank = world.start(file.of(App::new("bank").actor(|| Nested))).await;
    let client = world.client().await;
    for amount in [5, 6] {
        client.bus().dispatch(booking(&format!("id-{amount}"), amount)).await.unwrap();
    }
    eventually_async("both are booked", || async { file.amounts().await == [5, 6, 100] }).await;
}

struct Drops;

#[distributed(service = "bank", guarantee = "effectively_once", retry = "none")]
impl Drops {
    #[distributed(command = "bank.book")]
    async fn book(&mut self, book: Book, cx: &Context, tx: &mut AnyTx) -> Result<(), Failure> {
        write(tx, cx, book.amount).await?;
        cx.publish_key("bank.booked", Payload::json(&book.amount))?;
        // The database client then ends the handler's own transaction as well.
        if let Some(conn) = tx.conn_of::<Sqlite>() {
            drop(futures::poll!(Box::pin(conn.begin())));
        } else if let Some(conn) = tx.conn_of::<Postgres>() {
            drop(futures::poll!(Box::pin(conn.begin())));
        }
        Ok(())
    }
}

async fn a_begin_that_is_dropped_half_way_commits_all_or_nothing(world: World, kind: database::Kind) {
    let file = Database::new(kind).await;
    let heard = Arc::new(Seen::default());
    let _listener = world.start(listener(&heard)).await;
    let _bank = world.start(file.of(App::new("bank").actor(|| Drops))).await;
    let client = world.client().await;
    for number in 0..20 {
        client.bus().dispatch(booking(&format!("id-{number}"), 5)).await.unwrap();
    }
    // Whether the begin, its rollback, or both took place when it was dropped depends on the moment.
    let ended = || async { _bank.stats().handled + _bank.stats().dead_lettered == 20 };
    eventually_async("each is handled or given up", ended).await;
    let dead = usize::try_from(_bank.stats().dead_lettered).unwrap();
    for letter in world.dead_letters("bank", dead).await {
        let error = letter.headers.text("postrider-dead-error").unwrap_or_default().to_owned();
        assert!(error.contains("was over before its commit"), "{error}");
    }
    heard.reach(20 - dead).await;
    eventually_async("the outbox is empty", || async { file.count("outbox").await == 0 }).await;
    assert_eq!((file.amounts().await.len(), heard.count()), (20 - dead, 20 - dead));
    assert_eq!(usize::try_from(file.count("inbox").await).unwrap(), 20 - dead);
}

struct Asks;

#[distributed(service = "bank", guarantee = "effectively_once", retry = "none")]
impl Asks {
    #[distributed(command = "bank.book")]
    async fn book(&mut self, book: Book, cx: &Context, tx: &mut AnyTx) -> Result<(), Failure> {
        if tx.conn_of::<Postgres>().is_some() {
            write(tx, cx, book.amount).await?;
        }
        let asked = cx.request_key::<i64>("audit.look", Payload::json(&())).await;
        asked.map(drop).map_err(|error| Failure::permanent(error.to_string()))
    }
}

async fn a_request_that_others_would_wait_for_is_refused_at_once(world: World, kind: database::Kind) {
    let file = Database::new(kind).await;
    let _bank = world.start(file.of(App::new("bank").actor(|| Asks))).await;
    world.client().await.bus().dispatch(booking("one", 5)).await.unwrap();
    let letter = world.dead_letters("bank", 1).await.remove(0);
    let error = letter.headers.text("postrider-dead-error").unwrap_or_default().to_owned();
    assert!(error.contains("while the handler's transaction is open"), "{error}");
}

async fn many_bookings_are_each_booked_and_heard_of_once_and_in_order(world: World, kind: database::Kind) {
    let (books, audits) = (Database::new(kind).await, Database::new(kind).await);
    let _audit = world.start(audits.of(audit())).await;
    let _bank = world.start(books.of(bank())).await;
    let client = world.client().await;
    let amounts: Vec<i64> = (1..=300).collect();
    for amount in &amounts {
        for _ in 0..2 {
            client.bus().dispatch(booking(&format!("id-{amount}"), *amount)).await.unwrap();
        }
    }
    eventually_async("all are heard of", || async { audits.amounts().await.len() == amounts.len() }).await;
    eventually_async("the second ones are known", || async { _bank.stats().duplicates == 300 }).await;
    assert_eq!(books.amounts().await, amounts);
    assert_eq!(audits.amounts().await, amounts, "in the order of their commits");
    assert_eq!(audits.count("inbox").await, 300);
}
