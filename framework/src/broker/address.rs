//! Where a message goes. The adapter decides how the broker routes it.

use std::sync::Arc;

use crate::message::Kind;

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// To the handlers of a key: the owner of a command or query, all subscribers of an event, a channel of a service.
    Key {
        /// The kind of the message.
        kind: Kind,
        /// The service, if the message is addressed to one by name.
        service: Option<Arc<str>>,
        /// The key.
        key: Arc<str>,
    },
    /// Straight into a queue: a retry, a dead letter, a reply.
    Queue(Arc<str>),
}

impl To {
    /// To a key, with `service:` in front if the message is for one service by name. For a reply the key is a queue.
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

    /// The key, with `service:` in front if the message is for one by name; or the queue.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        match self {
            Self::Key { service: Some(service), key, .. } => format!("{service}:{key}").into(),
            Self::Key { service: None, key, .. } => Arc::clone(key),
            Self::Queue(queue) => Arc::clone(queue),
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
