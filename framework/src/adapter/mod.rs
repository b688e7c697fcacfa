//! Adapters: the only place that names a client library.

pub(crate) mod amqp;
mod any_db;
pub mod http;
pub mod in_process;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
#[cfg(feature = "sql")]
pub mod sql;
#[cfg(feature = "sqlite")]
pub mod sqlite;
