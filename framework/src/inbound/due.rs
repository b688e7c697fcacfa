//! Publishes delayed messages when they are due. Every process consumes them; the broker chooses which process gets a message.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::{
    Addressed, Broker, BrokerError, ConsumerSpec, Delivery, HOME, Queue, Receipt, To, Topology, due_topology,
    resume_expiration, strip,
};
use crate::bus::{Bus, Counters, SendError, Unsent};
use crate::handler::{Failed, FailureClass};
use crate::host::SkewPolicy;
use crate::inbound::forward::{note_death, set_skewed_since, skewed_for};
use crate::inbound::reopen::{ReopeningConsumer, Watched, keep_consuming};
use crate::inbound::states::LaneStates;
use crate::message::{Envelope, Kind, Problem, is_logged};

/// The most messages that are being published at once.
const PREFETCH: u16 = 64;
/// The pause before a message that could not be published is given back.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// The pause before a message that could not be moved is given back.
const PAUSE_BEFORE_RETURN: Duration = Duration::from_millis(100);

/// The settings of [`publish_due`].
pub struct DueSettings {
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// Publishes the messages.
    pub bus: Bus,
    /// Counts what happens.
    pub counters: Arc<Counters>,
    /// Where it reports whether it consumes.
    pub states: LaneStates,
    /// How long, and with which pauses, a message that the broker does not accept is published again.
    pub skew: SkewPolicy,
    /// How long a publication may take.
    pub confirm_timeout: Duration,
    /// How long a due message may wait in the queue without being delivered.
    pub stall_after: Duration,
    /// Fires when the app stops.
    pub stopping: CancellationToken,
}

/// Publishes due messages until the app stops. `started` is told of the first consumer, or of the mistake that makes one
/// impossible.
pub async fn publish_due(settings: DueSettings, started: oneshot::Sender<Result<(), BrokerError>>) {
    let state = settings.states.add(&settings.bus.identity.names.due(), Unsent::default());
    let due = Due { settings, state };
    keep_consuming(&due, &due.settings.broker, &due.settings.stopping, started).await;
}

struct Due {
    settings: DueSettings,
    /// Its index among the lanes.
    state: usize,
}

impl ReopeningConsumer for Due {
    fn name(&self) -> String {
        format!("publishing from {}", self.settings.bus.identity.names.due())
    }

    fn stall_after(&self) -> Duration {
        self.settings.stall_after
    }

    fn spec(&self, _: u64) -> ConsumerSpec {
        let topology = due_topology(&self.settings.bus.identity.names);
        ConsumerSpec { queue: topology.queues[0].clone(), topology, prefetch: PREFETCH, answers: false }
    }

    fn consumes(&self, consuming: bool, problem: Option<String>) {
        self.settings.states.set(self.state, consuming, problem);
    }

    fn epoch<'a>(&'a self, consumer: Watched<'a>) -> LocalBoxFuture<'a, Option<BrokerError>> {
        Box::pin(self.settings.epoch(consumer))
    }
}

impl DueSettings {
    /// Runs one channel epoch. Returns why it ended, or `None` when the app stops.
    async fn epoch(&self, mut consumer: Watched<'_>) -> Option<BrokerError> {
        let mut publishing = FuturesUnordered::new();
        let ended = loop {
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => break None,
                Some(()) = publishing.next() => {}
                pulled = consumer.next(), if publishing.len() < usize::from(PREFETCH) => match pulled {
                    Ok(delivery) => publishing.push(self.publish(delivery)),
                    Err(error) => break Some(error),
                },
            }
        };
        if ended.is_none() {
            // Messages that are being published are confirmed and settled. The broker takes back the others when the channel
            // closes.
            while publishing.next().await.is_some() {}
            consumer.close().await;
        }
        ended
    }

    async fn publish(&self, delivery: Delivery) {
        let Delivery { envelope, receipt, .. } = delivery;
        let envelope = Arc::unwrap_or_clone(envelope);
        let Some(addressed) = due(envelope.clone()) else {
            let why = "it does not say in `type` and `postrider-kind` where it is to go";
            return self.give_up(envelope, receipt, why).await;
        };
        let deadline = Instant::now() + self.confirm_timeout;
        match self.bus.outlet.publish_due(addressed, deadline).await {
            Ok(()) => {
                Counters::add(&self.counters.due);
                receipt.ack();
            }
            Err(error @ (SendError::Unroutable { .. } | SendError::Rejected { .. })) => {
                self.unrouted(envelope, receipt, &error).await;
            }
            Err(error @ SendError::Broker(_)) if is_permanent(&error) => {
                self.unrouted(envelope, receipt, &error).await;
            }
            Err(error) => {
                if is_logged("a delayed message could not be published", "delays") {
                    tracing::warn!(%error, "a delayed message could not be published; it is tried again");
                }
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                receipt.give_back();
            }
        }
    }

    /// Puts off a message that cannot be published now: its service may not have started yet.
    async fn unrouted(&self, mut envelope: Envelope, receipt: Receipt, error: &SendError) {
        if skewed_for(&envelope) >= self.skew.window {
            return self.give_up(envelope, receipt, &error.to_string()).await;
        }
        if is_logged("a delayed message is due and cannot be published", "delays") {
            tracing::warn!(%error, again_in = ?self.skew.pause, "a delayed message is due and cannot be published; it is tried again");
        }
        strip(&mut envelope.headers);
        set_skewed_since(&mut envelope);
        let addressed = Addressed::to_queue(self.bus.identity.names.due(), envelope);
        let deadline = Instant::now() + self.confirm_timeout;
        self.settle(self.bus.outlet.forward_later(addressed, self.skew.pause, deadline).await, receipt).await;
    }

    async fn give_up(&self, mut envelope: Envelope, receipt: Receipt, why: &str) {
        let names = &self.bus.identity.names;
        let dead = names.dead_queue(&names.due());
        if is_logged("delayed message given up: dead-lettered", "delays") {
            tracing::error!(
                message_id = envelope.has_own_id().then(|| envelope.id.as_str()),
                reason = why,
                queue = dead,
                "delayed message given up: dead-lettered"
            );
        }
        strip(&mut envelope.headers);
        let failed = Failed {
            class: FailureClass::Permanent,
            problem: Problem::new(Problem::FAILED, why),
            log: format!("when its delay was over, it could not be published: {why}"),
        };
        note_death(&mut envelope.headers, "due", "due", 1, &failed);
        let declared = Topology::of_queues([Queue::replicated(&dead)]);
        if let Err(error) = self.broker.declare(&declared).await {
            if is_logged("the dead-letter queue cannot be declared", "delays") {
                tracing::error!(%error, "the dead-letter queue cannot be declared; the message stays");
            }
            tokio::time::sleep(PAUSE_BEFORE_RETURN).await;
            return receipt.give_back();
        }
        let deadline = Instant::now() + self.confirm_timeout;
        let forwarded = self.bus.outlet.forward(Addressed::to_queue(dead, envelope), deadline).await;
        if forwarded.is_ok() {
            Counters::add(&self.counters.dead_lettered);
        }
        self.settle(forwarded, receipt).await;
    }

    async fn settle(&self, forwarded: Result<(), SendError>, receipt: Receipt) {
        match forwarded {
            Ok(()) => receipt.ack(),
            Err(error) => {
                if is_logged("a delayed message could not be moved", "delays") {
                    tracing::error!(%error, "a delayed message could not be moved; it stays in its queue");
                }
                tokio::time::sleep(PAUSE_BEFORE_RETURN).await;
                receipt.give_back();
            }
        }
    }
}

/// The message as it is published after its delay; `None` if it does not say where it goes.
fn due(mut envelope: Envelope) -> Option<Addressed> {
    strip(&mut envelope.headers);
    if let Some(home) = envelope.headers.remove(HOME).and_then(|home| home.shared_text()) {
        // A delayed attempt whose way back to its queue was gone. Only that queue may get it.
        return Some(Addressed::to_queue(home, envelope));
    }
    let says_too_little = envelope.foreign.as_ref().is_some_and(|foreign| foreign.no_type || foreign.no_kind);
    // A reply is never delayed. A message that reads as one does not state its kind.
    if says_too_little || envelope.kind == Kind::Reply {
        return None;
    }
    resume_expiration(&mut envelope);
    let to = To::key(envelope.kind, &envelope.address());
    Some(Addressed { to, delay: None, mandatory: true, bare: false, envelope: Arc::new(envelope) })
}

fn is_permanent(error: &SendError) -> bool {
    matches!(error, SendError::Broker(error) if error.is_permanent())
}

#[cfg(test)]
mod tests;
