//! A registry stored in queues, for brokers with no other lasting storage. A note is the only message of its queue, a
//! count is the length of a queue, and claims are messages in a third. Messages are read without being taken: they are
//! requeued when their consumer closes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};

use crate::broker::{
    Addressed, Broker, BrokerError, Claim, Consumer, ConsumerSpec, Names, Publication, Queue, Receipt, Registry,
    Topology, WhenFull,
};
use crate::message::{Envelope, MediaType};

/// How long to wait for an existing message, and for a confirm.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often to check a queue whose messages another process is reading.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The most claims in the list.
const MAX_CLAIMS: u16 = 10_000;

/// A claim in the list.
#[derive(Serialize, Deserialize)]
struct ListedClaim {
    domain: String,
    service: String,
}

/// The registry of one namespace, in queues of its broker. It suits adapters whose broker requeues what is read and not
/// acknowledged.
pub struct QueueRegistry<'a> {
    broker: &'a dyn Broker,
    names: &'a Names,
}

/// Messages that were read but not taken. Dropping this requeues them.
struct Peeked {
    payloads: Vec<Bytes>,
    receipts: Vec<Receipt>,
    consumer: Box<dyn Consumer>,
}

impl Peeked {
    async fn give_back(mut self) {
        self.receipts.into_iter().for_each(Receipt::give_back);
        self.consumer.close().await;
    }

    async fn take(mut self) {
        self.receipts.into_iter().for_each(Receipt::ack);
        self.consumer.close().await;
    }
}

impl<'a> QueueRegistry<'a> {
    /// The registry of a namespace at a broker.
    #[must_use]
    pub fn new(broker: &'a dyn Broker, names: &'a Names) -> Self {
        Self { broker, names }
    }

    async fn add_to_list(&self, claims: &[Claim]) -> Result<(), BrokerError> {
        if claims.is_empty() {
            return Ok(());
        }
        let queue = Queue::replicated(self.names.claims()).with_limit(MAX_CLAIMS.into(), WhenFull::DropOldest);
        self.broker.declare(&Topology::of_queues([queue])).await?;
        let listed = self.listed_claims().await?;
        for Claim { domain, service } in claims.iter().filter(|claim| !listed.contains(claim)).cloned() {
            // Two texts can always be written as JSON.
            let claim = serde_json::to_vec(&ListedClaim { domain, service }).unwrap_or_default();
            self.write(&self.names.claims(), MediaType::JSON, claim.into()).await?;
        }
        Ok(())
    }

    async fn listed_claims(&self) -> Result<BTreeSet<Claim>, BrokerError> {
        let queue = self.names.claims();
        let Some(peeked) = self.peek(&queue, MAX_CLAIMS).await? else { return Ok(BTreeSet::new()) };
        let mut claims = BTreeSet::new();
        for payload in &peeked.payloads {
            match serde_json::from_slice(payload) {
                Ok(ListedClaim { domain, service }) => drop(claims.insert(Claim { domain, service })),
                Err(error) => tracing::warn!(queue, %error, "a claim cannot be read and is passed over"),
            }
        }
        peeked.give_back().await;
        Ok(claims)
    }

    /// Reads messages without taking them; `None` if there are none. Messages read so often that the broker dropped
    /// them are missing.
    async fn peek(&self, queue: &str, most: u16) -> Result<Option<Peeked>, BrokerError> {
        let ready = self.ready_in(queue).await?;
        if ready == 0 {
            return Ok(None);
        }
        // A user with read permission only may not be allowed to declare.
        let queue = Queue::standing(queue);
        let spec = ConsumerSpec { queue, topology: Topology::default(), prefetch: most, answers: false };
        let consumer = self.broker.consume(&spec).await?;
        let mut peeked = Peeked { payloads: Vec::new(), receipts: Vec::new(), consumer };
        for _ in 0..ready.min(most.into()) {
            // Another process may be reading them at the same time, so there may be fewer.
            let Ok(Some(delivery)) = timeout(MESSAGE_TIMEOUT, peeked.consumer.next()).await else { break };
            let delivery = delivery?;
            peeked.payloads.push(delivery.envelope.payload.clone());
            peeked.receipts.push(delivery.receipt);
        }
        Ok(Some(peeked))
    }

    /// The number of messages. While another process reads them the queue looks empty, so wait for that to end.
    async fn ready_in(&self, queue: &str) -> Result<u64, BrokerError> {
        let started = Instant::now();
        loop {
            let Some(state) = self.broker.inspect(queue).await? else { return Ok(0) };
            if state.ready > 0 || state.consumers == 0 {
                return Ok(state.ready);
            }
            if started.elapsed() > MESSAGE_TIMEOUT {
                return Err(held_by_others(queue));
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    async fn write(&self, queue: &str, media_type: MediaType, value: Bytes) -> Result<(), BrokerError> {
        let publisher = self.broker.publisher(Arc::new(|_| {})).await?;
        let message = Addressed::to_queue(queue, Envelope::note(media_type, value));
        let what = || format!("queue {queue:?}");
        match publisher.publish(message, Instant::now() + MESSAGE_TIMEOUT).await? {
            Publication::Confirmed => Ok(()),
            Publication::Returned => Err(BrokerError::Absent { what: what(), reason: "it has been deleted".into() }),
            Publication::Rejected => Err(BrokerError::Absent { what: what(), reason: "it takes no messages".into() }),
            Publication::Unknown(reason) => Err(BrokerError::Lost { reason }),
        }
    }
}

/// Nobody knows what a note is that another process keeps to itself.
fn held_by_others(queue: &str) -> BrokerError {
    let what = format!("read queue {queue:?}, whose messages another process holds");
    BrokerError::TimedOut { what, seconds: MESSAGE_TIMEOUT.as_secs() }
}

impl Registry for QueueRegistry<'_> {
    fn list_claims<'a>(&'a self, claims: &'a [Claim]) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(self.add_to_list(claims))
    }

    fn claims(&self) -> BoxFuture<'_, Result<BTreeSet<Claim>, BrokerError>> {
        Box::pin(self.listed_claims())
    }

    fn note<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, BrokerError>> {
        Box::pin(async move {
            let Some(mut peeked) = self.peek(name, 1).await? else { return Ok(None) };
            let note = peeked.payloads.pop().ok_or_else(|| held_by_others(name));
            peeked.give_back().await;
            note.map(Some)
        })
    }

    fn set_note<'a>(
        &'a self,
        name: &'a str,
        expected: Option<&'a [u8]>,
        value: Bytes,
    ) -> BoxFuture<'a, Result<bool, BrokerError>> {
        Box::pin(async move {
            let queue = Queue::replicated(name).with_limit(1, WhenFull::DropOldest);
            self.broker.declare(&Topology::of_queues([queue])).await?;
            // Only the process that holds the single message can replace it.
            let standing = self.peek(name, 1).await?;
            let found = match &standing {
                Some(peeked) => Some(peeked.payloads.first().ok_or_else(|| held_by_others(name))?),
                None => None,
            };
            if found.map(|note| &note[..]) != expected {
                if let Some(standing) = standing {
                    standing.give_back().await;
                }
                return Ok(false);
            }
            // The queue has room for one message, so the old one is gone even if this process dies before acknowledging
            // it.
            self.write(name, MediaType::JSON, value.clone()).await?;
            if let Some(standing) = standing {
                standing.take().await;
                return Ok(true);
            }
            // There was no message to hold, so another process may have written at the same time.
            Ok(self.note(name).await?.as_deref() == Some(&value[..]))
        })
    }

    fn count<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<u64, BrokerError>> {
        Box::pin(async move { Ok(self.broker.inspect(name).await?.map_or(0, |state| state.ready)) })
    }

    fn count_one<'a>(&'a self, name: &'a str, unused_for: Duration) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            let queue = Queue::on_one_node(name).removed_when_unused_for(unused_for);
            self.broker.declare(&Topology::of_queues([queue])).await?;
            self.write(name, MediaType::BYTES, Bytes::new()).await
        })
    }

    fn uncount_one<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            if self.count(name).await? == 0 {
                return Ok(());
            }
            match self.peek(name, 1).await? {
                Some(peeked) if peeked.receipts.is_empty() => Err(held_by_others(name)),
                Some(peeked) => {
                    peeked.take().await;
                    Ok(())
                }
                None => Ok(()),
            }
        })
    }

    fn forget_count<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move { self.broker.remove(&Topology::of_queues([Queue::standing(name)])).await })
    }
}
