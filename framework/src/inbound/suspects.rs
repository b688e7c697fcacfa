//! Messages that may end the process which handles them.
//!
//! The broker counts how often a message was delivered without an end. It counts all that a process held when it died, and also
//! what an orderly stop gives back, so that the count is a suspicion and nothing more. Who is suspected is handled alone, and
//! before it begins a note of it is written into the queue `{queue}.suspects`, which is removed when handling it has ended in
//! any way but with the process. So each note that is found is a process that died, and only those condemn a message.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, Queue, Topology};
use crate::bus::Outlet;
use crate::inbound::records::{peek, remove, write};
use crate::message::{MessageId, is_logged};

/// From so many deliveries without an end on a message is suspected.
pub(super) const SUSPECTED_AFTER: u32 = 3;
/// So often a suspect may end its process while it is handled alone; then it is given up.
const CONDEMNED_AFTER: usize = 3;
/// The most notes that are kept per queue; of more the oldest are forgotten.
const MOST_NOTES: u16 = 10_000;
/// How long a queue of notes stands that nobody uses: a week.
const UNUSED_FOR_MILLIS: i32 = 7 * 24 * 3_600 * 1_000;
/// How often the removal of a note is tried. One that stays counts as a death.
const TRIES: u32 = 3;

/// The suspects of one process: one at a time is handled, so that none is charged with what another one did.
#[derive(Debug, Clone)]
pub struct Suspects(Arc<Semaphore>);

impl Default for Suspects {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// A suspect that began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    message: String,
    /// Which run of it.
    run: String,
}

/// The notes of one queue.
#[derive(Clone)]
pub(super) struct Notes {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) outlet: Arc<Outlet>,
    pub(super) suspects: Suspects,
    /// The queue whose messages they are of.
    pub(super) of: Arc<str>,
}

/// A suspect whose turn it is.
pub(super) struct Cleared {
    pub(super) run: AloneRun,
    /// Whether it has ended its process too often.
    pub(super) condemned: bool,
}

impl Notes {
    fn queue(&self) -> String {
        format!("{}.suspects", self.of)
    }

    /// Waits until no other suspect is handled in this process, and writes down that this one begins. Where that cannot be
    /// written it begins all the same: nobody is condemned for what is not known. `None` if the app stops before. A note that
    /// is on its way is waited for, so that it can be removed: one that stays counts as a death.
    pub(super) async fn begin(&self, message: String, stopping: &CancellationToken) -> Option<Cleared> {
        let queue = self.queue();
        let before = async {
            let permit = Arc::clone(&self.suspects.0).acquire_owned().await.ok();
            (permit, peek::<Note>(&*self.broker, &queue, MOST_NOTES).await)
        };
        let (permit, notes) = tokio::select! {
            biased;
            () = stopping.cancelled() => return None,
            before = before => before,
        };
        let note = Note { message, run: MessageId::new().as_str().to_owned() };
        let deaths = match notes {
            Ok(notes) => self.write(&queue, &note, &notes).await,
            Err(error) => Err(error.to_string()),
        };
        let deaths = deaths.unwrap_or_else(|error| {
            if is_logged("a suspected message cannot be noted", &queue) {
                tracing::error!(queue, error, message_id = note.message, "a message may have ended the processes that handled it, and that it begins cannot be written down: it will not be given up");
            }
            0
        });
        let run = AloneRun { notes: self.clone(), note, _permit: permit };
        Some(Cleared { run, condemned: deaths >= CONDEMNED_AFTER })
    }

    /// Writes the note, unless there are too many. How many there were.
    async fn write(&self, queue: &str, note: &Note, notes: &[Note]) -> Result<usize, String> {
        let deaths = notes.iter().filter(|other| other.message == note.message).count();
        if deaths < CONDEMNED_AFTER {
            let declared =
                Queue::quorum(queue).with("x-max-length", i32::from(MOST_NOTES)).with("x-expires", UNUSED_FOR_MILLIS);
            let declared = Topology { queues: vec![declared], ..Topology::default() };
            self.broker.declare(&declared).await.map_err(|error| error.to_string())?;
            write(&self.outlet, queue, note).await?;
        }
        Ok(deaths)
    }

    async fn remove(&self, which: impl Fn(&Note) -> bool) {
        let queue = self.queue();
        for _ in 0..TRIES {
            match remove::<Note>(&*self.broker, &queue, MOST_NOTES, &which).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(queue, %error, "the note of a suspected message could not be removed"),
            }
        }
    }
}

/// A suspect that is handled alone. Should the process die, its note stays.
pub(super) struct AloneRun {
    notes: Notes,
    note: Note,
    _permit: Option<OwnedSemaphorePermit>,
}

impl AloneRun {
    /// The process lives. Whoever was handled to the end is no suspect any more.
    pub(super) async fn end(self, handled: bool) {
        let Note { message, run } = &self.note;
        self.notes.remove(|note| note.message == *message && (handled || note.run == *run)).await;
    }
}
