use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::future::BoxFuture;
use once_cell::sync::Lazy;
use tokio::time::Instant;

use crate::adapter::in_process::connection::Connection;
use crate::adapter::in_process::faults::{FaultKind, Step};
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

    /// Those who wait for a reply will not get it; new requests may come.
    pub(super) fn interrupt(&self) {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (address, _) in addresses {
            let sink =
                WAITING.lock().unwrap_or_else(PoisonError::into_inner).get(&address).map(|(_, sink)| Arc::clone(sink));
            if let Some(sink) = sink {
                sink(ReplyEvent::Lost);
            }
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

pub(super) struct InProcessPublisher {
    connection: Arc<Connection>,
    address: Arc<str>,
    replies: ReplySink,
}

impl InProcessPublisher {
    pub(super) fn new(connection: Arc<Connection>, address: String, replies: ReplySink) -> Self {
        Self { connection, address: address.into(), replies }
    }
}

impl Publisher for InProcessPublisher {
    fn publish(&self, mut message: Addressed, _: Instant) -> BoxFuture<'static, Result<Publication, BrokerError>> {
        let connection = Arc::clone(&self.connection);
        let mut replies = None;
        if message.awaits_reply {
            Arc::make_mut(&mut message.properties).reply_to = Some(Arc::clone(&self.address));
            replies = Some(Arc::clone(&self.replies));
        }
        Box::pin(async move {
            if let Some((replies, id)) = replies.zip(message.properties.reply_id().cloned()) {
                replies(ReplyEvent::Sent { id });
            }
            publish(&connection, message)
        })
    }
}

/// Routes a message at once.
pub(super) fn publish(connection: &Connection, message: Addressed) -> Result<Publication, BrokerError> {
    connection.open()?;
    let fault = connection.fault(Step::Publish, None);
    connection.open()?;
    let unknown = || Ok(Publication::Unknown("the fault script swallowed it".into()));
    if fault == Some(FaultKind::DropMessage) {
        return unknown();
    }
    connection.inner.published(&message);
    let publication = if message.exchange.is_empty() && message.routing_key.starts_with(REPLY_PREFIX) {
        Ok(reply(message))
    } else {
        let mut state = connection.inner.lock();
        if fault == Some(FaultKind::Duplicate) {
            // The same again is taken as the first was.
            let _ = state.publish(message.clone());
        }
        state.publish(message)
    };
    connection.inner.changed();
    match fault {
        Some(FaultKind::DropConfirm) => unknown(),
        Some(FaultKind::CrashAfter) => {
            connection.shut();
            Err(BrokerError::Stopped)
        }
        _ => publication,
    }
}

fn reply(message: Addressed) -> Publication {
    let waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    let sink = waiting
        .get(&*message.routing_key)
        .filter(|(token, _)| token.strong_count() > 0)
        .map(|(_, sink)| Arc::clone(sink));
    drop(waiting);
    match sink {
        Some(sink) => {
            sink(ReplyEvent::Arrived { properties: message.properties, payload: message.payload });
            Publication::Confirmed
        }
        None if message.mandatory => Publication::Returned,
        None => Publication::Confirmed,
    }
}
