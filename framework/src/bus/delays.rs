//! Delays stand at the broker only where somebody uses them: they are declared before the first one.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, timeout_at};

use crate::broker::{
    Addressed, Broker, BrokerError, Names, Publication, Publisher, Topology, delay_levels, delay_return,
};

/// Declares what delays need, once per outlet.
pub(super) struct Delays {
    broker: Arc<dyn Broker>,
    names: Names,
    /// Held while something is declared, so that it is declared once.
    declaring: AsyncMutex<()>,
    /// Locked for moments only: a lane that forgets something must not wait for what is being declared.
    standing: Mutex<Standing>,
}

#[derive(Default)]
struct Standing {
    /// What stands: the levels as the empty name, and the queues to which a way back leads.
    declared: HashSet<String>,
    /// How often something was forgotten. What was being declared then may be gone already.
    forgotten: u64,
}

impl Standing {
    fn forget(&mut self, gone: impl Fn(&str) -> bool) {
        self.declared.retain(|name| !gone(name));
        self.forgotten += 1;
    }
}

impl Delays {
    pub(super) fn new(broker: Arc<dyn Broker>, names: Names) -> Arc<Self> {
        Arc::new(Self { broker, names, declaring: AsyncMutex::default(), standing: Mutex::default() })
    }

    /// Publishes into the levels what is addressed there. If somebody removed them, they are declared again, once.
    ///
    /// # Errors
    /// As a publisher's; and when the levels cannot be declared until the deadline.
    pub(super) async fn publish(
        &self,
        publisher: &dyn Publisher,
        addressed: Addressed,
        queue: Option<&str>,
        deadline: Instant,
    ) -> Result<Publication, BrokerError> {
        self.stand_until(queue, deadline).await?;
        match publisher.publish(addressed.clone(), deadline).await {
            Ok(Publication::Returned) | Err(BrokerError::Absent { .. }) => {}
            other => return other,
        }
        self.standing().forget(|_| true);
        self.stand_until(queue, deadline).await?;
        publisher.publish(addressed, deadline).await
    }

    async fn stand_until(&self, queue: Option<&str>, deadline: Instant) -> Result<(), BrokerError> {
        let started = Instant::now();
        timeout_at(deadline, self.stand(queue)).await.unwrap_or_else(|_| {
            let seconds = started.elapsed().as_secs();
            Err(BrokerError::TimedOut { what: "declare the delays".into(), seconds })
        })
    }

    /// A queue may have been made anew: the way back to it is declared again before the next delay.
    pub(super) fn forget(&self, queue: &str) {
        self.standing().forget(|name| name == queue);
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the levels stand and, with a queue, the way back to it.
    async fn stand(&self, queue: Option<&str>) -> Result<(), BrokerError> {
        if self.stands(queue) {
            return Ok(());
        }
        let _declares_alone = self.declaring.lock().await;
        self.declare_once("", delay_levels).await?;
        if let Some(queue) = queue {
            let way_back =
                |names: &Names| Topology { bindings: vec![delay_return(names, queue)], ..Topology::default() };
            self.declare_once(queue, way_back).await?;
        }
        Ok(())
    }

    fn stands(&self, queue: Option<&str>) -> bool {
        let standing = self.standing();
        standing.declared.contains("") && queue.is_none_or(|queue| standing.declared.contains(queue))
    }

    /// What was forgotten while it was declared is declared again before the next delay.
    async fn declare_once(&self, name: &str, topology: impl FnOnce(&Names) -> Topology) -> Result<(), BrokerError> {
        let forgotten = {
            let standing = self.standing();
            if standing.declared.contains(name) {
                return Ok(());
            }
            standing.forgotten
        };
        self.broker.declare(&topology(&self.names)).await?;
        let mut standing = self.standing();
        if standing.forgotten == forgotten {
            standing.declared.insert(name.to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
