//! Gives a queue other arguments, which a broker never does: its messages move through a temporary queue and back.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::time::{Instant, timeout};

use crate::app::record;
use crate::broker::{
    Binding, Broker, BrokerError, Consumer, ConsumerSpec, Delivery, Destination, Names, Queue, Topology, delay_return,
};
use crate::bus::{Bus, SendError};
use crate::inbound::relocated;

/// The most messages that are on their way between the two queues at once.
const PREFETCH: u16 = 100;
/// How often what waits is moved before the bindings are.
const PASSES: u32 = 10;
/// How long nothing must come before a queue is looked at whether it is empty.
const QUIET: Duration = Duration::from_millis(300);
/// How long a queue may have messages and deliver none.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a queue was not migrated. What was moved until then is in the queue or in its temporary one; trying again goes on
/// where this stopped.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationError {
    /// There is neither the queue nor a temporary one.
    #[error("there is no queue {queue:?}; a service declares it with its present arguments when it starts")]
    NoQueue {
        /// Its name.
        queue: String,
    },
    /// Somebody consumes it.
    #[error("{consumers} consumers are on {queue:?}; stop its service first")]
    Consumed {
        /// Its name.
        queue: String,
        /// How many.
        consumers: u64,
    },
    /// Messages are there and are not delivered.
    #[error("{ready} messages of {queue:?} were not delivered within {PATIENCE:?}; try again")]
    Stalled {
        /// Its name.
        queue: String,
        /// How many.
        ready: u64,
    },
    /// A message could not be moved; it stays where it is.
    #[error(transparent)]
    NotMoved(#[from] SendError),
    /// The broker could not be reached or refused.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// Moves the messages of a queue into one of the same name with other arguments.
///
/// Its service must be stopped; senders may go on. Every step can be repeated: a migration that is killed leaves each
/// message in the queue, in its temporary queue `….migrating`, or in both, and the next run goes on. Until then the service
/// refuses to start. Messages keep their order; those that are sent in the very moment in which bindings change may change
/// places or come twice. Bindings made by hand are not known and not kept.
///
/// ```no_run
/// # async fn example(bus: postrider::Bus) -> Result<(), postrider::app::MigrationError> {
/// use postrider::app::Migration;
/// use postrider::broker::Queue;
///
/// let target = Queue::quorum("postrider.invoice").with("x-single-active-consumer", true);
/// let moved = Migration::new(&bus).run(&target, &[]).await?;
/// # Ok(())
/// # }
/// ```
pub struct Migration {
    bus: Bus,
}

/// The name of the temporary queue.
pub(super) fn temporary(queue: &str) -> String {
    format!("{queue}.migrating")
}

/// Whether a migration of the queue was begun and not finished.
pub(super) async fn is_migrating(broker: &dyn Broker, queue: &str) -> Result<bool, BrokerError> {
    Ok(broker.inspect(&temporary(queue)).await?.is_some())
}

impl Migration {
    /// At the broker of a bus.
    #[must_use]
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone() }
    }

    fn broker(&self) -> &dyn Broker {
        &*self.bus.broker
    }

    fn names(&self) -> &Names {
        &self.bus.identity.names
    }

    /// Gives the queue the arguments of `target`, and these bindings beside those that its service recorded; how many
    /// messages were moved into it. Zero also when it has these arguments already.
    ///
    /// # Errors
    /// [`MigrationError`]. Nothing is lost; run it again.
    pub async fn run(&self, target: &Queue, bindings: &[Binding]) -> Result<u64, MigrationError> {
        let (queue, temporary) = (&target.name, temporary(&target.name));
        let standing = self.broker().inspect(queue).await?;
        let begun = self.broker().inspect(&temporary).await?.is_some();
        if standing.is_none() && !begun {
            return Err(MigrationError::NoQueue { queue: queue.clone() });
        }
        let outdated = standing.is_some() && !self.is_equal(target).await?;
        if !outdated && !begun {
            return Ok(0);
        }
        let bindings = self.bindings(queue, bindings).await?;
        if outdated {
            let consumers = standing.map_or(0, |state| state.consumers);
            if consumers > 0 {
                return Err(MigrationError::Consumed { queue: queue.clone(), consumers });
            }
            // What is given up there goes where it would go from the queue itself.
            let between = Queue::quorum(&temporary)
                .with("x-dead-letter-exchange", "")
                .with("x-dead-letter-routing-key", self.names().dead_queue(queue));
            self.change(queue, &between, &bindings).await?;
        }
        self.change(&temporary, target, &bindings).await
    }

    /// All messages and bindings of a queue go to another, which is declared if need be; then it is removed.
    async fn change(&self, from: &str, to: &Queue, bindings: &BTreeSet<Binding>) -> Result<u64, MigrationError> {
        self.broker().declare(&Topology { queues: vec![to.clone()], ..Topology::default() }).await?;
        let spec = ConsumerSpec { queue: Queue::standing(from), topology: Topology::default(), prefetch: PREFETCH };
        let mut consumer = self.broker().consume(&spec).await?;
        let mut moved = 0;
        // First what waits, so that it stays in front of what is sent from now on. Senders that never pause keep a few.
        for _ in 0..PASSES {
            let waiting = self.broker().inspect(from).await?.map_or(0, |state| state.ready);
            if waiting == 0 {
                break;
            }
            moved += self.shift(from, &mut consumer, &to.name, Some(waiting)).await?;
        }
        for binding in bindings {
            let bound = Binding { destination: Destination::Queue(to.name.clone()), ..binding.clone() };
            let unbound = Binding { destination: Destination::Queue(from.to_owned()), ..binding.clone() };
            // For a moment both get a copy: twice rather than not at all.
            self.broker().declare(&Topology { bindings: vec![bound], ..Topology::default() }).await?;
            self.broker().remove(&Topology { bindings: vec![unbound], ..Topology::default() }).await?;
        }
        moved += self.shift(from, &mut consumer, &to.name, None).await?;
        self.broker().remove(&Topology { queues: vec![Queue::standing(from)], ..Topology::default() }).await?;
        // What came straight into the queue in the last moment has been delivered here.
        while let Ok(Some(Ok(delivery))) = timeout(QUIET, consumer.next()).await {
            self.send(&delivery, &to.name).await?;
            moved += 1;
        }
        consumer.close().await;
        Ok(moved)
    }

    /// Moves messages in order until there are none, or as many as are asked for.
    async fn shift(
        &self,
        from: &str,
        consumer: &mut Box<dyn Consumer>,
        to: &str,
        most: Option<u64>,
    ) -> Result<u64, MigrationError> {
        let (mut moving, mut moved, mut last) = (FuturesOrdered::new(), 0, Instant::now());
        loop {
            let room =
                moving.len() < usize::from(PREFETCH) && most.is_none_or(|most| moved + (moving.len() as u64) < most);
            if !room && moving.is_empty() {
                return Ok(moved);
            }
            tokio::select! {
                biased;
                Some(result) = moving.next() => {
                    let receipt: Result<crate::broker::Receipt, SendError> = result;
                    receipt?.ack();
                    moved += 1;
                }
                pulled = consumer.next(), if room => {
                    let Some(delivery) = pulled.transpose()? else {
                        return Err(BrokerError::Lost { reason: "the consumer was cancelled by the broker".into() }.into());
                    };
                    last = Instant::now();
                    moving.push_back(async move {
                        self.send(&delivery, to).await?;
                        Ok(delivery.receipt)
                    });
                }
                () = tokio::time::sleep(QUIET), if moving.is_empty() => {
                    let ready = self.broker().inspect(from).await?.map_or(0, |state| state.ready);
                    if ready == 0 {
                        return Ok(moved);
                    }
                    if last.elapsed() > PATIENCE {
                        return Err(MigrationError::Stalled { queue: from.to_owned(), ready });
                    }
                }
            }
        }
    }

    async fn send(&self, delivery: &Delivery, to: &str) -> Result<(), SendError> {
        let addressed = relocated(delivery, self.names(), to);
        self.bus.outlet.forward(addressed, Instant::now() + self.bus.confirm_timeout()).await
    }

    async fn is_equal(&self, target: &Queue) -> Result<bool, BrokerError> {
        match self.broker().declare(&Topology { queues: vec![target.clone()], ..Topology::default() }).await {
            Ok(()) => Ok(true),
            Err(BrokerError::Inequivalent { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What leads to the queue: what its service recorded and will declare, and the way back from the delays.
    async fn bindings(&self, queue: &str, further: &[Binding]) -> Result<BTreeSet<Binding>, BrokerError> {
        let mut bindings: BTreeSet<Binding> = further.iter().cloned().collect();
        let rest = queue.strip_prefix(self.names().namespace()).and_then(|rest| rest.strip_prefix('.'));
        let service = rest.map(|rest| rest.split('.').next().unwrap_or(rest));
        if let Some(service) = service.filter(|service| postrider_grammar::check_service(service).is_ok()) {
            let recorded = record::read(self.broker(), self.names(), service).await?;
            bindings.extend(recorded.into_iter().flat_map(|record| record.bindings));
        }
        if self.broker().exchange_stands(&self.names().delay_out()).await? {
            bindings.insert(delay_return(self.names(), queue));
        }
        bindings.retain(|binding| binding.destination == Destination::Queue(queue.to_owned()));
        Ok(bindings)
    }
}
