use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::future::BoxFuture;
use once_cell::sync::Lazy;
use tokio::time::Instant;

use crate::adapter::in_process::Inner;
use crate::broker::{Addressed, BrokerError, Publication, Publisher, ReplyEvent, ReplySink};

const REPLY_PREFIX: &str = "in-process.reply.";

/// Everybody in this process who waits for replies, by address. The key is the number of the publisher, unique in the
/// process, so that apps on different in-process brokers do not meet.
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

pub(super) struct InProcessPublisher {
    inner: Arc<Inner>,
    closed: Arc<AtomicBool>,
    address: String,
}

impl InProcessPublisher {
    pub(super) fn new(inner: Arc<Inner>, closed: Arc<AtomicBool>, address: String) -> Self {
        Self { inner, closed, address }
    }
}

impl Publisher for InProcessPublisher {
    fn publish(&self, mut message: Addressed, _: Instant) -> BoxFuture<'static, Result<Publication, BrokerError>> {
        let (inner, closed) = (Arc::clone(&self.inner), Arc::clone(&self.closed));
        if message.awaits_reply {
            message.properties.reply_to = Some(self.address.clone());
        }
        Box::pin(async move {
            if closed.load(Ordering::Acquire) {
                return Err(BrokerError::Stopped);
            }
            inner.published(&message);
            if message.exchange.is_empty() && message.routing_key.starts_with(REPLY_PREFIX) {
                return Ok(reply(message));
            }
            let publication = inner.lock().publish(&message);
            inner.changed();
            publication
        })
    }
}

fn reply(message: Addressed) -> Publication {
    let waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    let sink = waiting
        .get(&message.routing_key)
        .filter(|(token, _)| token.strong_count() > 0)
        .map(|(_, sink)| Arc::clone(sink));
    drop(waiting);
    match sink {
        Some(sink) => {
            sink(ReplyEvent::Arrived { properties: Box::new(message.properties), payload: message.payload });
            Publication::Confirmed
        }
        None if message.mandatory => Publication::Returned,
        None => Publication::Confirmed,
    }
}
