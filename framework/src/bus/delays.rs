//! Delays stand at the broker only where somebody uses them: they are declared before the first one.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::broker::{
    Addressed, Broker, BrokerError, Names, Publication, Publisher, Topology, delay_levels, delay_return,
};

/// Declares what delays need, once per outlet.
pub(super) struct Delays {
    broker: Arc<dyn Broker>,
    names: Names,
    /// What stands: the levels as the empty name, and the queues to which a way back leads.
    declared: Mutex<HashSet<String>>,
}

impl Delays {
    pub(super) fn new(broker: Arc<dyn Broker>, names: Names) -> Arc<Self> {
        Arc::new(Self { broker, names, declared: Mutex::default() })
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
        self.declared.lock().await.clear();
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
    pub(super) async fn forget(&self, queue: &str) {
        self.declared.lock().await.remove(queue);
    }

    /// Waits until the levels stand and, with a queue, the way back to it.
    async fn stand(&self, queue: Option<&str>) -> Result<(), BrokerError> {
        let mut declared = self.declared.lock().await;
        if !declared.contains("") {
            self.broker.declare(&delay_levels(&self.names)).await?;
            declared.insert(String::new());
        }
        if let Some(queue) = queue.filter(|queue| !declared.contains(*queue)) {
            let bindings = vec![delay_return(&self.names, queue)];
            self.broker.declare(&Topology { bindings, ..Topology::default() }).await?;
            declared.insert(queue.to_owned());
        }
        Ok(())
    }
}
