//! How a message was addressed that has arrived, as exchange and routing key tell.

use std::sync::Arc;

use crate::broker::{Names, To};
use crate::message::{Key, Kind, Name, shared};

/// How a message was addressed that has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// To a key; `service:` stands in front of it if the message was for one service by name.
    Key {
        /// The kind of the message.
        kind: Kind,
        /// The key.
        key: Arc<str>,
    },
    /// Straight to this queue.
    Queue(Arc<str>),
    /// It comes from a delay. What is here instead of its key says nothing; its properties say where it belongs.
    Delay(Arc<str>),
    /// By a way of its sender's own, with this key.
    Foreign(Arc<str>),
}

impl Default for Origin {
    fn default() -> Self {
        Self::Queue(Arc::default())
    }
}

impl Origin {
    /// How a message was addressed that was published to this exchange with this routing key.
    pub(crate) fn of(names: &Names, exchange: &str, routing_key: Arc<str>) -> Self {
        match names.kind_of(exchange) {
            Some(kind) => Self::Key { kind, key: routing_key },
            None if exchange.is_empty() => Self::Queue(routing_key),
            None if names.is_delay(exchange) => Self::Delay(routing_key),
            None => Self::Foreign(routing_key),
        }
    }

    /// The key or the queue.
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

/// The service, if a message is for one by name, and the key.
pub(in crate::adapter) fn split(kind: Kind, address: &Arc<str>) -> (Option<Name>, Key) {
    match address.split_once(':') {
        Some((service, key)) if kind != Kind::Event => {
            (Some(Name::from_wire(shared(service))), Key::from_wire(shared(key)))
        }
        _ => (None, Key::from_wire(Arc::clone(address))),
    }
}
