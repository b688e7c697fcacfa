//! Messages that may end the process which handles them.
//!
//! The broker counts how often a message was delivered without an end. It counts all that a process held when it died, and also
//! what an orderly stop gives back, so that the count is a suspicion and nothing more. Who is suspected is handled alone in its
//! lane, and before it begins a note is put into a queue of its own, `{queue}.suspects.{id}`. The note is taken out when handling
//! has ended in any way but with the process, and the queue is removed when the message was handled. So the notes that are found
//! are processes that died, and only those condemn a message.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::broker::{Addressed, Broker, ConsumerSpec, Queue, Topology};
use crate::bus::Outlet;
use crate::message::{Envelope, MediaType, is_logged};

/// A message is a suspect after this number of deliveries without an outcome.
pub(super) const SUSPECTED_AFTER: u32 = 3;
/// So often a suspect may end its process while it is handled alone; then it is given up.
const CONDEMNED_AFTER: u64 = 3;
/// How long the notes of a suspect stand that nobody looks at: a week.
const UNUSED_FOR: Duration = Duration::from_secs(7 * 24 * 3_600);
/// How long a note may take to be written, and to be taken out.
const NOTE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a suspect waits for another one of its process.
const TURN_TIMEOUT: Duration = Duration::from_secs(60);
/// The pauses between tries to take a note out. One that stays counts as a death.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(10)];

/// The suspects of one process. Of those that have ended a process before one at a time is handled, so that none is charged
/// with what another one did.
#[derive(Debug, Clone)]
pub struct Suspects(Arc<Semaphore>);

impl Default for Suspects {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// Where the suspects of one queue are noted.
#[derive(Clone)]
pub(super) struct Notes {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) outlet: Arc<Outlet>,
    pub(super) suspects: Suspects,
    /// The queue whose messages they are of.
    pub(super) of: Arc<str>,
    /// Fires when the app drops what runs: a note is tried to be taken out once more, and not longer.
    pub(super) abandon: CancellationToken,
}

/// A suspect whose turn it is.
pub(super) struct Cleared {
    pub(super) run: AloneRun,
    /// Whether it has ended its process too often.
    pub(super) condemned: bool,
}

impl Notes {
    /// Writes down that a suspect begins. One that has ended a process before waits first until no other such one is handled
    /// here. Where the note cannot be written it begins all the same: nobody is condemned for what is not known. `None` if the
    /// app stops before. A note that is on its way is waited for, so that it can be taken out.
    pub(super) async fn begin(&self, suspect: &str, stopping: &CancellationToken) -> Option<Cleared> {
        let queue = format!("{}.suspects.{suspect}", self.of);
        let before = async {
            let deaths = self.deaths(&queue).await;
            let turn = match deaths {
                Ok(1..) => timeout(TURN_TIMEOUT, Arc::clone(&self.suspects.0).acquire_owned()).await,
                _ => return (deaths, None),
            };
            (deaths, turn.ok().and_then(Result::ok))
        };
        let (deaths, turn) = tokio::select! {
            biased;
            () = stopping.cancelled() => return None,
            before = before => before,
        };
        let condemned = deaths.as_ref().is_ok_and(|deaths| *deaths >= CONDEMNED_AFTER);
        let noted = match deaths {
            Ok(_) if condemned => Ok(()),
            Ok(_) => self.write(&queue).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &noted
            && is_logged("a suspected message cannot be noted", &self.of)
        {
            tracing::error!(
                queue,
                error,
                "a message may have ended the processes that handled it, and that it begins cannot be written down: it will not be given up"
            );
        }
        // Also a note of which nobody knows whether it was written is taken out: too few condemn nobody.
        let run = AloneRun { notes: self.clone(), queue, may_be_noted: !condemned, _turn: turn };
        Some(Cleared { run, condemned })
    }

    /// How many processes have died with a suspect.
    async fn deaths(&self, queue: &str) -> Result<u64, String> {
        let state = self.broker.inspect(queue).await.map_err(|error| error.to_string())?;
        Ok(state.map_or(0, |state| state.ready))
    }

    async fn write(&self, queue: &str) -> Result<(), String> {
        let notes = Queue::on_one_node(queue).removed_when_unused_for(UNUSED_FOR);
        let declared = self.broker.declare(&Topology::of_queues([notes])).await;
        declared.map_err(|error| error.to_string())?;
        let note = Envelope::note(MediaType::BYTES, Bytes::new());
        let note = Addressed::to_queue(queue, note);
        self.outlet.forward(note, Instant::now() + NOTE_TIMEOUT).await.map_err(|error| error.to_string())
    }

    /// Removes all notes of a suspect.
    async fn remove_all(&self, queue: &str) -> Result<(), String> {
        self.broker.remove(&Topology::of_queues([Queue::standing(queue)])).await.map_err(|error| error.to_string())
    }

    /// Takes one note out: all are the same.
    async fn remove_one(&self, queue: &str) -> Result<(), String> {
        if self.deaths(queue).await? == 0 {
            return Ok(());
        }
        let queue = Queue::standing(queue);
        let spec = ConsumerSpec { queue, topology: Topology::default(), prefetch: 1, answers: false };
        let mut consumer = self.broker.consume(&spec).await.map_err(|error| error.to_string())?;
        let taken = timeout(NOTE_TIMEOUT, consumer.next()).await;
        let taken = match taken {
            Ok(Some(Ok(delivery))) => {
                delivery.receipt.ack();
                Ok(())
            }
            Ok(Some(Err(error))) => Err(error.to_string()),
            Ok(None) | Err(_) => Err("no note was there any more".into()),
        };
        consumer.close().await;
        taken
    }
}

/// A suspect that is handled alone. Should the process die, its note stays.
pub(super) struct AloneRun {
    notes: Notes,
    queue: String,
    may_be_noted: bool,
    _turn: Option<OwnedSemaphorePermit>,
}

impl AloneRun {
    /// The process lives: a message that was handled to its end is no longer a suspect.
    pub(super) async fn end(self, handled: bool) {
        if !handled && !self.may_be_noted {
            return;
        }
        let mut pauses = PAUSES.into_iter();
        loop {
            let removed = if handled {
                self.notes.remove_all(&self.queue).await
            } else {
                self.notes.remove_one(&self.queue).await
            };
            let Err(error) = removed else { return };
            let Some(pause) = pauses.next().filter(|_| !self.notes.abandon.is_cancelled()) else {
                tracing::warn!(
                    queue = self.queue,
                    error,
                    "the note of a suspected message stays, and counts as a process that died with it"
                );
                return;
            };
            tokio::select! {
                biased;
                () = self.notes.abandon.cancelled() => {}
                () = sleep(pause) => {}
            }
        }
    }
}
