//! Adapters: the only place that names a client library.

pub mod http;
pub mod in_process;
pub mod rabbitmq;
