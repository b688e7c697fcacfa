//! PostgreSQL's error codes as ours (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).

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

/// A row is there already.
pub(super) const THERE_ALREADY: &str = "23505";
/// A statement was cancelled, by a limit or by somebody.
const CANCELLED: &str = "57014";
/// A lock was not given within its limit.
const NO_LOCK: &str = "55P03";
/// The transaction has failed before and takes no more statements.
const FAILED_BEFORE: &str = "25P02";
/// The guard in front of a commit divides by zero if its transaction is over.
const GUARD: &str = "22012";
/// The transaction may only read.
const READ_ONLY: &str = "25006";
/// Two transactions cannot both be committed: not serializable, deadlock.
const CONFLICTS: [&str; 2] = ["40001", "40P01"];
/// Classes of errors of a server that is away, full, or ends its work.
const AWAY: [&str; 3] = ["08", "53", "57P"];
/// A right, a table or a column is missing.
const NO_RIGHT: &str = "42501";
const NO_TABLE: &str = "42P01";
const NO_COLUMN: &str = "42703";

/// Whether an insert failed because its row is there already.
pub(super) fn is_there_already(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some(THERE_ALREADY)
}

/// Why a handler's statement failed, if it is not the handler's doing.
pub(super) fn judge(error: &sqlx::Error) -> Option<Hindrance> {
    match code(error) {
        Some(code) if code == NO_LOCK || CONFLICTS.contains(&code.as_str()) => Some(Hindrance::Conflict),
        Some(code) if AWAY.iter().any(|class| code.starts_with(class)) => Some(Hindrance::Away),
        None if matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed) => {
            Some(Hindrance::Away)
        }
        _ => None,
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// The error with what to do about it.
pub(super) fn failed(store: &str, doing: Failed, error: &sqlx::Error) -> StoreError {
    let text = match error.as_database_error() {
        Some(database) => database.message().to_owned(),
        None => error.to_string(),
    };
    let store = store.to_owned();
    let refused = |remedy: &str| StoreError::Refused { store: store.clone(), reason: format!("{text}; {remedy}") };
    let away = |remedy: &str| StoreError::Unavailable { store: store.clone(), reason: format!("{text}{remedy}") };
    let Some(code) = code(error) else {
        return match doing {
            // The server may have committed before the connection was lost.
            Failed::Committing => StoreError::Unknown { store, reason: text },
            _ => away("; is the server up, and does the address name it?"),
        };
    };
    match (doing, code.as_str()) {
        (Failed::Preparing, code) if code.starts_with("42") && code != NO_RIGHT => {
            refused("see the statements with which the service prepares its store")
        }
        (_, code) if CONFLICTS.contains(&code) => StoreError::Conflict { store, reason: text },
        (_, NO_LOCK) => StoreError::Locked { store, reason: text },
        (_, READ_ONLY) => {
            away("; the server takes no writes: is it a replica, or is default_transaction_read_only set?")
        }
        (_, NO_RIGHT) => {
            refused("grant this user the right to create tables, or let an administrator run `postrider store migrate`")
        }
        (_, NO_TABLE | NO_COLUMN) => refused(
            "the tables that begin with postrider_ are not as this release made them; were they changed by hand?",
        ),
        (Failed::Committing, GUARD | FAILED_BEFORE) => StoreError::Ended { reason: text },
        // A deferred trigger that takes too long, for example. It would take as long again.
        (Failed::Committing, CANCELLED) => StoreError::Constraint { reason: text },
        // The server ended the connection, perhaps after it had committed.
        (Failed::Committing, code) if code.starts_with("57P") || code.starts_with("08") => {
            StoreError::Unknown { store, reason: text }
        }
        (Failed::Committing, code) if ["22", "23", "P0"].contains(&&code[..2]) => {
            StoreError::Constraint { reason: text }
        }
        (Failed::Opening, code) if code.starts_with("28") => refused("check user and password of the address"),
        (Failed::Opening, code) if code.starts_with("3D") => refused("create the database, or name another one"),
        (Failed::Migrating, code) if code.starts_with("42") => refused(
            "the tables that begin with postrider_ are not as this release made them; were they changed by hand?",
        ),
        _ => away(""),
    }
}
