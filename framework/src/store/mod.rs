//! The port to a service's database: transactions of handlers, the inbox and the outbox. It uses no client library.
//!
//! An adapter implements [`Store`], [`Session`] and [`Outbox`]. Postrider's tables stand in the user's database under the
//! prefix `postrider_`.

mod answer_limit;
mod database;
mod entry;
mod error;
#[cfg(feature = "testing")]
pub mod fault_points;
#[cfg(not(feature = "testing"))]
#[path = "no_fault_points.rs"]
mod fault_points;
mod handle;
mod outbox_row;
mod pool;
mod port;
mod status;
mod stored_answer;
mod stored_envelope;
mod tables;

pub(crate) use answer_limit::AnswerLimit;
pub use database::Database;
pub use entry::{InboxEntry, MAX_ID_BYTES};
pub use error::StoreError;
pub(crate) use fault_points::{FaultPoint, reach};
pub use handle::StoreHandle;
pub use outbox_row::{OutboxRow, StoredRow};
pub use pool::PooledSession;
pub use port::{
    Access, ActorNumber, Begun, Hindrance, JudgeError, News, Outbox, Page, Session, Store, TransactionLimits,
};
pub use status::{InboxStatus, ListedRow, OutboxStatus, StoreStatus};
pub use stored_answer::{MAX_ANSWER_BYTES, StoredAnswer};
pub use stored_envelope::UnreadableRow;
pub use tables::Tables;
