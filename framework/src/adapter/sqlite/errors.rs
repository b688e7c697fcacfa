//! SQLite's error codes as ours (<https://www.sqlite.org/rescode.html>).

use crate::store::{Hindrance, StoreError};

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    Opening,
    Migrating,
    /// The service's own statements at its start.
    Preparing,
    Working,
    Committing,
}

/// Numbers of the primary result codes.
const PERMISSION: i64 = 3;
const BUSY: i64 = 5;
const LOCKED: i64 = 6;
const READ_ONLY: i64 = 8;
const DISK: i64 = 10;
const CORRUPT: i64 = 11;
const FULL: i64 = 13;
const CANNOT_OPEN: i64 = 14;
const CONSTRAINT: i64 = 19;
const NOT_A_DATABASE: i64 = 26;

/// The extended code of a commit that a commit hook refused.
const REFUSED_BY_THE_COMMIT_HOOK: &str = "531";

/// Which row is there already: of a primary key, of a unique index.
const THERE_ALREADY: [&str; 2] = ["1555", "2067"];

/// Whether an insert failed because its row is there already.
pub(super) fn is_there_already(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| THERE_ALREADY.contains(&&*code))
}

/// Whether a statement failed because it would have been committed alone.
pub(super) fn is_refused_commit(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == REFUSED_BY_THE_COMMIT_HOOK)
}

/// Whether a commit found no transaction.
pub(super) fn is_without_transaction(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.message().contains("no transaction is active"))
}

/// Why a handler's statement failed, if it is not the handler's doing.
pub(super) fn judge(error: &sqlx::Error) -> Option<Hindrance> {
    let is_read_only = primary_code(error) == Some(READ_ONLY);
    judge_reading(error).or(is_read_only.then_some(Hindrance::Away))
}

/// [`judge`] for a handler that may only read: that it may not write is no fault of the file.
pub(super) fn judge_reading(error: &sqlx::Error) -> Option<Hindrance> {
    let away = match error {
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => true,
        _ => primary_code(error).is_some_and(|code| [BUSY, DISK, FULL].contains(&code)),
    };
    away.then_some(Hindrance::Away)
}

/// The primary result code: the lowest byte of the code.
fn primary_code(error: &sqlx::Error) -> Option<i64> {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.and_then(|code| code.parse::<i64>().ok()).map(|code| code & 0xff)
}

/// The error with what to do about it.
pub(super) fn failed(store: &str, doing: Failed, error: &sqlx::Error) -> StoreError {
    let code = primary_code(error);
    let (store, text) = (store.to_owned(), error.to_string());
    let refused = |remedy: &str| StoreError::Refused { store: store.clone(), reason: format!("{text}; {remedy}") };
    let away = |remedy: &str| StoreError::Unavailable { store: store.clone(), reason: format!("{text}; {remedy}") };
    match code {
        Some(BUSY | LOCKED) => away("another process holds the file's lock; if it is not a service, end it"),
        Some(FULL) => away("make room on the disk"),
        Some(READ_ONLY) => away("let this user write the file and its folder"),
        Some(PERMISSION | CANNOT_OPEN) if doing == Failed::Opening => {
            refused("the folder must exist, and this user must be allowed to write there")
        }
        Some(PERMISSION | CANNOT_OPEN) => away("let this user write the file and its folder"),
        Some(NOT_A_DATABASE) => refused("it is no SQLite database; name another file"),
        Some(CORRUPT) => refused("the file is damaged; restore a copy of it"),
        Some(CONSTRAINT) if doing == Failed::Committing => StoreError::Constraint { reason: text },
        _ if doing == Failed::Preparing => refused("see the statements with which the service prepares its store"),
        _ if doing == Failed::Migrating => refused(
            "the tables that begin with postrider_ are not as this release made them; were they changed by hand?",
        ),
        _ => StoreError::Unavailable { store, reason: text },
    }
}
