//! A consumer that is opened again whenever it ends, until the app stops.

use std::sync::Arc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, BrokerError, Consumer, ConsumerSpec};

/// A consumer that lasted so long is opened again after the first pause.
const STABLE_AFTER: Duration = Duration::from_secs(5);
/// The first pause before the consumer is opened again; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before the consumer is opened again.
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// Hears of the first consumer, or of the mistake that makes one impossible.
pub(super) type Started = oneshot::Sender<Result<(), BrokerError>>;

/// What is done with the consumer of each channel epoch.
pub(super) trait Consuming {
    /// What to consume in an epoch.
    fn spec(&self, epoch: u64) -> ConsumerSpec;

    /// Hears whether it consumes, and why not.
    fn consumes(&self, consuming: bool, problem: Option<String>);

    /// One channel epoch; why it ended, unless the app stops.
    fn epoch<'a>(&'a self, consumer: Box<dyn Consumer>) -> LocalBoxFuture<'a, Option<BrokerError>>;
}

/// Consumes until the app stops, or until the first consumer proves impossible.
pub(super) async fn keep_consuming(
    consuming: &impl Consuming,
    broker: &Arc<dyn Broker>,
    stopping: &CancellationToken,
    started: Started,
) {
    let (mut started, mut pause) = (Some(started), FIRST_PAUSE);
    // Without limit of tries: what waits in a queue must not wait for a restart.
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
                    // Whoever started us has given up; we will hear that we are to stop.
                    let _ = started.send(Ok(()));
                }
                let ended = consuming.epoch(consumer).await;
                consuming.consumes(false, ended.map(|error| error.to_string()));
                if opened.elapsed() >= STABLE_AFTER {
                    pause = FIRST_PAUSE;
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
                tracing::warn!(queue = %spec.queue.name, %error, ?pause, "cannot consume; trying again");
            }
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(pause / 2 + (pause / 2).mul_f64(fastrand::f64())) => pause = (pause * 2).min(LAST_PAUSE),
        }
    }
}
