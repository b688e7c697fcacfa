//! Direct replies: registers publishers under reply addresses and hands replies to them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use once_cell::sync::Lazy;

use crate::adapter::amqp::Routed;
use crate::broker::{Publication, ReplyEvent, ReplySink};

const REPLY_PREFIX: &str = "in-process.reply.";

/// All publishers of this process that accept replies, by address. An address has the publisher's number and the pointer of its
/// token. The pointer is unique in the process, so that apps on different in-process brokers do not meet.
type Waiting = Mutex<HashMap<String, (Weak<()>, ReplySink)>>;

static WAITING: Lazy<Waiting> = Lazy::new(Waiting::default);

/// The reply addresses of one session.
#[derive(Default)]
pub(super) struct Replies {
    addresses: Mutex<Vec<(String, Arc<()>)>>,
}

impl Replies {
    pub(super) fn register(&self, number: u64, sink: ReplySink) -> String {
        let token = Arc::new(());
        let address = format!("{REPLY_PREFIX}{number}.{:p}", Arc::as_ptr(&token));
        WAITING.lock().unwrap_or_else(PoisonError::into_inner).insert(address.clone(), (Arc::downgrade(&token), sink));
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).push((address.clone(), token));
        address
    }

    /// Reports pending replies as lost at all addresses. The addresses stay valid for new requests.
    pub(super) fn interrupt(&self) {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (address, _) in addresses {
            Self::interrupt_at(&address);
        }
    }

    /// Reports pending replies as lost at one address, which stays valid.
    pub(super) fn interrupt_at(address: &str) {
        let waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        let sink = waiting.get(address).map(|(_, sink)| Arc::clone(sink));
        drop(waiting);
        if let Some(sink) = sink {
            sink(ReplyEvent::Lost);
        }
    }

    pub(super) fn lose_all(&self) {
        let addresses = std::mem::take(&mut *self.addresses.lock().unwrap_or_else(PoisonError::into_inner));
        for (address, _) in addresses {
            let sink = WAITING.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
            if let Some((_, sink)) = sink {
                sink(ReplyEvent::Lost);
            }
        }
    }
}

/// Whether a message goes to a reply address.
pub(super) fn is_reply(message: &Routed) -> bool {
    message.way.exchange.is_empty() && message.way.routing_key.starts_with(REPLY_PREFIX)
}

/// Hands a reply to the publisher at its address.
pub(super) fn reply(message: Routed) -> Publication {
    let waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    let sink = waiting
        .get(&*message.way.routing_key)
        .filter(|(token, _)| token.strong_count() > 0)
        .map(|(_, sink)| Arc::clone(sink));
    drop(waiting);
    match sink {
        Some(sink) => {
            sink(ReplyEvent::Arrived(Box::new(Arc::unwrap_or_clone(message.envelope))));
            Publication::Confirmed
        }
        None if message.mandatory => Publication::Returned,
        None => Publication::Confirmed,
    }
}
