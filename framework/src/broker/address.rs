//! Where a message goes, and how one that has arrived was addressed. How a broker routes it is its adapter's affair.

use std::sync::Arc;

use crate::message::Kind;

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// To whoever handles a key: the owner of a command or query, all who have subscribed to an event, a channel of a service.
    Key {
        /// The kind of the message.
        kind: Kind,
        /// The service, if the message is for one by name.
        service: Option<Arc<str>>,
        /// The key.
        key: Arc<str>,
    },
    /// Straight into a queue: a retry, a dead letter, a reply.
    Queue(Arc<str>),
}

impl To {
    /// To a key, with `service:` in front of it if the message is for one service by name. A reply has a queue in place of a key.
    #[must_use]
    pub fn key(kind: Kind, key: &Arc<str>) -> Self {
        if kind == Kind::Reply {
            return Self::Queue(Arc::clone(key));
        }
        match key.split_once(':') {
            Some((service, key)) => Self::Key { kind, service: Some(service.into()), key: key.into() },
            None => Self::Key { kind, service: None, key: Arc::clone(key) },
        }
    }

    /// The key with `service:` in front if the message is for one by name, or the queue.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        match self {
            Self::Key { service: Some(service), key, .. } => format!("{service}:{key}").into(),
            Self::Key { service: None, key, .. } => Arc::clone(key),
            Self::Queue(queue) => Arc::clone(queue),
        }
    }
}

/// How a message was addressed that has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
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
    /// The key or the queue.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::Key { key: name, .. } | Self::Queue(name) | Self::Delay(name) | Self::Foreign(name) => name,
        }
    }

    /// Whether the message is not where its sender has sent it, but was moved: its key is in its properties then.
    #[must_use]
    pub fn is_moved(&self) -> bool {
        matches!(self, Self::Queue(_) | Self::Delay(_))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_goes_to_a_queue_whatever_its_name() {
        let address: Arc<str> = "amq.rabbitmq.reply-to.made:up".into();
        assert_eq!(To::key(Kind::Reply, &address), To::Queue(address));
    }
}
