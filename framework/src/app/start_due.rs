//! Publishes delayed messages when they are due. Any running process can do it.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::app::launched::Launched;
use crate::inbound::{DueSettings, publish_due};

/// Starts to publish due messages.
pub(super) async fn start_due(launched: &mut Launched, deadline: Instant) -> Result<(), String> {
    let (started, waiting) = oneshot::channel();
    launched.due = Some(actix_rt::spawn(publish_due(due_settings(launched), started)));
    match timeout_at(deadline, waiting).await {
        Ok(Ok(result)) => result.map_err(|error| error.to_string()),
        Ok(Err(_)) | Err(_) => {
            Err(format!("not started within {:?}: no consumer for what is due", launched.config.start_timeout))
        }
    }
}

fn due_settings(launched: &Launched) -> DueSettings {
    DueSettings {
        broker: Arc::clone(&launched.broker),
        bus: launched.bus.clone(),
        counters: Arc::clone(&launched.counters),
        states: launched.states.clone(),
        skew: launched.config.skew,
        stall_after: launched.config.stall_after,
        confirm_timeout: launched.config.publish.confirm_timeout,
        stopping: launched.stops.stopping.clone(),
    }
}
