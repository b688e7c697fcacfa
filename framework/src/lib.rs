//! Postrider makes a service an actor system: handler methods carry `#[distributed(command = "…")]`, a bridge actor maps
//! their keys to RabbitMQ exchanges, and every delivery arrives in the actor's mailbox. With no broker configured the
//! same binary runs on a broker inside the process.
//!
//! ```no_run
//! use postrider::{App, Context, Failure, Payload, distributed};
//!
//! /// Memory is this instance's own and may be rebuilt at any time.
//! #[derive(Default)]
//! struct Invoicing {
//!     issued: u64,
//! }
//!
//! #[distributed(service = "invoice")]
//! impl Invoicing {
//!     #[distributed(command = "invoice.create")]
//!     async fn create(&mut self, order: String, cx: &Context) -> Result<u64, Failure> {
//!         self.issued += 1;
//!         cx.publish_key("invoice.created", Payload::json(&order))?; // leaves only if this handler succeeds
//!         Ok(self.issued) // the reply, if the caller awaits one
//!     }
//!
//!     #[distributed(query = "invoice.issued")]
//!     async fn issued(&self, _: ()) -> Result<u64, Failure> {
//!         Ok(self.issued)
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     postrider::main(App::new("invoice").actor(Invoicing::default))
//! }
//! ```
//!
//! # The one idea
//!
//! Actor = mailbox = queue. A service actor has one mailbox; the broker queue of the same name is its durable end, and
//! prefetch is its free space. Both are first in, first out. While an actor is slow, the broker stops sending. A second
//! instance competes for the same queue; another *service* has its own queue and its own copy. `&self` handlers run
//! concurrently, `&mut self` handlers alone and in delivery order. No handler needs a lock.
//!
//! # The flow
//!
//! ```text
//! broker ─Delivery─▶ inbound ─Deliver─▶ host ─Invocation─▶ handler
//! broker ◀─ack, retry, dead letter─ inbound ◀─Outcome─ host
//! handler ─Outgoing─▶ bus ─Envelope─▶ route ─▶ broker ─▶ Publication
//! ```
//!
//! # The parts, in reading order
//!
//! [`supervise`] tasks that are restarted · [`message`] the values in a message · [`codec`] values to bytes ·
//! [`broker`] the port to brokers · [`store`] the port to databases · [`bus`] sending messages · [`handler`] what a handler receives and returns · [`host`] the
//! actor that owns the state · [`inbound`] the bridge · [`app`] the process · [`operate`] tools for operators ·
//! [`adapter`] RabbitMQ and the in-process broker · `testing` for your tests.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `compression` | yes | bodies in gzip and zstd |
//! | `tls` | yes | `amqps://` through rustls |
//! | `postgres` | no | stores in PostgreSQL databases |
//! | `sqlite` | no | stores in SQLite files: `effectively_once`, [`Tx`] |
//! | `testing` | no | [`testing`]: `TestApp`, `#[postrider::test]`, conformance suites |
//!
//! # What it is not
//!
//! No broker that outgrows one process, no other runtime than actix and tokio, no global order, no exactly-once
//! *delivery*, no hidden reflection: the handlers of a service are a table that can be printed.

pub mod supervise;

pub mod message;

pub mod codec;

pub mod broker;

pub mod store;

pub mod bus;

pub mod handler;

pub mod host;

pub mod inbound;

pub mod app;

pub mod operate;

pub mod adapter;

#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "postgres")]
pub use adapter::postgres::Postgres;
#[cfg(feature = "sql")]
pub use adapter::sql::sqlx;
#[cfg(feature = "sqlite")]
pub use adapter::sqlite::Sqlite;
pub use app::{App, Config, Running, Setup, StartError, WaitError};
pub use broker::BrokerError;
pub use bus::{Bus, Options, Payload, RemoteError, RequestError, SendError, Stats, TapFilter, Transaction};
pub use handler::{
    AnyTx, Authorization, Context, Delays, Failure, FromContext, HandlerError, Invocation, Middleware, Next, Outcome,
    Retry, Tx,
};
pub use message::{ContentEncoding, Envelope, Headers, Kind, MediaType, MessageId, Problem, Secret, Value};
pub use operate::{main, print_line};
pub use store::StoreError;

pub use postrider_macros::{Command, Event, HandlerError, Query, distributed, test};

pub use bytes::Bytes;
pub use tokio_util::sync::CancellationToken;

#[doc(hidden)]
pub use handler::private;
