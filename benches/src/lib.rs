//! What the measured programs share: the message, the meter, and how they talk to whoever measures them.

pub mod measured;
pub mod signal;
pub mod tally;
pub mod work;

/// What every role of a measured program may end with.
pub type Failed = Box<dyn std::error::Error + Send + Sync>;
