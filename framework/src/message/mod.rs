//! The values in a message: kinds, keys, headers and the envelope. No I/O, no async.

mod content_encoding;
mod contract;
mod envelope;
mod foreign;
mod id;
mod key;
mod kind;
mod log_limit;
mod media_type;
mod problem;
mod recent;
mod secret;
mod value;

pub use content_encoding::ContentEncoding;
pub use contract::{Command, Contract, Event, Query, Request};
pub use envelope::{Envelope, ReplyTo, Status};
pub use foreign::Foreign;
pub use id::MessageId;
pub use key::{Key, Name};
pub use kind::Kind;
pub use log_limit::{LOG_INTERVAL, LOG_LINES};
pub(crate) use log_limit::{is_logged, tell_all_that_was_left_out, tell_what_was_left_out};
pub use media_type::MediaType;
pub use problem::Problem;
pub(crate) use recent::shared;
pub use secret::Secret;
pub use value::{Headers, Value};
