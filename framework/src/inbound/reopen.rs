//! A consumer that is opened again whenever it ends, stalls or panics, until the app stops.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{LocalBoxFuture, join};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, BrokerError, Consumer, ConsumerSpec, Delivery};
use crate::inbound::lane::Probe;
use crate::inbound::states::Started;
use crate::supervise::Backoff;
use crate::supervise::supervise;

/// A consumer that lasted this long is opened again after the first pause.
const STABLE_AFTER: Duration = Duration::from_secs(5);
/// The first pause before the consumer is opened again; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before the consumer is opened again.
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// Reports a task's first start to the caller, even if an earlier run panicked.
pub(super) struct FirstStart(Cell<Option<Started>>);

impl FirstStart {
    pub(super) fn new(started: Started) -> Self {
        Self(Cell::new(Some(started)))
    }

    /// Does one run. The run gets a sender to report its start, unless an earlier run has reported one.
    pub(super) async fn run<T, F: Future<Output = T>>(&self, run: impl FnOnce(Option<Started>) -> F) -> T {
        let Some(first) = self.0.take() else { return run(None).await };
        self.0.set(Some(first));
        let (started, waiting) = oneshot::channel();
        let told = async {
            if let Ok(result) = waiting.await
                && let Some(first) = self.0.take()
            {
                // Fails only if the caller no longer waits for the start. The stop token follows.
                let _ = first.send(result);
            }
        };
        join(run(Some(started)), told).await.0
    }
}

/// How each channel epoch uses its consumer.
pub(super) trait ReopeningConsumer {
    /// The name under which its panics are reported.
    fn name(&self) -> String;

    /// How long its queue may have messages that are not delivered although there is room.
    fn stall_after(&self) -> Duration;

    /// What to consume in an epoch.
    fn spec(&self, epoch: u64) -> ConsumerSpec;

    /// Is told whether it consumes, and if not, why.
    fn consumes(&self, consuming: bool, problem: Option<String>);

    /// Runs one channel epoch. Returns why it ended, or `None` when the app stops.
    fn epoch<'a>(&'a self, consumer: Watched<'a>) -> LocalBoxFuture<'a, Option<BrokerError>>;
}

/// A consumer that inspects its queue while nothing is delivered.
pub(super) struct Watched<'a> {
    consumer: Box<dyn Consumer>,
    broker: &'a Arc<dyn Broker>,
    queue: String,
    probe: Probe,
}

impl Watched<'_> {
    /// The next delivery. Call it only while there is room for one. Cancel safe.
    ///
    /// # Errors
    /// When the consumer has ended, or its queue stalls.
    pub(super) async fn next(&mut self) -> Result<Delivery, BrokerError> {
        self.probe.watch(true);
        let lost = |reason: &str| BrokerError::Lost { reason: reason.into() };
        tokio::select! {
            biased;
            pulled = self.consumer.next() => {
                self.probe.delivered();
                pulled.unwrap_or_else(|| Err(lost("the consumer was cancelled by the broker")))
            }
            stall = self.probe.stalled(self.broker, &self.queue) => {
                tracing::error!(queue = self.queue, stall, "the consumer is stalled; opening it again");
                Err(lost(stall))
            }
        }
    }

    pub(super) async fn close(&mut self) {
        self.consumer.close().await;
    }
}

/// Consumes until the app stops, or until the first consumer proves impossible.
pub(super) async fn keep_consuming(
    consuming: &impl ReopeningConsumer,
    broker: &Arc<dyn Broker>,
    stopping: &CancellationToken,
    started: Started,
) {
    let first = FirstStart::new(started);
    let run = async || {
        let _ends = Ends(consuming);
        first.run(|started| consume(consuming, broker, stopping, started)).await;
    };
    supervise(broker.tasks(), consuming.name(), stopping.cancelled(), run).await;
}

/// Reports, after a run that panicked, that nothing is consumed.
struct Ends<'a, C: ReopeningConsumer>(&'a C);

impl<C: ReopeningConsumer> Drop for Ends<'_, C> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.consumes(false, Some("its task panicked".into()));
        }
    }
}

async fn consume(
    consuming: &impl ReopeningConsumer,
    broker: &Arc<dyn Broker>,
    stopping: &CancellationToken,
    mut started: Option<Started>,
) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LAST_PAUSE);
    // The tries have no limit: queued messages must not wait for a restart of the process.
    for epoch in 0.. {
        let spec = consuming.spec(epoch);
        let opened = tokio::select! {
            () = stopping.cancelled() => return,
            opened = broker.consume(&spec) => opened,
        };
        match opened {
            Ok(consumer) => {
                consuming.consumes(true, None);
                let opened = Instant::now();
                if let Some(started) = started.take() {
                    // Fails only if the caller no longer waits for the start. The stop token follows.
                    let _ = started.send(Ok(()));
                }
                let (queue, probe) = (spec.queue.name.clone(), Probe::new(consuming.stall_after()));
                let ended = consuming.epoch(Watched { consumer, broker, queue, probe }).await;
                consuming.consumes(false, ended.map(|error| error.to_string()));
                if opened.elapsed() >= STABLE_AFTER {
                    backoff.reset();
                }
            }
            Err(error) => {
                consuming.consumes(false, Some(error.to_string()));
                if error.is_permanent()
                    && let Some(started) = started.take()
                {
                    let _ = started.send(Err(error));
                    return;
                }
                tracing::warn!(queue = %spec.queue.name, %error, pause = ?backoff.pause(), "cannot consume; trying again");
            }
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(backoff.random()) => backoff.grow(),
        }
    }
}
