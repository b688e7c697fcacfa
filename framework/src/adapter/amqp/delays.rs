//! Declares the delay queues at the broker before the first message is delayed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, timeout_at};

use crate::adapter::amqp::Routed;
use crate::adapter::amqp::declaration::Declaration;
use crate::broker::{Addressed, BrokerError, Names, Publication, Source, Subscription, Target, To, Topology};

/// Declares the given value at the broker.
pub(in crate::adapter) type Declare =
    Box<dyn Fn(Declaration) -> BoxFuture<'static, Result<(), BrokerError>> + Send + Sync>;

/// Declares the delay levels and the bindings back to queues, each once per connection.
pub(in crate::adapter) struct Delays {
    declare: Declare,
    names: Names,
    /// Held during a declaration, so that concurrent callers do not repeat it.
    declaring: AsyncMutex<()>,
    /// Locked for moments only: a lane that calls [`Delays::forget`] must not wait for a declaration.
    standing: Mutex<Standing>,
}

#[derive(Default)]
struct Standing {
    /// Already declared: the levels, as the empty name, and the queues that have a binding back.
    declared: HashSet<String>,
    /// The name that is being declared.
    in_progress: Option<String>,
    /// Counts the names forgotten. A declaration that was under way then may already be gone at the broker.
    forgotten: u64,
}

impl Standing {
    fn forget(&mut self, gone: impl Fn(&str) -> bool) {
        let before = self.declared.len();
        self.declared.retain(|name| !gone(name));
        let is_meant = self.declared.len() < before || self.in_progress.as_deref().is_some_and(gone);
        self.forgotten += u64::from(is_meant);
    }
}

impl Delays {
    pub(in crate::adapter) fn new(names: Names, declare: Declare) -> Arc<Self> {
        Arc::new(Self { declare, names, declaring: AsyncMutex::default(), standing: Mutex::default() })
    }

    /// Publishes a message into the levels. If they were deleted, declares them again and retries once.
    ///
    /// # Errors
    /// Those of a publisher, and those of declaring the levels; [`BrokerError::TimedOut`] if that takes longer than the deadline.
    pub(in crate::adapter) async fn publish(
        &self,
        message: Addressed,
        deadline: Instant,
        publish: impl Fn(Routed) -> BoxFuture<'static, Result<Publication, BrokerError>>,
    ) -> Result<Publication, BrokerError> {
        let home = if let To::Queue(queue) = &message.to { Some(Arc::clone(queue)) } else { None };
        let routed = Routed::of(message, &self.names);
        self.stand_until(home.as_deref(), deadline).await?;
        match publish(routed.clone()).await {
            Ok(Publication::Returned) | Err(BrokerError::Absent { .. }) => {}
            other => return other,
        }
        self.standing().forget(|_| true);
        self.stand_until(home.as_deref(), deadline).await?;
        publish(routed).await
    }

    async fn stand_until(&self, queue: Option<&str>, deadline: Instant) -> Result<(), BrokerError> {
        let started = Instant::now();
        timeout_at(deadline, self.stand(queue)).await.unwrap_or_else(|_| {
            let seconds = started.elapsed().as_secs();
            Err(BrokerError::TimedOut { what: "declare the delays".into(), seconds })
        })
    }

    /// Call this when the queue may have been created anew: its binding back is declared again before the next delay.
    pub(in crate::adapter) fn forget(&self, queue: &str) {
        self.standing().forget(|name| name == queue);
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Declares the levels and, if a queue is given, the binding back to it, unless they are declared already.
    async fn stand(&self, queue: Option<&str>) -> Result<(), BrokerError> {
        if self.stands(queue) {
            return Ok(());
        }
        let _declares_alone = self.declaring.lock().await;
        let levels = Topology { sources: vec![Source::Delays], ..Topology::default() };
        self.declare_once("", &levels).await?;
        if let Some(queue) = queue {
            let comes_back = Subscription {
                source: Source::Delays,
                pattern: queue.to_owned(),
                target: Target::Queue(queue.to_owned()),
            };
            let way_back = Topology { subscriptions: vec![comes_back], ..Topology::default() };
            self.declare_once(queue, &way_back).await?;
        }
        Ok(())
    }

    fn stands(&self, queue: Option<&str>) -> bool {
        let standing = self.standing();
        standing.declared.contains("") && queue.is_none_or(|queue| standing.declared.contains(queue))
    }

    /// A name that is forgotten during its declaration stays undeclared, so the next delay declares it again.
    async fn declare_once(&self, name: &str, topology: &Topology) -> Result<(), BrokerError> {
        let forgotten = {
            let mut standing = self.standing();
            if standing.declared.contains(name) {
                return Ok(());
            }
            standing.in_progress = Some(name.to_owned());
            standing.forgotten
        };
        let declared = (self.declare)(Declaration::of(topology, &self.names)).await;
        let mut standing = self.standing();
        standing.in_progress = None;
        declared?;
        if standing.forgotten == forgotten {
            standing.declared.insert(name.to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
