//! The same books kept by hand: a transaction for each message, as the books on the outbox pattern show it, or one for many.

use clap::Args;
use futures::{FutureExt, StreamExt, TryStreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection};
use postrider::sqlx::postgres::PgPoolOptions;
use postrider::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use postrider::sqlx::{self, PgConnection, PgPool, Row, SqlitePool};
use postrider_benches::Failed;
use postrider_benches::signal;
use postrider_benches::tally::Tally;
use postrider_benches::work::Work;

use crate::consume::EXCHANGE;

/// The most messages of a shared commit.
const SHARED: usize = 32;
/// How many rows the relay sends at once.
const ROWS: i64 = 1_000;
/// How often it looks.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(50);

const TABLES: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS hand_inbox (id varchar(60) PRIMARY KEY, answer varchar(60))",
    "CREATE TABLE IF NOT EXISTS hand_bookings (number bigint NOT NULL, text varchar(4000) NOT NULL)",
    "CREATE TABLE IF NOT EXISTS hand_outbox (number %SERIAL%, payload %BYTES% NOT NULL)",
];
const INBOX: &str = "INSERT INTO hand_inbox (id) VALUES ($1) ON CONFLICT DO NOTHING";
const BOOK: &str = "INSERT INTO hand_bookings (number, text) VALUES ($1, $2)";
const LOOK: &str = "SELECT number, payload FROM hand_outbox ORDER BY number LIMIT $1";
const REMOVE: &str = "DELETE FROM hand_outbox WHERE number <= $1";
const OUTBOX: &str = "INSERT INTO hand_outbox (payload) VALUES ($1)";

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long)]
    queue: String,
    #[arg(long)]
    messages: u64,
    /// Where the books are
    #[arg(long)]
    store: String,
    /// So many handlers at once
    #[arg(long, default_value_t = 1)]
    concurrency: usize,
    /// Many messages in one transaction, as cleverly as we know
    #[arg(long)]
    shared: bool,
    /// The handler only sends
    #[arg(long)]
    only_sends: bool,
}

pub(crate) async fn keep(connection: &Connection, options: &Options) -> Result<(), Failed> {
    if options.store.starts_with("postgres") {
        let pool = PgPoolOptions::new().max_connections(20).connect(&options.store).await?;
        for table in TABLES {
            let table = table.replace("%SERIAL%", "bigserial PRIMARY KEY").replace("%BYTES%", "bytea");
            sqlx::raw_sql(sqlx::AssertSqlSafe(table)).execute(&pool).await?;
        }
        on_postgres(connection, options, &pool).await
    } else {
        let file = options.store.trim_start_matches("sqlite:");
        let open = SqliteConnectOptions::new().filename(file).create_if_missing(true);
        let open = open.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new().max_connections(20).connect_with(open).await?;
        for table in TABLES {
            let table = table.replace("%SERIAL%", "INTEGER PRIMARY KEY AUTOINCREMENT").replace("%BYTES%", "blob");
            sqlx::raw_sql(sqlx::AssertSqlSafe(table)).execute(&pool).await?;
        }
        on_sqlite(connection, options, &pool).await
    }
}

/// One transaction for each message, and a relay beside it.
macro_rules! by_the_book {
    ($name:ident, $pool:ty, $begin:literal, $shared:expr) => {
        async fn $name(connection: &Connection, options: &Options, pool: &$pool) -> Result<(), Failed> {
            let channel = connection.create_channel().await?;
            channel.basic_qos(256, BasicQosOptions::default()).await?;
            let (consume, none) = (BasicConsumeOptions::default(), FieldTable::default());
            let mut consumer = channel.basic_consume(options.queue.as_str().into(), "".into(), consume, none).await?;
            let relay_channel = connection.create_channel().await?;
            relay_channel.confirm_select(ConfirmSelectOptions::default()).await?;
            let relaying = {
                let pool = pool.clone();
                tokio::spawn(async move {
                    loop {
                        let rows = sqlx::query(LOOK).bind(ROWS).fetch_all(&pool).await?;
                        if rows.is_empty() {
                            tokio::time::sleep(LOOK_EVERY).await;
                            continue;
                        }
                        let mut confirms = Vec::new();
                        for row in &rows {
                            let payload: &[u8] = row.try_get(1)?;
                            let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
                            let sent = relay_channel.basic_publish(
                                EXCHANGE.into(),
                                "load.booked".into(),
                                options,
                                payload,
                                properties.with_delivery_mode(2),
                            );
                            confirms.push(sent.await?);
                        }
                        for confirm in confirms {
                            confirm.await?;
                        }
                        let last: i64 = rows[rows.len() - 1].try_get(0)?;
                        sqlx::query(REMOVE).bind(last).execute(&pool).await?;
                    }
                    #[allow(unreachable_code, reason = "says the type of the errors")]
                    Ok::<(), Failed>(())
                })
            };
            let tally = Tally::new(options.messages, false);
            signal::ready()?;
            if options.shared {
                let shared: fn(_, _, _, _) -> _ = $shared;
                shared(&mut consumer, options, pool, &tally).await?;
            } else {
                let deliveries = consumer.take(usize::try_from(options.messages)?).map_err(Failed::from);
                deliveries
                    .try_for_each_concurrent(options.concurrency, async |delivery: Delivery| {
                        let work: Work = rmp_serde::from_slice(&delivery.data)?;
                        let mut tx = pool.begin_with($begin).await?;
                        let id = format!("{}-{}", work.sent_at, work.number);
                        let noted = sqlx::query(INBOX).bind(&id).execute(&mut *tx).await?;
                        if noted.rows_affected() == 1 {
                            if !options.only_sends {
                                let book = sqlx::query(BOOK).bind(work.number.cast_signed()).bind(&work.text);
                                book.execute(&mut *tx).await?;
                            }
                            sqlx::query(OUTBOX).bind(&delivery.data).execute(&mut *tx).await?;
                        }
                        tx.commit().await?;
                        delivery.acker.ack(BasicAckOptions::default()).await?;
                        tally.count(&work);
                        Ok::<(), Failed>(())
                    })
                    .await?;
            }
            relaying.abort();
            signal::done(&tally.measured().await)
        }
    };
}

by_the_book!(on_postgres, PgPool, "BEGIN", |consumer, options, pool, tally| shared(consumer, options, pool, tally)
    .boxed());
by_the_book!(
    on_sqlite,
    SqlitePool,
    "BEGIN IMMEDIATE",
    |_: &mut lapin::Consumer, _: &Options, _: &SqlitePool, _: &Tally| {
        std::future::ready(Err::<(), Failed>("only PostgreSQL is done so".into())).boxed()
    }
);

/// What waits, up to a limit, in one transaction on a kept connection: begin and look are one round trip, inbox, outbox and commit another.
async fn shared(consumer: &mut lapin::Consumer, options: &Options, pool: &PgPool, tally: &Tally) -> Result<(), Failed> {
    let mut connection = pool.acquire().await?;
    let mut left = options.messages;
    while left > 0 {
        let Some(first) = consumer.next().await else { return Err("the consumer ended".into()) };
        let mut group = vec![first?];
        while group.len() < SHARED
            && (group.len() as u64) < left
            && let Some(Some(next)) = consumer.next().now_or_never()
        {
            group.push(next?);
        }
        left -= group.len() as u64;
        together(&mut connection, &group, tally).await?;
        if let Some(last) = group.last() {
            last.acker.ack(BasicAckOptions { multiple: true }).await?;
        }
    }
    Ok(())
}

async fn together(connection: &mut PgConnection, group: &[Delivery], tally: &Tally) -> Result<(), Failed> {
    let works: Vec<Work> = group.iter().map(|one| rmp_serde::from_slice(&one.data)).collect::<Result<_, _>>()?;
    let ids: Vec<String> = works.iter().map(|work| format!("'{}-{}'", work.sent_at, work.number)).collect();
    let begin = format!("BEGIN; SELECT id FROM hand_inbox WHERE id IN ({})", ids.join(", "));
    sqlx::raw_sql(sqlx::AssertSqlSafe(begin)).fetch_all(&mut *connection).await?;
    for work in &works {
        sqlx::query(BOOK).bind(work.number.cast_signed()).bind(&work.text).execute(&mut *connection).await?;
    }
    let noted: Vec<String> = ids.iter().map(|id| format!("({id})")).collect();
    let rows: Vec<String> = group.iter().map(|one| format!("('\\x{}')", hex(&one.data))).collect();
    let commit = format!(
        "INSERT INTO hand_inbox (id) VALUES {}; INSERT INTO hand_outbox (payload) VALUES {}; COMMIT",
        noted.join(", "),
        rows.join(", ")
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(commit)).execute(&mut *connection).await?;
    works.iter().for_each(|work| tally.count(work));
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
