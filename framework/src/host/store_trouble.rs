//! What happens to a message whose store does not do its work: it waits in place, and no attempt is counted.

use std::time::Duration;

use tokio::time::Instant;

use crate::handler::{Failed, FailureClass, Lane, Outcome};
use crate::host::attempt::{Job, stopping};
use crate::host::core::Core;
use crate::message::{Problem, is_logged};
use crate::store::StoreError;
use crate::supervise::Backoff;

/// How often a message is handled again at once because another transaction was in the way. After that the attempt has failed.
const MOST_CONFLICTS: u32 = 5;
/// The first pause while a store does not do its work. Each pause doubles, up to `LAST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause while a store does not do its work.
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// How long a delivery waits for its store. After that it goes back to its queue, before the broker takes it back.
const WAIT_FOR: Duration = Duration::from_secs(300);

/// What has gone wrong so far with the store while one message is handled.
pub(super) struct StoreTrouble {
    conflicts: u32,
    since: Instant,
    backoff: Backoff,
}

impl Default for StoreTrouble {
    fn default() -> Self {
        Self { conflicts: 0, since: Instant::now(), backoff: Backoff::new(FIRST_PAUSE, LAST_PAUSE) }
    }
}

impl Core {
    /// Waits before a message is handled again because of its store. `Err` has the outcome if it is not.
    pub(super) async fn wait_for_store(
        &self,
        trouble: &mut StoreTrouble,
        error: StoreError,
        job: &Job,
    ) -> Result<(), Outcome> {
        let handle = self.settings.store.as_ref().map(|store| &store.handle);
        if let StoreError::Conflict { .. } = error {
            trouble.conflicts += 1;
            if trouble.conflicts > MOST_CONFLICTS {
                return Err(store_failed(FailureClass::Transient, &error));
            }
            let pause = trouble.backoff.random();
            trouble.backoff.grow();
            return if self.pause(pause, job).await { Ok(()) } else { Err(stopping()) };
        }
        if let (Some(store), StoreError::Unavailable { .. } | StoreError::Unknown { .. }) =
            (&self.settings.store, &error)
        {
            // The other connections of that age are of no use either.
            store.close_kept();
        }
        if let (Some(handle), false) = (handle, matches!(error, StoreError::Locked { .. })) {
            handle.note(Some(&error));
        }
        if is_logged("the store does not do its work", self.settings.actor) {
            tracing::warn!(actor = self.settings.actor, %error, pause = ?trouble.backoff.pause(), "the store does not do its work; its messages wait and no attempt is counted");
        }
        // The caller of a query waits, and asks again itself.
        let is_query = job.lane == Lane::Query;
        let waits = !is_query && trouble.since.elapsed() + trouble.backoff.pause() < WAIT_FOR;
        let pause = trouble.backoff.random();
        trouble.backoff.grow();
        if waits && self.pause(pause, job).await {
            Ok(())
        } else {
            Err(store_failed(FailureClass::Infrastructure, &error))
        }
    }

    /// The store works again.
    pub(super) fn store_works(&self) {
        if let Some(store) = &self.settings.store {
            store.handle.note(None);
        }
    }
}

fn store_failed(class: FailureClass, error: &StoreError) -> Outcome {
    let problem = Problem::new(Problem::FAILED, "the service's store does not do its work; its log says why");
    Outcome::Failed(Failed { class, problem, log: error.to_string() })
}
