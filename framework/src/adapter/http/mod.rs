//! HTTP: the health endpoints of a process, and a client for RabbitMQ's management API.

mod health;
mod management;

pub use health::{Readiness, listen, serve};
pub use management::{Management, QueueInfo};
