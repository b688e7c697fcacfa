//! The default prefetch, and how long RabbitMQ lets a delivery be unacknowledged.

use std::time::Duration;

/// The most deliveries that a queue's consumer holds by default. Set explicitly, it means the same: lowered to what fits.
pub const DEFAULT_PREFETCH: u16 = 64;

/// How long RabbitMQ lets a delivery stay unacknowledged, unless it is configured otherwise
/// (<https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout>).
pub const CONSUMER_TIMEOUT: Duration = Duration::from_secs(30 * 60);
