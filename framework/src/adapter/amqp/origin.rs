//! How the sender addressed a received message, derived from its exchange and routing key.

use std::sync::Arc;

use crate::broker::{Names, To};
use crate::message::{Key, Kind, Name, shared};

/// How the sender addressed a received message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// To a key. The key starts with `service:` if the message is for one service by name.
    Key {
        /// The kind of the message.
        kind: Kind,
        /// The key.
        key: Arc<str>,
    },
    /// Straight to this queue.
    Queue(Arc<str>),
    /// Out of a delay. This routing key is the one of the delay levels; the message's own key is in its properties.
    Delay(Arc<str>),
    /// To an exchange that is not Postrider's, with this key.
    Foreign(Arc<str>),
}

impl Default for Origin {
    fn default() -> Self {
        Self::Queue(Arc::default())
    }
}

impl Origin {
    /// The origin of a message that was published to this exchange with this routing key.
    pub(crate) fn of(names: &Names, exchange: &str, routing_key: Arc<str>) -> Self {
        match names.kind_of(exchange) {
            Some(kind) => Self::Key { kind, key: routing_key },
            None if exchange.is_empty() => Self::Queue(routing_key),
            None if names.is_delay(exchange) => Self::Delay(routing_key),
            None => Self::Foreign(routing_key),
        }
    }

    /// The routing key; for a message sent straight to a queue, the queue's name.
    pub(crate) fn name(&self) -> &Arc<str> {
        match self {
            Self::Key { key: name, .. } | Self::Queue(name) | Self::Delay(name) | Self::Foreign(name) => name,
        }
    }
}

impl From<&To> for Origin {
    fn from(to: &To) -> Self {
        match to {
            To::Key { kind: Kind::Reply, .. } | To::Queue(_) => Self::Queue(to.name()),
            To::Key { kind, .. } => Self::Key { kind: *kind, key: to.name() },
        }
    }
}

/// Splits `service:key` into the service and the key. The service is `None` for a plain key and for events.
pub(in crate::adapter) fn split(kind: Kind, address: &Arc<str>) -> (Option<Name>, Key) {
    match address.split_once(':') {
        Some((service, key)) if kind != Kind::Event => {
            (Some(Name::from_wire(shared(service))), Key::from_wire(shared(key)))
        }
        _ => (None, Key::from_wire(Arc::clone(address))),
    }
}
