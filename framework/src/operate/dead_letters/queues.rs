//! Finds the dead-letter queues of all services at a broker.

use std::collections::BTreeSet;

use tokio::time::Instant;

use crate::app::record;
use crate::broker::{Addressed, Names, Subscription};
use crate::bus::{Bus, SendError};
use crate::operate::dead_letters::error::DeadError;
use crate::operate::dead_letters::filter::DeadFilter;
use crate::operate::dead_letters::letter::DeadLetter;

/// The most letters requested at once, unless the caller sets fewer.
const MOST_IN_WINDOW: u16 = 1_000;

/// Progress of work on the letters of one queue.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeadProgress {
    /// The queue.
    pub queue: String,
    /// How many of its letters have been read.
    pub looked_at: u64,
    /// How many letters it had at the beginning.
    pub of: u64,
    /// How many letters of all queues have been listed, deleted or replayed.
    pub done: u64,
}

type Listener = Box<dyn Fn(&DeadProgress) + Send + Sync>;

/// The dead letters of all services at a broker.
///
/// Letters stay in their queues until the work on them is confirmed. A tool that is killed leaves each letter in the
/// dead-letter queue, in the actor's queue, or in both, but never in neither.
///
/// ```no_run
/// # async fn example(bus: postrider::Bus) -> Result<(), postrider::operate::DeadError> {
/// use postrider::operate::{DeadFilter, DeadLetters, Replay};
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
    /// The most letters in a window.
    pub(super) window: u16,
    pub(super) progress: Option<Listener>,
}

impl DeadLetters {
    /// The dead letters at the broker of a bus.
    #[must_use]
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone(), window: MOST_IN_WINDOW, progress: None }
    }

    /// The most letters requested at once. Default: 1 000, and fewer if they are large.
    #[must_use]
    pub fn window(mut self, letters: u16) -> Self {
        self.window = letters.max(1);
        self
    }

    /// Calls the listener about once a second during long work.
    #[must_use]
    pub fn on_progress(mut self, listener: impl Fn(&DeadProgress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Box::new(listener));
        self
    }

    pub(super) fn names(&self) -> &Names {
        &self.bus.identity.names
    }

    /// The existing dead-letter queues: of every service that has claimed a domain, and of delayed messages.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    pub async fn queues(&self) -> Result<Vec<String>, DeadError> {
        let services = self.services().await?;
        let mut queues = BTreeSet::from([self.names().dead_queue(&self.names().due())]);
        for service in services {
            queues.extend(self.queues_of(&service).await?);
        }
        self.standing(queues).await
    }

    /// The services that have claimed a domain.
    async fn services(&self) -> Result<BTreeSet<String>, DeadError> {
        let claims = self.bus.broker.registry().claims().await?;
        Ok(claims.into_iter().map(|claim| claim.service).collect())
    }

    /// The services whose queues are not recorded, because their user may not, or because the record cannot be read. Of these only the
    /// first dead-letter queue is known.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    pub async fn unrecorded(&self) -> Result<Vec<String>, DeadError> {
        let mut unrecorded = Vec::new();
        for service in self.services().await? {
            if record::read(&*self.bus.broker, self.names(), &service).await?.is_none() {
                unrecorded.push(service);
            }
        }
        Ok(unrecorded)
    }

    async fn queues_of(&self, service: &str) -> Result<BTreeSet<String>, DeadError> {
        let main = self.names().queue(service, None);
        let recorded = record::read(&*self.bus.broker, self.names(), service).await?;
        let recorded = recorded.unwrap_or_default();
        let queues = recorded.iter().filter_map(Subscription::queue);
        let queues = queues.map(|queue| queue.strip_suffix(".query").unwrap_or(queue).to_owned());
        Ok(queues.chain([main]).map(|queue| self.names().dead_queue(&queue)).collect())
    }

    pub(super) async fn standing(&self, queues: BTreeSet<String>) -> Result<Vec<String>, DeadError> {
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
            (Some(queue), Some(service)) => {
                let of_service = self.queues_of(service).await?;
                self.standing(of_service.into_iter().filter(|of_service| of_service == queue).collect()).await
            }
            (Some(queue), None) => self.standing(BTreeSet::from([queue.clone()])).await,
            (None, Some(service)) => self.standing(self.queues_of(service).await?).await,
            (None, None) => self.queues().await,
        }
    }

    pub(super) async fn forward(&self, letter: &DeadLetter, addressed: Addressed) -> Result<(), DeadError> {
        let deadline = Instant::now() + self.bus.confirm_timeout();
        self.bus.outlet.forward(addressed, deadline).await.map_err(|error| not_moved(letter, error))
    }
}

pub(super) fn not_moved(letter: &DeadLetter, error: SendError) -> DeadError {
    let (id, queue) = (letter.name().to_owned(), letter.queue.clone());
    match error {
        SendError::Unroutable { .. } => DeadError::NoHome { id, queue, home: letter.home().to_owned() },
        error => DeadError::NotMoved { id, queue, error },
    }
}
