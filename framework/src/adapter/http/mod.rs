//! HTTP: health for those who watch over processes, and the management API of RabbitMQ.

mod health;
mod management;

pub use health::{Readiness, listen, serve};
pub use management::{Management, QueueInfo};
