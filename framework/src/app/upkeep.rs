//! Declares exchanges and bindings at the start and starts their upkeep.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::app::launched::Launched;
use crate::broker::{Broker, BrokerError, Names, Topology};
use crate::inbound::{UpkeepSettings, keep_bound, were_deleted};

/// The pause between two attempts to declare at the start.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Declares what must exist before anything is sent. Returns whether it had been deleted, so that other processes must
/// be told.
///
/// # Errors
/// When the broker refuses, or cannot be reached until the deadline.
pub(super) async fn declare(
    broker: &dyn Broker,
    names: &Names,
    topology: &Topology,
    deadline: Instant,
) -> Result<bool, BrokerError> {
    let deleted = were_deleted(broker, names).await;
    patiently(deadline, async || broker.declare(topology).await).await?;
    Ok(deleted)
}

/// Runs a step of the start, and again until the deadline while it fails with an error that is not permanent.
///
/// # Errors
/// The step's error, if it is permanent or the deadline has passed.
pub(super) async fn patiently<T>(
    deadline: Instant,
    step: impl AsyncFn() -> Result<T, BrokerError>,
) -> Result<T, BrokerError> {
    loop {
        let error = match step().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if error.is_permanent() || Instant::now() + RETRY_DELAY >= deadline {
            return Err(error);
        }
        tracing::warn!(%error, "the start cannot go on; trying again");
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

/// Starts the upkeep of exchanges and bindings.
pub(super) fn start_upkeep(launched: &mut Launched) {
    let settings = UpkeepSettings {
        broker: Arc::clone(&launched.broker),
        bus: launched.bus.clone(),
        states: launched.states.clone(),
        every: launched.config.stall_after / 2,
        bind: Arc::clone(&launched.bind),
        stopping: launched.stops.stopping.clone(),
    };
    launched.upkeep = Some(actix_rt::spawn(keep_bound(settings)));
}
