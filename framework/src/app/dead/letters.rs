use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use crate::app::dead::letter::{DeadFilter, DeadLetter};
use crate::app::record;
use crate::broker::{BrokerError, Consumer, ConsumerSpec, Destination, Names, Queue, Receipt, Topology};
use crate::bus::{Bus, SendError};
use crate::message::Value;

/// The most letters of one queue that are held at once.
const MOST_HELD: u16 = 10_000;
/// The most payload bytes of one queue that are held at once.
const MOST_HELD_BYTES: usize = 256 * 1024 * 1024;
/// Room in the prefetch for letters that are written while others are held.
const ROOM: u16 = 100;
/// How long to wait for a letter that is there.
const PATIENCE: Duration = Duration::from_secs(5);
/// After so many looks a letter is written anew, because the broker counts them and has a limit.
const MOST_LOOKS: u32 = 100;

/// Why dead letters could not be worked on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DeadError {
    /// The broker could not be reached or refused.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A letter could not be moved; it stays where it is.
    #[error("{id} stays in {queue:?}: {error}")]
    NotMoved {
        /// The letter.
        id: String,
        /// Where it is.
        queue: String,
        /// Why.
        error: SendError,
    },
    /// The queue that letters would go back to is being migrated.
    #[error("the migration of queue {queue:?} is not finished; finish it with the command that began it, then replay")]
    Migrating {
        /// The queue.
        queue: String,
    },
    /// No such letter.
    #[error("there is no dead letter {id:?}; `postrider dead list` shows them")]
    NotFound {
        /// What was looked for.
        id: String,
    },
    /// The records of services cannot be read.
    #[error("{0}")]
    Records(String),
}

/// The dead letters of all services at a broker.
///
/// Letters stay in their queues until what is done with them is certain: a tool that is killed leaves each letter in
/// the dead-letter queue, in the actor's queue, or in both, never in none.
///
/// ```no_run
/// # async fn example(bus: postrider::Bus) -> Result<(), postrider::app::DeadError> {
/// use postrider::app::{DeadFilter, DeadLetters, Replay};
///
/// let letters = DeadLetters::new(&bus);
/// for letter in letters.list(&DeadFilter::service("invoice")).await? {
///     println!("{} {}", letter.key(), letter.error());
/// }
/// letters.replay(&DeadFilter::service("invoice"), &Replay::default()).await?;
/// # Ok(())
/// # }
/// ```
pub struct DeadLetters {
    pub(super) bus: Bus,
}

/// The letters of one queue while they are held. Those that are not settled go back as this is closed.
pub(super) struct Held {
    pub(super) queue: String,
    pub(super) consumer: Box<dyn Consumer>,
    pub(super) meant: Vec<(DeadLetter, Receipt)>,
    pub(super) others: Vec<(DeadLetter, Receipt)>,
    /// Whether there are letters that were not looked at.
    pub(super) more: bool,
}

impl Held {
    fn looked_at(&self) -> usize {
        self.meant.len() + self.others.len()
    }
}

impl DeadLetters {
    /// Dead letters at the broker of a bus.
    #[must_use]
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone() }
    }

    pub(super) fn names(&self) -> &Names {
        &self.bus.identity.names
    }

    /// The dead-letter queues that stand: of every service that has claimed a domain, and of delayed messages.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    pub async fn queues(&self) -> Result<Vec<String>, DeadError> {
        let claims = record::claims(&*self.bus.broker, self.names()).await?;
        let services: BTreeSet<String> = claims.into_iter().map(|claim| claim.service).collect();
        let mut queues = BTreeSet::from([self.names().dead_queue(&self.names().due())]);
        for service in services {
            queues.extend(self.queues_of(&service).await?);
        }
        self.standing(queues).await
    }

    async fn queues_of(&self, service: &str) -> Result<BTreeSet<String>, DeadError> {
        let main = self.names().queue(service, None);
        let recorded = record::read(&*self.bus.broker, self.names(), service).await?;
        let bindings = recorded.map(|record| record.bindings).unwrap_or_default();
        let bound = bindings.into_iter().filter_map(|binding| match binding.destination {
            Destination::Queue(queue) => Some(queue.strip_suffix(".query").unwrap_or(&queue).to_owned()),
            Destination::Exchange(_) => None,
        });
        Ok(bound.chain([main]).map(|queue| self.names().dead_queue(&queue)).collect())
    }

    async fn standing(&self, queues: BTreeSet<String>) -> Result<Vec<String>, DeadError> {
        let mut standing = Vec::new();
        for queue in queues {
            if self.bus.broker.inspect(&queue).await?.is_some() {
                standing.push(queue);
            }
        }
        Ok(standing)
    }

    pub(super) async fn queues_for(&self, filter: &DeadFilter) -> Result<Vec<String>, DeadError> {
        match (&filter.queue, &filter.service) {
            (Some(queue), _) => self.standing(BTreeSet::from([queue.clone()])).await,
            (None, Some(service)) => self.standing(self.queues_of(service).await?).await,
            (None, None) => self.queues().await,
        }
    }

    /// The letters that are meant, queue by queue, oldest first; at most 10 000 or 256 MiB of each queue. They stay
    /// where they are, and looking at them does not use up the broker's delivery limit.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    pub async fn list(&self, filter: &DeadFilter) -> Result<Vec<DeadLetter>, DeadError> {
        let mut letters = Vec::new();
        for queue in self.queues_for(filter).await? {
            let held = self.hold(&queue, filter).await?;
            if held.more {
                tracing::error!(
                    queue,
                    looked_at = held.looked_at(),
                    "there are more letters than can be looked at at once; these were not"
                );
            }
            letters.extend(held.meant.iter().map(|(letter, _)| letter.clone()));
            self.put_back(held).await?;
        }
        Ok(letters)
    }

    /// Removes the letters that are meant; how many.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    pub async fn delete(&self, filter: &DeadFilter) -> Result<u64, DeadError> {
        let mut deleted = 0;
        for queue in self.queues_for(filter).await? {
            // Bounded: a round that finds none is the last.
            loop {
                let mut held = self.hold(&queue, filter).await?;
                let meant = std::mem::take(&mut held.meant);
                let (count, more) = (meant.len() as u64, held.more);
                meant.into_iter().for_each(|(_, receipt)| receipt.ack());
                self.put_back(held).await?;
                deleted += count;
                if count == 0 || !more {
                    break;
                }
            }
        }
        Ok(deleted)
    }

    /// Gives a letter another payload, in the encoding of its media type. The original is kept in `….dead.kept`.
    ///
    /// # Errors
    /// When there is no such letter, or it could not be written; then the original stays.
    pub async fn replace(&self, id: &str, payload: Bytes) -> Result<(), DeadError> {
        let filter = DeadFilter::id(id);
        for queue in self.queues_for(&filter).await? {
            let mut held = self.hold(&queue, &filter).await?;
            let found = (!held.meant.is_empty()).then(|| held.meant.remove(0));
            let replaced = match found {
                Some((letter, receipt)) => Some(self.replace_in(&queue, letter, receipt, payload.clone()).await),
                None => None,
            };
            self.put_back(held).await?;
            if let Some(replaced) = replaced {
                return replaced;
            }
        }
        Err(DeadError::NotFound { id: id.to_owned() })
    }

    async fn replace_in(
        &self,
        queue: &str,
        letter: DeadLetter,
        receipt: Receipt,
        payload: Bytes,
    ) -> Result<(), DeadError> {
        let kept = Queue::quorum(format!("{queue}.kept"));
        self.bus.broker.declare(&Topology { queues: vec![kept.clone()], ..Topology::default() }).await?;
        self.write(&letter, &kept.name).await?;
        let mut edited = letter;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        edited.properties.headers.set("postrider-dead-edited-at", Value::Timestamp(now));
        edited.payload = payload;
        self.write(&edited, queue).await?;
        receipt.ack();
        Ok(())
    }

    async fn write(&self, letter: &DeadLetter, queue: &str) -> Result<(), DeadError> {
        let addressed = letter.addressed(queue, letter.properties.clone());
        self.forward(letter, addressed).await
    }

    pub(super) async fn forward(
        &self,
        letter: &DeadLetter,
        addressed: crate::broker::Addressed,
    ) -> Result<(), DeadError> {
        let deadline = Instant::now() + self.bus.confirm_timeout();
        self.bus.outlet.forward(addressed, deadline).await.map_err(|error| not_moved(letter, error))
    }

    /// Takes all letters of a queue that are there now, without settling any.
    pub(super) async fn hold(&self, queue: &str, filter: &DeadFilter) -> Result<Held, DeadError> {
        let ready = self.bus.broker.inspect(queue).await?.map_or(0, |state| state.ready);
        let declared = Queue::quorum(queue);
        let spec =
            ConsumerSpec { queue: declared, topology: Topology::default(), prefetch: MOST_HELD + ROOM, answers: false };
        let consumer = self.bus.broker.consume(&spec).await?;
        let more = ready > u64::from(MOST_HELD);
        let mut held = Held { queue: queue.to_owned(), consumer, meant: Vec::new(), others: Vec::new(), more };
        let mut bytes = 0;
        for _ in 0..ready.min(MOST_HELD.into()) {
            // Somebody else may work on them at the same time; then there are fewer.
            let Ok(Some(delivery)) = timeout(PATIENCE, held.consumer.next()).await else { break };
            let delivery = delivery?;
            let letter = DeadLetter::of(queue, &delivery, self.names());
            bytes += letter.payload.len();
            let place = if filter.takes(&letter) { &mut held.meant } else { &mut held.others };
            place.push((letter, delivery.receipt));
            if bytes > MOST_HELD_BYTES {
                held.more = true;
                break;
            }
        }
        Ok(held)
    }

    /// The letter at the head of a queue, if there is one. It stays there.
    pub(in crate::app) async fn first(&self, queue: &str) -> Result<Option<DeadLetter>, DeadError> {
        let spec =
            ConsumerSpec { queue: Queue::standing(queue), topology: Topology::default(), prefetch: 1, answers: false };
        let mut consumer = self.bus.broker.consume(&spec).await?;
        let Ok(Some(delivery)) = timeout(PATIENCE, consumer.next()).await else { return Ok(None) };
        let delivery = delivery?;
        let letter = DeadLetter::of(queue, &delivery, self.names());
        let meant = vec![(letter.clone(), delivery.receipt)];
        self.put_back(Held { queue: queue.to_owned(), consumer, meant, others: Vec::new(), more: false }).await?;
        Ok(Some(letter))
    }

    /// Lets the letters go back to their places. Those that were looked at too often are written anew, at the end.
    pub(super) async fn put_back(&self, held: Held) -> Result<(), DeadError> {
        let Held { queue, mut consumer, meant, others, .. } = held;
        let mut stay = Vec::new();
        for (letter, receipt) in meant.into_iter().chain(others) {
            if letter.deliveries < MOST_LOOKS {
                stay.push(receipt);
                continue;
            }
            self.write(&letter, &queue).await?;
            receipt.ack();
        }
        // What closes gives back in order; giving back one by one would turn it round.
        consumer.cancel().await;
        consumer.close().await;
        drop(stay);
        Ok(())
    }
}

pub(super) fn not_moved(letter: &DeadLetter, error: SendError) -> DeadError {
    DeadError::NotMoved { id: letter.id().to_owned(), queue: letter.queue.clone(), error }
}
