//! Small things that are to outlive the process, kept as messages in queues of ours: read without being taken.

use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use crate::broker::{Addressed, Broker, BrokerError, ConsumerSpec, Queue, Receipt, Topology};
use crate::bus::Outlet;
use crate::message::{Envelope, MediaType};

/// How long to wait for a record that is there, and for one to be written.
const RECORD_TIMEOUT: Duration = Duration::from_secs(5);
/// How often records that somebody else reads are looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Reads records without taking them: they go back as the consumer closes. What has been read so often that the broker
/// drops it is missing then.
///
/// # Errors
/// When the broker cannot be reached.
pub(crate) async fn peek<T: DeserializeOwned>(
    broker: &dyn Broker,
    queue: &str,
    most: u16,
) -> Result<Vec<T>, BrokerError> {
    let ready = ready_in(broker, queue).await?;
    if ready == 0 {
        return Ok(Vec::new());
    }
    // A user that only reads may have no right to declare.
    let queue = Queue::standing(queue);
    let spec = ConsumerSpec { queue, topology: Topology::default(), prefetch: most, answers: false };
    let mut consumer = broker.consume(&spec).await?;
    let (mut read, mut receipts) = (Vec::new(), Vec::new());
    for _ in 0..ready.min(most.into()) {
        // Somebody else may be reading them at the same time; then there are fewer.
        let Ok(Some(delivery)) = timeout(RECORD_TIMEOUT, consumer.next()).await else { break };
        let delivery = delivery?;
        match serde_json::from_slice(&delivery.envelope.payload) {
            Ok(record) => read.push(record),
            Err(error) => tracing::warn!(queue = spec.queue.name, %error, "a record cannot be read and is passed over"),
        }
        receipts.push(delivery.receipt);
    }
    receipts.into_iter().for_each(Receipt::give_back);
    consumer.close().await;
    Ok(read)
}

/// How many messages there are. While somebody else reads them there seem to be none: that is waited out.
async fn ready_in(broker: &dyn Broker, queue: &str) -> Result<u64, BrokerError> {
    let started = Instant::now();
    loop {
        let Some(state) = broker.inspect(queue).await? else { return Ok(0) };
        if state.ready > 0 || state.consumers == 0 || started.elapsed() > RECORD_TIMEOUT {
            return Ok(state.ready);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Writes a record, which is JSON.
///
/// # Errors
/// What went wrong, as text.
pub(crate) async fn write(outlet: &Outlet, queue: &str, record: Bytes) -> Result<(), String> {
    let record = Envelope::note(MediaType::JSON, record);
    let addressed = Addressed::to_queue(queue, record);
    outlet.forward(addressed, Instant::now() + RECORD_TIMEOUT).await.map_err(|error| error.to_string())
}
