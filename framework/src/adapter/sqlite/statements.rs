//! The statements of a transaction. Several in one text cost as much as one: two changes of thread.

use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr, Sqlite, SqliteConnection, raw_sql};

use crate::store::{InboxEntry, OutboxRow, StoredAnswer};

/// The most rows of the outbox in one statement.
const ROWS_AT_ONCE: usize = 500;

type Query<'a> = sqlx::query::Query<'a, Sqlite, sqlx::sqlite::SqliteArguments>;

/// Begins, and notes the message.
pub(super) fn begin_statement(entry: Option<&InboxEntry>) -> SqlStr {
    let Some(entry) = entry else { return "BEGIN IMMEDIATE".into_sql_str() };
    let mut statement =
        "BEGIN IMMEDIATE; INSERT INTO postrider_inbox (actor, id, content, handled_at) VALUES (".to_owned();
    let _ = write!(statement, "{}, X'", entry.actor.0);
    for byte in &entry.id {
        let _ = write!(statement, "{byte:02x}");
    }
    let _ = write!(statement, "', {}, unixepoch())", entry.content);
    AssertSqlSafe(statement).into_sql_str()
}

/// Begins, and asks what the inbox knows of messages of one actor.
pub(super) fn begin_and_look_statement(entries: &[InboxEntry]) -> SqlStr {
    let Some(first) = entries.first() else { return begin_statement(None) };
    let mut statement = format!(
        "BEGIN IMMEDIATE; SELECT id, content, answer FROM postrider_inbox WHERE actor = {} AND id IN (",
        first.actor.0
    );
    for (place, entry) in entries.iter().enumerate() {
        statement.push_str(if place == 0 { "X'" } else { ", X'" });
        for byte in &entry.id {
            let _ = write!(statement, "{byte:02x}");
        }
        statement.push('\'');
    }
    statement.push(')');
    AssertSqlSafe(statement).into_sql_str()
}

/// What a commit writes into the inbox.
pub(super) enum Notes<'a> {
    /// The answer of the message that the transaction began with.
    Answer(Option<&'a InboxEntry>, &'a StoredAnswer),
    /// These messages and their answers.
    All(&'a [(InboxEntry, StoredAnswer)]),
}

impl<'a> Notes<'a> {
    fn add_to(&self, statements: &mut String) {
        match self {
            Self::Answer(Some(_), answer) if answer.encode().is_some() => {
                statements.push_str("UPDATE postrider_inbox SET answer = ? WHERE actor = ? AND id = ?;");
            }
            Self::Answer(..) | Self::All([]) => {}
            Self::All(handled) => {
                statements.push_str("INSERT INTO postrider_inbox (actor, id, content, handled_at, answer) VALUES ");
                let row = "(?, ?, ?, unixepoch(), ?)";
                statements.push_str(&vec![row; handled.len()].join(", "));
                statements.push(';');
            }
        }
    }

    fn bind<'q>(&self, mut query: Query<'q>) -> Query<'q>
    where
        'a: 'q,
    {
        match *self {
            Self::Answer(entry, answer) => {
                if let Some((entry, bytes)) = entry.zip(answer.encode()) {
                    query = query.bind(bytes).bind(entry.actor.0).bind(&entry.id[..]);
                }
            }
            Self::All(handled) => {
                for (entry, answer) in handled {
                    query = query.bind(entry.actor.0).bind(&entry.id[..]).bind(entry.content).bind(answer.encode());
                }
            }
        }
        query
    }
}

/// Writes what is noted and the rows, and commits.
pub(super) async fn finish(
    connection: &mut SqliteConnection,
    namespace: &str,
    notes: Notes<'_>,
    rows: &[OutboxRow],
) -> Result<(), sqlx::Error> {
    let mut statements = String::new();
    notes.add_to(&mut statements);
    let rows = last_rows(connection, namespace, rows).await?;
    add_insert(&mut statements, rows.len());
    statements.push_str("COMMIT");
    // Texts that differ from one commit to the next are not worth keeping.
    let few = rows.len() <= 1 && matches!(notes, Notes::Answer(..));
    let query = notes.bind(sqlx::query(AssertSqlSafe(statements)).persistent(few));
    bind_rows(query, namespace, rows).execute(connection).await.map(drop)
}

/// Begins, notes the message, writes the rows and commits.
pub(super) async fn write_at_once(
    connection: &mut SqliteConnection,
    namespace: &str,
    entry: Option<(&InboxEntry, &StoredAnswer)>,
    rows: &[OutboxRow],
) -> Result<(), sqlx::Error> {
    let mut statements = "BEGIN IMMEDIATE;".to_owned();
    let mut rows = rows;
    if rows.len() > ROWS_AT_ONCE {
        raw_sql(AssertSqlSafe(std::mem::take(&mut statements))).execute(&mut *connection).await?;
        rows = last_rows(connection, namespace, rows).await?;
    }
    if entry.is_some() {
        statements.push_str(
            "INSERT INTO postrider_inbox (actor, id, content, handled_at, answer) VALUES (?, ?, ?, unixepoch(), ?);",
        );
    }
    add_insert(&mut statements, rows.len());
    statements.push_str("COMMIT");
    let mut query = sqlx::query(AssertSqlSafe(statements)).persistent(rows.len() <= 1);
    if let Some((entry, answer)) = entry {
        query = query.bind(entry.actor.0).bind(&entry.id[..]).bind(entry.content).bind(answer.encode());
    }
    bind_rows(query, namespace, rows).execute(connection).await.map(drop)
}

/// Writes all rows but the last ones, which fit into the text of the commit.
async fn last_rows<'a>(
    connection: &mut SqliteConnection,
    namespace: &str,
    rows: &'a [OutboxRow],
) -> Result<&'a [OutboxRow], sqlx::Error> {
    let (before, last) = rows.split_at(rows.len() - rows.len() % (ROWS_AT_ONCE + 1));
    for rows in before.chunks(ROWS_AT_ONCE) {
        let mut statement = String::new();
        add_insert(&mut statement, rows.len());
        let insert = sqlx::query(AssertSqlSafe(statement)).persistent(false);
        bind_rows(insert, namespace, rows).execute(&mut *connection).await?;
    }
    Ok(last)
}

fn add_insert(statements: &mut String, rows: usize) {
    for row in 0..rows {
        statements.push_str(match row {
            0 => "INSERT INTO postrider_outbox (namespace, address, version, envelope, written_at) VALUES ",
            _ => ", ",
        });
        statements.push_str("(?, ?, ?, ?, unixepoch('subsec'))");
    }
    if rows > 0 {
        statements.push(';');
    }
}

fn bind_rows<'a>(mut query: Query<'a>, namespace: &'a str, rows: &'a [OutboxRow]) -> Query<'a> {
    for row in rows {
        query = query.bind(namespace).bind(&row.address).bind(row.version).bind(&row.envelope);
    }
    query
}
