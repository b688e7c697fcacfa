//! Stops an app: take nothing new, finish running handlers, confirm, requeue the rest, close, end the arbiters.

use std::time::Duration;

use actix_rt::Arbiter;
use futures::future::join_all;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::app::launched::Launched;
use crate::app::outcome::StopReport;
use crate::inbound::AwaitStopped;
use crate::message::tell_all_that_was_left_out;

/// How long each of these may take: dropping handlers, closing the broker, ending the threads.
const GRACE: Duration = Duration::from_secs(5);

/// Stops the app. Running handlers may go on for `patience`.
pub(super) async fn stop(launched: Launched, patience: Duration) -> StopReport {
    let Launched { broker, bridges, arbiters, stops, on_ready, due, listening, upkeep, failure, watchdog, .. } =
        launched;
    let (stores, store_tasks) = (launched.stores, launched.store_tasks);
    on_ready.iter().chain(&upkeep).for_each(tokio::task::JoinHandle::abort);
    stops.stopping.cancel();
    let waiting = join_all(bridges.iter().map(|bridge| bridge.send(AwaitStopped)));
    tokio::pin!(waiting);
    let mut abandoned = false;
    let stopped = match timeout(patience, &mut waiting).await {
        Ok(stopped) => stopped,
        Err(_) => {
            abandoned = true;
            stops.abandon.cancel();
            timeout(GRACE, &mut waiting).await.unwrap_or_default()
        }
    };
    stops.abandon.cancel();
    store_tasks.stop().await;
    stores.close().await;
    if let Some(due) = due
        && timeout(GRACE, due).await.is_err()
    {
        tracing::warn!("delayed messages are still being published; they are published again by somebody else");
    }
    if let Some(listening) = listening
        && timeout(GRACE, listening).await.is_err()
    {
        tracing::warn!("an order is still being answered and was left behind");
    }
    let given_back = stopped.into_iter().map(|lanes| lanes.unwrap_or(0)).sum();
    if timeout(GRACE, broker.close()).await.is_err() {
        tracing::warn!("the broker did not answer to the closing of the connection");
    }
    drop(bridges);
    end_arbiters(arbiters).await;
    drop(watchdog);
    tell_all_that_was_left_out();
    tracing::info!(given_back, abandoned, "stopped");
    let failure = failure.lock().map(|failure| failure.clone()).unwrap_or_default();
    StopReport { given_back, abandoned, failure }
}

/// Ends the arbiter threads. A separate thread joins them, because joining blocks and a handler that never yields would
/// block it for ever.
async fn end_arbiters(arbiters: Vec<Arbiter>) {
    if arbiters.is_empty() {
        return;
    }
    let (done, ended) = oneshot::channel();
    let join = move || {
        for arbiter in arbiters {
            arbiter.stop();
            let _ = arbiter.join();
        }
        let _ = done.send(());
    };
    if std::thread::Builder::new().name("postrider-join".into()).spawn(join).is_err() {
        return;
    }
    if timeout(GRACE, ended).await.is_err() {
        tracing::warn!("an arbiter is blocked by a handler and was left behind");
    }
}
