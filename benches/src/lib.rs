//! Code that the measured programs share: the message, the meter, and the protocol with the measuring program.

pub mod measured;
pub mod signal;
pub mod tally;
pub mod work;

/// The error type of every role.
pub type Failed = Box<dyn std::error::Error + Send + Sync>;
