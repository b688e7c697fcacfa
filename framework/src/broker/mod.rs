//! The port to the broker: what an adapter must do, and the values it does it with. No client library here.
//!
//! An adapter implements [`Broker`], [`Publisher`] and [`Consumer`]; `postrider::testing::conformance` has the
//! suite it must pass.

mod address;
#[cfg(test)]
pub(crate) mod any;
mod capabilities;
mod death;
mod delay;
mod delivery;
mod direct_reply;
#[cfg(test)]
pub(crate) mod double;
mod error;
pub(crate) mod fit;
mod names;
mod port;
mod topology;
pub(crate) mod wire;

pub use address::{Origin, To};
pub use capabilities::{Capabilities, MessageLimits, Need, Patterns, Settles, Taps};
pub(crate) use death::{DEAD, note_broker_death};
pub use delay::{
    MAX_DELAY, delay_levels, delay_return, delayed_publish, delayed_to_queue, due, due_queue, due_topology,
};
pub use delivery::{Answered, Delivery, DeliveryChannel, Receipt};
pub use error::BrokerError;
pub use names::Names;
pub use postrider_grammar::matches;

pub(crate) use direct_reply::{DIRECT_REPLY_TO, is_direct_reply};
pub(crate) use fit::fit_into_frame;
pub use port::{
    Addressed, Broker, ConnectionState, Consumer, ConsumerSpec, Publication, Publisher, QueueState, ReplyEvent,
    ReplySink,
};
pub use topology::{Binding, Destination, Exchange, ExchangeKind, Queue, Topology};
pub(crate) use wire::{
    ATTEMPT, CUT_HEADERS, HOME, KIND, MAX_EXPIRATION, ORIGINAL_EXPIRATION, ORIGINAL_TYPE, REPLAYED, UNREADABLE,
    check_size, is_of_one_delivery, seal_owned, strip,
};
pub use wire::{MAX_PROPERTIES_BYTES, Properties, is_reserved_header, open, seal};
