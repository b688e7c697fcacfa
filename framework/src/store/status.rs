//! What a store holds, for people.

use std::time::Duration;

use serde::Serialize;

/// What stands in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct OutboxStatus {
    /// Rows that wait to be sent.
    pub waiting: u64,
    /// How long the oldest of them waits.
    pub oldest: Option<Duration>,
    /// Rows that were put aside because they cannot be sent.
    pub parked: u64,
}

/// What stands in the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct InboxStatus {
    /// Messages that it remembers; on PostgreSQL an estimate.
    pub rows: u64,
    /// Bytes on disk, its indices included.
    pub bytes: u64,
    /// How long ago the oldest of them was handled.
    pub oldest: Option<Duration>,
}

/// What a store holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoreStatus {
    /// The store, without its password.
    pub store: String,
    /// The version of its tables.
    pub version: i64,
    /// The inbox, of all namespaces.
    pub inbox: InboxStatus,
    /// The outbox of this namespace.
    pub outbox: OutboxStatus,
    /// Who sends from the outbox right now, or sent last.
    pub relay: Option<String>,
    /// How long the server's longest open transaction has been open. While it is, removed rows take up room.
    pub longest_transaction: Option<Duration>,
}

/// A row of the outbox in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedRow {
    /// Its number.
    pub number: i64,
    /// Kind and key, or the service it is sent to by name.
    pub address: String,
    /// How long ago it was written, in seconds.
    pub age_seconds: u64,
    /// The bytes of its envelope.
    pub bytes: u64,
    /// Why it was put aside.
    pub parked_because: Option<String>,
}
