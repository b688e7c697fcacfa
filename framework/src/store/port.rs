//! The traits that an adapter for a database implements.

use std::any::Any;
use std::error::Error;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::store::{InboxEntry, ListedRow, OutboxRow, OutboxStatus, StoreError, StoreStatus, StoredAnswer, StoredRow};

/// The number under which the inbox knows an actor. The store gives it once per name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActorNumber(pub i16);

/// What a transaction may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read. On SQLite readers wait for nobody.
    Read,
    /// Read and write.
    Write,
}

/// How long a transaction may wait and last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionLimits {
    /// How long it waits for a lock that another transaction holds. Default: 5 s.
    pub lock: Duration,
    /// How long one statement may run, and the transaction may be idle: the handler's time-out.
    pub handler: Duration,
}

impl Default for TransactionLimits {
    fn default() -> Self {
        Self { lock: Duration::from_secs(5), handler: Duration::from_secs(30) }
    }
}

/// How a transaction began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// The message is new, and the transaction is open.
    New,
    /// The message was handled before; no transaction is open.
    Known(StoredAnswer),
    /// Another message with this id was handled before; no transaction is open.
    OtherContent,
}

/// A service's database. One value serves a process; it is cheap to share.
pub trait Store: Send + Sync {
    /// The database's name, such as `sqlite`.
    fn database(&self) -> &'static str;

    /// The store in logs and errors, without its password.
    fn describe(&self) -> &str;

    /// Whether one open transaction keeps all others waiting, so that a handler that waits for another one while its own is
    /// open could wait for itself.
    fn has_one_writer(&self) -> bool;

    /// Whether a session writes also after its transaction was ended by a handler. Then no two handlers share a transaction.
    fn writes_outside(&self) -> bool {
        false
    }

    /// A session for the calling thread.
    fn session(&self) -> BoxFuture<'_, Result<Box<dyn Session>, StoreError>>;

    /// The number of an actor, the same in all processes for ever.
    fn actor<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ActorNumber, StoreError>>;

    /// The outbox, for the relay.
    fn outbox(&self) -> BoxFuture<'_, Result<Box<dyn Outbox>, StoreError>>;

    /// Hears when other processes have committed rows.
    fn news(&self) -> BoxFuture<'_, Result<Box<dyn News>, StoreError>>;

    /// Forgets at most `most` messages that were handled longer ago than `older`. Returns how many there were.
    fn forget_handled(&self, older: Duration, most: usize) -> BoxFuture<'_, Result<usize, StoreError>>;

    /// Forgets at most `most` sent messages that were kept longer than this. Returns how many there were.
    fn forget_sent(&self, older: Duration, most: usize) -> BoxFuture<'_, Result<usize, StoreError>>;

    /// Runs statements of the service's own in one transaction. Of several processes one does it at a time.
    fn prepare<'a>(&'a self, statements: &'a str) -> BoxFuture<'a, Result<(), StoreError>>;

    /// What it holds.
    fn status(&self) -> BoxFuture<'_, Result<StoreStatus, StoreError>>;

    /// Settings of the database that break a promise, one sentence each.
    fn check(&self) -> BoxFuture<'_, Result<Vec<String>, StoreError>>;

    /// Closes what this process has open.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Why a statement failed, if it is not the handler's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hindrance {
    /// Another transaction was in the way; the same work may succeed at once.
    Conflict,
    /// The database is away, full, or ends its work.
    Away,
}

/// Tells whether an error of the database's client is not the handler's doing.
pub type JudgeError = fn(&(dyn Error + 'static)) -> Option<Hindrance>;

/// A connection, and at most one open transaction on it. After an error the session is dropped, and the adapter sees to it that
/// nothing of it goes on at the database.
pub trait Session: Send {
    /// Begins a transaction. With an entry it also notes the message as handled.
    ///
    /// Not cancel safe: the caller awaits it to the end.
    fn begin<'a>(
        &'a mut self,
        access: Access,
        entry: Option<&'a InboxEntry>,
        limits: TransactionLimits,
    ) -> BoxFuture<'a, Result<Begun, StoreError>>;

    /// Writes the answer for the entry that the transaction began with, and the rows of the outbox, and commits. Counts as
    /// committed only if the database said so.
    fn commit<'a>(
        &'a mut self,
        answer: &'a StoredAnswer,
        rows: &'a [OutboxRow],
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Begins a transaction in which several messages are handled, one after the other. Notes nothing yet. Returns what the inbox
    /// knows, in the order of the entries.
    ///
    /// Not cancel safe: the caller awaits it to the end.
    fn begin_together<'a>(
        &'a mut self,
        entries: &'a [InboxEntry],
        limits: TransactionLimits,
    ) -> BoxFuture<'a, Result<Vec<Begun>, StoreError>>;

    /// Notes the messages as handled, with their answers, writes the rows of the outbox, and commits. Fails if another
    /// transaction has noted one of them since.
    fn commit_together<'a>(
        &'a mut self,
        handled: &'a [(InboxEntry, StoredAnswer)],
        rows: &'a [OutboxRow],
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Ends the transaction without its effects. Also ends a statement that still runs.
    fn roll_back(&mut self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Begins, notes the message, writes the rows and commits, at once.
    fn write<'a>(
        &'a mut self,
        entry: Option<(&'a InboxEntry, &'a StoredAnswer)>,
        rows: &'a [OutboxRow],
        limits: TransactionLimits,
    ) -> BoxFuture<'a, Result<Begun, StoreError>>;

    /// Whether the message was handled, in a transaction that was committed.
    fn known<'a>(&'a mut self, entry: &'a InboxEntry) -> BoxFuture<'a, Result<Option<Begun>, StoreError>>;

    /// Forgets that the message was handled.
    fn forget<'a>(&'a mut self, entry: &'a InboxEntry) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Whether another transaction may begin on it. If not, it is dropped.
    fn is_usable(&self) -> bool;

    /// Tells whether an error of the client is not the handler's doing.
    fn judge_error(&self) -> JudgeError;

    /// The database client's connection, on which the transaction is open.
    fn connection(&mut self) -> Option<&mut dyn Any>;
}

/// What the relay asks of the outbox in one look.
#[derive(Debug, Clone)]
pub struct Page<'a> {
    /// Without rows of these addresses.
    pub without: &'a [String],
    /// At most so many rows.
    pub rows: usize,
    /// At most so many bytes, but at least one row.
    pub bytes: usize,
}

/// Hears when other processes have committed rows.
pub trait News: Send {
    /// Waits for the next news. On a database that tells none it waits for ever.
    fn next(&mut self) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// The messages that committed transactions want to send.
pub trait Outbox: Send {
    /// Whether a row waits. Writes nothing.
    fn has_rows(&mut self) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Takes a right that one process has at a time, or prolongs it, by the database's clock. Returns whether this holder has it.
    fn take_lease<'a>(
        &'a mut self,
        name: &'a str,
        holder: &'a str,
        lasts: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Gives a right up, if this holder has it.
    fn give_up_lease<'a>(&'a mut self, name: &'a str, holder: &'a str) -> BoxFuture<'a, Result<(), StoreError>>;

    /// The next rows that wait, in their order.
    fn page<'a>(&'a mut self, page: &'a Page<'a>) -> BoxFuture<'a, Result<Vec<StoredRow>, StoreError>>;

    /// Removes rows whose messages were confirmed.
    fn remove<'a>(&'a mut self, numbers: &'a [i64]) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Moves rows that were sent out of the outbox, to where they are kept.
    fn keep_sent<'a>(&'a mut self, numbers: &'a [i64]) -> BoxFuture<'a, Result<(), StoreError>>;

    /// The rows that were sent last and are kept, the newest first. Their age counts from then on.
    fn sent(&mut self, most: usize) -> BoxFuture<'_, Result<Vec<ListedRow>, StoreError>>;

    /// Puts a row aside that cannot be sent, with the reason. Later rows of its address wait behind it.
    fn park<'a>(&'a mut self, number: i64, reason: &'a str) -> BoxFuture<'a, Result<(), StoreError>>;

    /// The addresses of rows that were put aside.
    fn parked_addresses(&mut self) -> BoxFuture<'_, Result<Vec<String>, StoreError>>;

    /// What stands in it.
    fn status(&mut self) -> BoxFuture<'_, Result<OutboxStatus, StoreError>>;

    /// The first rows, in their order.
    fn list(&mut self, most: usize) -> BoxFuture<'_, Result<Vec<ListedRow>, StoreError>>;

    /// One of the rows that were sent and are kept. Its age counts from then on.
    fn sent_row(&mut self, number: i64) -> BoxFuture<'_, Result<Option<StoredRow>, StoreError>>;

    /// One row; `None` if there is none of this number.
    fn row(&mut self, number: i64) -> BoxFuture<'_, Result<Option<StoredRow>, StoreError>>;

    /// Sends a row that was put aside after all, or all such rows. Returns how many there were.
    fn retry(&mut self, number: Option<i64>) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Tells the other processes that there are rows. Those that hear nothing look by themselves.
    fn tell_others(&mut self) -> BoxFuture<'_, Result<(), StoreError>>;
}
