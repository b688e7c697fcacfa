//! The port to the broker: the traits that an adapter implements and their values. It uses no client library.
//!
//! An adapter implements [`Broker`], [`Publisher`] and [`Consumer`]; `postrider::testing::conformance` has the suite it
//! must pass.

mod address;
#[cfg(test)]
pub(crate) mod any;
mod capabilities;
mod delivery;
mod direct_reply;
#[cfg(test)]
pub(crate) mod double;
mod due;
mod error;
pub(crate) mod fit;
pub(crate) mod headers;
mod names;
mod own_words;
mod port;
mod queue_registry;
mod registry;
mod topology;

pub use address::To;
pub use capabilities::{Capabilities, MessageLimits, Need, Patterns, Settles, Taps};
pub use delivery::{Answered, Delivery, DeliveryChannel, Receipt};
pub use error::BrokerError;
pub use names::Names;
pub use postrider_grammar::matches;

pub(crate) use direct_reply::{DIRECT_REPLY_TO, is_direct_reply};
pub use due::{due_queue, due_topology};
pub(crate) use fit::fit_into_frame;
pub(crate) use headers::{
    ATTEMPT, DEAD, FIRST_ERROR, HOME, KIND, MAX_EXPIRATION, REPLAYED, SKEWED_SINCE, is_of_earlier_attempts,
    is_of_one_delivery, remove_header, resume_expiration, size, strip, suspend_expiration, unreadable_because,
};
pub use headers::{
    HeaderValue, MAX_PROPERTIES_BYTES, MAX_TEXT_BYTES, is_reserved_header, read_header, reset_claimed_attempts,
    write_headers,
};
pub use own_words::{OwnDeclaration, OwnSubscription, OwnWords};
pub use port::{
    Addressed, Broker, ConnectionState, Consumer, ConsumerSpec, Publication, Publisher, QueueState, ReplyEvent,
    ReplySink,
};
pub use queue_registry::QueueRegistry;
pub use registry::Registry;
pub use topology::{Claim, Durability, Queue, QueueLimit, Source, Subscription, Target, Topology, WhenFull};
