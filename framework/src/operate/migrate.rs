//! Changes a queue's arguments. A broker cannot do that, so the messages move to a temporary queue and back.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::app::record;
use crate::broker::{
    Broker, BrokerError, Consumer, ConsumerSpec, Delivery, Names, Queue, Receipt, Source, Subscription, Target,
    Topology, WhenFull, due_topology,
};
use crate::bus::{Bus, SendError};
use crate::inbound::{relocated, temporary};

/// The most unacknowledged messages.
const PREFETCH: u16 = 500;
/// How many messages beyond those that waited at the start are moved before the bindings, if senders never pause.
const SPARE: u64 = 1_000;
/// A pause between messages that is long enough to move the bindings.
const LULL: Duration = Duration::from_millis(5);
/// How long a queue must be empty before it is removed.
const QUIET: Duration = Duration::from_millis(300);
/// How long a temporary queue must have existed before the other one is removed. Our programs that write straight into
/// a queue check for it more often than this.
const NOTICE: Duration = Duration::from_secs(1);
/// How often our programs that write straight into a queue check whether it is being migrated.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// After this long without a message those that are missing count as expired.
const GONE_AFTER: Duration = Duration::from_secs(2);
/// How long a queue may deliver none of its messages, or receive messages although nothing leads to it.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The most attempts to move a message whose queue is already removed, with a pause of [`QUIET`] between them.
const MAX_TRIES: u32 = 5;
/// Far more messages than a queue can hold.
const NO_LIMIT: u64 = 1 << 40;

/// Why a queue was not migrated. Messages moved so far are in the queue or in its temporary one; running the migration
/// again continues where it stopped.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationError {
    /// Neither the queue nor a temporary one exists.
    #[error("there is no queue {queue:?}; a service declares it with its present arguments when it starts")]
    NoQueue {
        /// Its name.
        queue: String,
    },
    /// The queue has consumers.
    #[error("{consumers} consumers are on {queue:?}; stop its service first")]
    Consumed {
        /// Its name.
        queue: String,
        /// How many.
        consumers: u64,
    },
    /// The queue has messages that are not delivered.
    #[error("{ready} messages of {queue:?} were not delivered within {STALL_TIMEOUT:?}; try again")]
    Stalled {
        /// Its name.
        queue: String,
        /// How many.
        ready: u64,
    },
    /// A migration to other arguments is unfinished.
    #[error(
        "a migration of {queue:?} to other arguments is not finished; finish it with the options that it was begun with, then begin this one"
    )]
    OtherTarget {
        /// Its name.
        queue: String,
    },
    /// The subscriptions of the queue are unknown.
    #[error(
        "what service {service:?} has bound to {queue:?} is not recorded, or somebody else reads it just now; use the service's own binary: `{service} topology migrate {queue}`"
    )]
    NoRecord {
        /// The queue's name.
        queue: String,
        /// Its service.
        service: String,
    },
    /// A program writes straight into the queue, without an exchange.
    #[error(
        "messages keep coming into {queue:?}, although nothing leads to it any more; stop who writes to it by its name"
    )]
    Busy {
        /// Its name.
        queue: String,
    },
    /// Messages arrived straight in the queue while it was being removed, and could not be moved.
    #[error("{count} messages that came into {queue:?} as it was removed are lost: {error}")]
    Lost {
        /// Its name.
        queue: String,
        /// How many.
        count: usize,
        /// Why they could not be moved.
        error: SendError,
    },
    /// A message could not be moved; it stays in its queue.
    #[error(transparent)]
    NotMoved(#[from] SendError),
    /// The broker could not be reached, or it refused.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// Moves the messages of a queue into one of the same name with other arguments.
///
/// The queue's service must be stopped; senders may go on. Every step can be repeated: a migration that is killed
/// leaves each message in the queue, in its temporary queue `….migrating`, or in both, and the same migration continues
/// where it stopped. Until then the service refuses to start. Messages keep their order; those sent at the moment when
/// bindings change may swap places or arrive twice. Bindings made by hand are not known and not kept. A foreign program
/// can write into a queue by its name, without an exchange, at the moment when the queue is removed. Such messages are
/// moved too, unless the migration is killed at that moment: a broker cannot remove a quorum queue on the condition
/// that it is empty.
///
/// ```no_run
/// # async fn example(bus: postrider::Bus) -> Result<(), postrider::operate::MigrationError> {
/// use postrider::operate::Migration;
/// use postrider::broker::Queue;
///
/// let target = Queue::replicated("postrider.invoice").with_one_active_consumer();
/// let moved = Migration::new(&bus).run(&target, &[]).await?;
/// # Ok(())
/// # }
/// ```
pub struct Migration {
    bus: Bus,
}

/// The suffix of dead-letter queues.
const DEAD: &str = ".dead";

impl Migration {
    /// Migrations at the broker of a bus.
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

    /// Gives the queue the arguments of `target`, and these subscriptions in addition to those that its service
    /// recorded. Returns how many messages were moved into it; zero also when it already has these arguments.
    ///
    /// # Errors
    /// [`MigrationError`]. Nothing is lost unless the error says so; run it again.
    pub async fn run(&self, target: &Queue, subscriptions: &[Subscription]) -> Result<u64, MigrationError> {
        let (queue, temporary) = (&target.name, temporary(&target.name));
        let standing = self.broker().inspect(queue).await?.is_some();
        let begun = self.broker().inspect(&temporary).await?.is_some();
        if !standing && !begun {
            return Err(MigrationError::NoQueue { queue: queue.clone() });
        }
        let outdated = standing && !self.stands_as(target).await?;
        if !outdated && !begun {
            return Ok(0);
        }
        let between = self.between(target);
        if begun && !self.stands_as(&between).await? {
            return Err(MigrationError::OtherTarget { queue: queue.clone() });
        }
        let subscriptions = self.subscriptions(queue, subscriptions).await?;
        self.refuse_consumed(queue).await?;
        if outdated {
            self.change(queue, &between, &subscriptions).await?;
        }
        self.change(&temporary, target, &subscriptions).await
    }

    /// The temporary queue. Messages given up there go to the same place as from the queue itself. Its length limit is
    /// far too high to matter; the value encodes the arguments of the target, because a broker compares only arguments
    /// that it knows.
    fn between(&self, target: &Queue) -> Queue {
        let target_in_own_words = self.broker().in_own_words(&Topology::of_queues([target.clone()])).queues;
        let arguments = target_in_own_words.iter().flat_map(|queue| queue.arguments.iter());
        let arguments = arguments.map(|(name, value)| format!("{name}={value:?}"));
        let aim = Uuid::new_v5(&Uuid::NAMESPACE_OID, arguments.collect::<Vec<_>>().join(" ").as_bytes());
        let limit = NO_LIMIT + u64::from(aim.as_fields().0);
        let between = Queue::replicated(temporary(&target.name)).with_limit(limit, WhenFull::DropOldest);
        if target.name.ends_with(DEAD) {
            return between;
        }
        between.with_last_resort(self.names().dead_queue(&target.name))
    }

    /// Refuses a queue with consumers. The consumer of an actor's queue also writes its dead letters.
    async fn refuse_consumed(&self, queue: &str) -> Result<(), MigrationError> {
        for queue in [Some(queue), queue.strip_suffix(DEAD)].into_iter().flatten() {
            let consumers = self.broker().inspect(queue).await?.map_or(0, |state| state.consumers);
            if consumers > 0 {
                return Err(MigrationError::Consumed { queue: queue.to_owned(), consumers });
            }
        }
        Ok(())
    }

    /// Moves all messages and subscriptions of a queue to another, which is declared if necessary, then removes the
    /// queue.
    async fn change(
        &self,
        from: &str,
        to: &Queue,
        subscriptions: &BTreeSet<Subscription>,
    ) -> Result<u64, MigrationError> {
        self.broker().declare(&Topology::of_queues([to.clone()])).await?;
        let declared = Instant::now();
        let waiting = self.waiting(from).await?;
        let spec = ConsumerSpec {
            queue: Queue::standing(from),
            topology: Topology::default(),
            prefetch: PREFETCH,
            answers: false,
        };
        let mut consumer = self.broker().consume(&spec).await?;
        // Waiting messages move first, so that they stay in front of those sent from now on.
        let mut moved = self.shift(from, &mut consumer, &to.name, LULL, waiting..=waiting + SPARE).await?;
        for subscription in subscriptions {
            let into = |queue: &str| {
                let target = Target::Queue(queue.to_owned());
                let subscriptions = vec![Subscription { target, ..subscription.clone() }];
                Topology { subscriptions, ..Topology::default() }
            };
            // For a moment both queues get a copy: a duplicate is better than a loss.
            self.broker().declare(&into(&to.name)).await?;
            self.broker().remove(&into(from)).await?;
        }
        loop {
            moved += self.shift(from, &mut consumer, &to.name, QUIET, 0..=u64::MAX).await?;
            if declared.elapsed() >= NOTICE {
                break;
            }
        }
        self.broker().remove(&Topology::of_queues([Queue::standing(from)])).await?;
        Ok(moved + self.rest(from, consumer, &to.name).await?)
    }

    async fn waiting(&self, queue: &str) -> Result<u64, BrokerError> {
        Ok(self.broker().inspect(queue).await?.map_or(0, |state| state.ready))
    }

    /// Moves the messages that arrived while the queue was being removed; they have been delivered here.
    async fn rest(&self, from: &str, mut consumer: Box<dyn Consumer>, to: &str) -> Result<u64, MigrationError> {
        let mut caught = Vec::new();
        while let Ok(Some(Ok(delivery))) = timeout(QUIET, consumer.next()).await {
            caught.push(delivery);
        }
        for (index, delivery) in caught.iter().enumerate() {
            let mut tries = 1;
            while let Err(error) = self.send(delivery, to).await {
                if tries == MAX_TRIES {
                    return Err(MigrationError::Lost { queue: from.to_owned(), count: caught.len() - index, error });
                }
                tries += 1;
                sleep(QUIET).await;
            }
        }
        consumer.close().await;
        Ok(caught.len() as u64)
    }

    /// Moves messages in order, until none has arrived for a while or the limit is reached. Of those that are expected some may be on
    /// their way although the queue is empty, and some may have expired.
    async fn shift(
        &self,
        from: &str,
        consumer: &mut Box<dyn Consumer>,
        to: &str,
        pause: Duration,
        expected: RangeInclusive<u64>,
    ) -> Result<u64, MigrationError> {
        let (least, most) = expected.into_inner();
        let (mut moving, mut moved) = (FuturesOrdered::new(), 0);
        let (began, mut last) = (Instant::now(), Instant::now());
        let problem = loop {
            let room = moving.len() < usize::from(PREFETCH) && moved + (moving.len() as u64) < most;
            if !room && moving.is_empty() {
                return Ok(moved);
            }
            tokio::select! {
                biased;
                Some(result) = moving.next() => match result {
                    Ok(receipt) => {
                        Receipt::ack(receipt);
                        moved += 1;
                    }
                    Err(error) => break MigrationError::NotMoved(error),
                },
                pulled = consumer.next(), if room => match pulled {
                    Some(Ok(delivery)) => {
                        last = Instant::now();
                        moving.push_back(async move { self.send(&delivery, to).await.map(|()| delivery.receipt) });
                    }
                    Some(Err(error)) => break error.into(),
                    None => break BrokerError::Lost { reason: "the consumer was cancelled by the broker".into() }.into(),
                },
                () = sleep(pause), if moving.is_empty() => {
                    let ready = self.waiting(from).await?;
                    if ready == 0 && (moved >= least || last.elapsed() > GONE_AFTER) {
                        return Ok(moved);
                    }
                    if last.elapsed() > STALL_TIMEOUT {
                        break MigrationError::Stalled { queue: from.to_owned(), ready };
                    }
                }
            }
            // The messages that waited have been moved by the earlier call.
            if most == u64::MAX && began.elapsed() > STALL_TIMEOUT {
                break MigrationError::Busy { queue: from.to_owned() };
            }
        };
        // Close the channel first, so that messages that could not be moved keep their place.
        consumer.close().await;
        Err(problem)
    }

    async fn send(&self, delivery: &Delivery, to: &str) -> Result<(), SendError> {
        let addressed = relocated(delivery, to);
        self.bus.outlet.forward(addressed, Instant::now() + self.bus.confirm_timeout()).await
    }

    async fn stands_as(&self, target: &Queue) -> Result<bool, BrokerError> {
        match self.broker().compare(&Topology::of_queues([target.clone()])).await {
            Ok(()) => Ok(true),
            Err(BrokerError::Inequivalent { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The queue's subscriptions: those its service recorded, those it will declare, and the return from the delays.
    async fn subscriptions(
        &self,
        queue: &str,
        further: &[Subscription],
    ) -> Result<BTreeSet<Subscription>, MigrationError> {
        let mut subscriptions: BTreeSet<Subscription> = further.iter().cloned().collect();
        let rest = queue.strip_prefix(self.names().namespace()).and_then(|rest| rest.strip_prefix('.'));
        let service = rest.map(|rest| rest.split('.').next().unwrap_or(rest)).unwrap_or(queue);
        if queue == self.names().due() {
            subscriptions.extend(due_topology(self.names()).subscriptions);
        } else if !queue.ends_with(DEAD) {
            match record::read(self.broker(), self.names(), service).await? {
                Some(recorded) => subscriptions.extend(recorded),
                None if !further.is_empty() => {}
                None => {
                    return Err(MigrationError::NoRecord { queue: queue.to_owned(), service: service.to_owned() });
                }
            }
        }
        let target = Target::Queue(queue.to_owned());
        if !queue.ends_with(DEAD) && self.delays_stand().await? {
            let pattern = queue.to_owned();
            subscriptions.insert(Subscription { source: Source::Delays, pattern, target: target.clone() });
        }
        subscriptions.retain(|subscription| subscription.target == target);
        Ok(subscriptions)
    }

    async fn delays_stand(&self) -> Result<bool, BrokerError> {
        let delays = Topology { sources: vec![Source::Delays], ..Topology::default() };
        Ok(!self.broker().absent(&delays).await?.contains(&self.names().delay_out()))
    }
}
