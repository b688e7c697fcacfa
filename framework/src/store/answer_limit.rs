//! A limit on how long a store may take to answer. A server that is frozen, or a connection that swallows what is sent, would
//! otherwise hold up its users for ever.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use crate::store::{
    Access, ActorNumber, Begun, InboxEntry, JudgeError, ListedRow, News, Outbox, OutboxRow, OutboxStatus, Page,
    Session, Store, StoreError, StoreStatus, StoredAnswer, StoredRow, TransactionLimits,
};

/// How long an answer may take, beyond what the database itself may wait.
const ANSWER_FOR: Duration = Duration::from_secs(15);
/// How long statements of the service's own may take at its start: others may prepare, and an index over many rows takes its time.
const PREPARE_FOR: Duration = Duration::from_secs(300);
/// How long closing may take.
const CLOSE_FOR: Duration = Duration::from_secs(5);

/// A store whose answers have a time limit.
pub(crate) struct AnswerLimit(pub(crate) Arc<dyn Store>);

struct LimitedSession {
    store: String,
    /// `None` after an answer came too late: nobody knows what the connection does then.
    session: Option<Box<dyn Session>>,
    /// How long the open transaction may take.
    limits: TransactionLimits,
}

struct LimitedOutbox {
    store: String,
    limit: Duration,
    outbox: Box<dyn Outbox>,
}

fn late(store: &str, limit: Duration) -> StoreError {
    StoreError::Unavailable {
        store: store.to_owned(),
        reason: format!("no answer within {limit:?}; is the server up?"),
    }
}

async fn within<T>(
    store: &str,
    limit: Duration,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    timeout(limit, answer).await.unwrap_or_else(|_| Err(late(store, limit)))
}

impl Store for AnswerLimit {
    fn database(&self) -> &'static str {
        self.0.database()
    }

    fn describe(&self) -> &str {
        self.0.describe()
    }

    fn has_one_writer(&self) -> bool {
        self.0.has_one_writer()
    }

    fn writes_outside(&self) -> bool {
        self.0.writes_outside()
    }

    fn session(&self) -> BoxFuture<'_, Result<Box<dyn Session>, StoreError>> {
        Box::pin(async move {
            let session = Some(within(self.describe(), ANSWER_FOR, self.0.session()).await?);
            let limits = TransactionLimits::default();
            Ok(Box::new(LimitedSession { store: self.describe().to_owned(), session, limits }) as Box<dyn Session>)
        })
    }

    fn actor<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ActorNumber, StoreError>> {
        Box::pin(within(self.describe(), ANSWER_FOR, self.0.actor(name)))
    }

    fn outbox(&self) -> BoxFuture<'_, Result<Box<dyn Outbox>, StoreError>> {
        Box::pin(async move {
            let outbox = within(self.describe(), ANSWER_FOR, self.0.outbox()).await?;
            // Behind the one writer it may have to wait for a handler.
            let limit =
                if self.has_one_writer() { ANSWER_FOR + TransactionLimits::default().handler } else { ANSWER_FOR };
            Ok(Box::new(LimitedOutbox { store: self.describe().to_owned(), limit, outbox }) as Box<dyn Outbox>)
        })
    }

    fn news(&self) -> BoxFuture<'_, Result<Box<dyn News>, StoreError>> {
        Box::pin(within(self.describe(), ANSWER_FOR, self.0.news()))
    }

    fn forget_handled(&self, older: Duration, most: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        Box::pin(within(self.describe(), ANSWER_FOR, self.0.forget_handled(older, most)))
    }

    fn forget_sent(&self, older: Duration, most: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        Box::pin(within(self.describe(), ANSWER_FOR, self.0.forget_sent(older, most)))
    }

    fn prepare<'a>(&'a self, statements: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(within(self.describe(), PREPARE_FOR, self.0.prepare(statements)))
    }

    fn status(&self) -> BoxFuture<'_, Result<StoreStatus, StoreError>> {
        Box::pin(within(self.describe(), 4 * ANSWER_FOR, self.0.status()))
    }

    fn check(&self) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        Box::pin(within(self.describe(), ANSWER_FOR, self.0.check()))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if timeout(CLOSE_FOR, self.0.close()).await.is_err() {
                tracing::warn!(store = self.describe(), "a transaction is still open; it ends with the process");
            }
        })
    }
}

impl LimitedSession {
    /// How long a step of the transaction may take: the database waits for locks, and ends statements that last too long.
    fn longest(&self) -> Duration {
        self.limits.handler.max(self.limits.lock).saturating_add(ANSWER_FOR)
    }

    fn open(&mut self) -> Result<&mut dyn Session, StoreError> {
        let closed = || StoreError::Ended { reason: "its connection was closed".into() };
        match &mut self.session {
            Some(session) => Ok(&mut **session),
            None => Err(closed()),
        }
    }

    fn judge<T>(
        &mut self,
        answer: Result<Result<T, StoreError>, Elapsed>,
        late: impl FnOnce(&str) -> StoreError,
    ) -> Result<T, StoreError> {
        answer.unwrap_or_else(|_| {
            self.session = None;
            Err(late(&self.store))
        })
    }
}

/// Asks the session within a limit. If the answer comes too late, the session is closed.
macro_rules! ask {
    ($self:ident, $call:ident($($given:expr),*), $limit:expr) => {
        ask!($self, $call($($given),*), $limit, |store: &str| late(store, $limit))
    };
    ($self:ident, $call:ident($($given:expr),*), $limit:expr, $late:expr) => {{
        let limit = $limit;
        let answer = timeout(limit, $self.open()?.$call($($given),*)).await;
        let late = $late;
        $self.judge(answer, late)
    }};
}

/// The answer to a commit came too late: it may have taken place.
fn unknown(limit: Duration) -> impl FnOnce(&str) -> StoreError {
    move |store| StoreError::Unknown { store: store.to_owned(), reason: format!("no answer within {limit:?}") }
}

impl Session for LimitedSession {
    fn begin<'a>(
        &'a mut self,
        access: Access,
        entry: Option<&'a InboxEntry>,
        limits: TransactionLimits,
    ) -> BoxFuture<'a, Result<Begun, StoreError>> {
        self.limits = limits;
        let limit = self.longest();
        Box::pin(async move { ask!(self, begin(access, entry, limits), limit) })
    }

    fn commit<'a>(
        &'a mut self,
        answer: &'a StoredAnswer,
        rows: &'a [OutboxRow],
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let limit = self.longest();
        Box::pin(async move { ask!(self, commit(answer, rows), limit, unknown(limit)) })
    }

    fn begin_together<'a>(
        &'a mut self,
        entries: &'a [InboxEntry],
        limits: TransactionLimits,
    ) -> BoxFuture<'a, Result<Vec<Begun>, StoreError>> {
        self.limits = limits;
        let limit = self.longest();
        Box::pin(async move { ask!(self, begin_together(entries, limits), limit) })
    }

    fn commit_together<'a>(
        &'a mut self,
        handled: &'a [(InboxEntry, StoredAnswer)],
        rows: &'a [OutboxRow],
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let limit = self.longest();
        Box::pin(async move { ask!(self, commit_together(handled, rows), limit, unknown(limit)) })
    }

    fn roll_back(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            // A closed session has no transaction.
            if self.session.is_none() {
                return Ok(());
            }
            ask!(self, roll_back(), ANSWER_FOR)
        })
    }

    fn write<'a>(
        &'a mut self,
        entry: Option<(&'a InboxEntry, &'a StoredAnswer)>,
        rows: &'a [OutboxRow],
        limits: TransactionLimits,
    ) -> BoxFuture<'a, Result<Begun, StoreError>> {
        self.limits = limits;
        let limit = self.longest();
        Box::pin(async move { ask!(self, write(entry, rows, limits), limit, unknown(limit)) })
    }

    fn known<'a>(&'a mut self, entry: &'a InboxEntry) -> BoxFuture<'a, Result<Option<Begun>, StoreError>> {
        Box::pin(async move { ask!(self, known(entry), ANSWER_FOR) })
    }

    fn forget<'a>(&'a mut self, entry: &'a InboxEntry) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move { ask!(self, forget(entry), ANSWER_FOR) })
    }

    fn is_usable(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_usable())
    }

    fn judge_error(&self) -> JudgeError {
        self.session.as_ref().map_or(|_| None, |session| session.judge_error())
    }

    fn connection(&mut self) -> Option<&mut dyn Any> {
        self.session.as_mut()?.connection()
    }
}

macro_rules! limited {
    ($($(#[$doc:meta])* fn $name:ident<$life:lifetime>($($given:ident: $type:ty),*) -> $answer:ty;)*) => {
        impl Outbox for LimitedOutbox {
            $(fn $name<$life>(&$life mut self $(, $given: $type)*) -> BoxFuture<$life, Result<$answer, StoreError>> {
                Box::pin(within(&self.store, self.limit, self.outbox.$name($($given),*)))
            })*
        }
    };
}

limited! {
    fn has_rows<'a>() -> bool;
    fn take_lease<'a>(name: &'a str, holder: &'a str, lasts: Duration) -> bool;
    fn give_up_lease<'a>(name: &'a str, holder: &'a str) -> ();
    fn page<'a>(page: &'a Page<'a>) -> Vec<StoredRow>;
    fn remove<'a>(numbers: &'a [i64]) -> ();
    fn keep_sent<'a>(numbers: &'a [i64]) -> ();
    fn sent<'a>(most: usize) -> Vec<ListedRow>;
    fn park<'a>(number: i64, reason: &'a str) -> ();
    fn parked_addresses<'a>() -> Vec<String>;
    fn status<'a>() -> OutboxStatus;
    fn list<'a>(most: usize) -> Vec<ListedRow>;
    fn sent_row<'a>(number: i64) -> Option<StoredRow>;
    fn row<'a>(number: i64) -> Option<StoredRow>;
    fn retry<'a>(number: Option<i64>) -> u64;
    fn tell_others<'a>() -> ();
}
