//! The rules for the names that Postrider writes on the network: words, routing keys, event patterns,
//! queue names, durations, retry plans and prefetch. The framework checks them at run time, `#[distributed]` at compile time; both
//! use this crate.
//!
//! ```
//! use postrider_grammar::{check_key, matches, patterns_overlap};
//!
//! assert!(check_key("invoice.create").is_ok());
//! assert!(matches("payment.*", "payment.taken"));
//! assert!(patterns_overlap("payment.*", "*.taken"));
//! ```

mod duration;
mod name;
mod pattern;
mod prefetch;
mod retry;

pub use duration::{parse_duration, show_duration};
pub use name::{
    MAX_KEY_BYTES, NameError, RESERVED_QUEUES, RESERVED_SERVICES, check_key, check_queue, check_service, check_word,
    domain,
};
pub use pattern::{check_pattern, is_wildcard, matches, patterns_overlap};
pub use prefetch::{CONSUMER_TIMEOUT, DEFAULT_PREFETCH};
pub use retry::{Delays, MAX_DELAY, MAX_DELAYED, MAX_IN_PLACE, MIN_DELAY, NextAttempt, Retry, RetryError};
