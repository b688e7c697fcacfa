//! Requests that wait for their reply, by id.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::HashMap;
use tokio::sync::{mpsc, oneshot};

use crate::broker::{Names, Origin, ReplyEvent, open};
use crate::bus::Counters;
use crate::message::Envelope;

/// How waiting ended.
pub(super) enum Waited {
    Reply(Box<Envelope>),
    Lost,
}

/// Why a request is not opened.
pub(super) enum Refused {
    TooMany(usize),
    /// One with the same id is open already; their replies could not be told apart.
    SameId,
}

/// The most answers to one question to many.
const MAX_ANSWERS: usize = 1_000;

enum Waiting {
    /// For one answer.
    One(oneshot::Sender<Waited>),
    /// For the answers of as many as there are.
    Many(mpsc::Sender<Waited>),
}

type Table = HashMap<String, Waiting>;

/// The open requests of one publisher.
pub(super) struct Requests {
    open: Mutex<Table>,
    most: usize,
    names: Names,
    counters: Arc<Counters>,
}

/// An open request. Dropping it ends the waiting.
pub(super) struct OpenRequest<T = oneshot::Receiver<Waited>> {
    pub answer: T,
    id: String,
    requests: Arc<Requests>,
}

impl Requests {
    pub(super) fn new(most: usize, names: Names, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), most, names, counters })
    }

    /// Opens a request.
    pub(super) fn open(self: &Arc<Self>, id: &str) -> Result<OpenRequest, Refused> {
        let (sender, answer) = oneshot::channel();
        self.insert(id, Waiting::One(sender))?;
        Ok(OpenRequest { answer, id: id.to_owned(), requests: Arc::clone(self) })
    }

    /// Opens a question to many. What comes beyond the limit of answers is counted as late.
    pub(super) fn open_for_many(self: &Arc<Self>, id: &str) -> Result<OpenRequest<mpsc::Receiver<Waited>>, Refused> {
        let (sender, answer) = mpsc::channel(MAX_ANSWERS);
        self.insert(id, Waiting::Many(sender))?;
        Ok(OpenRequest { answer, id: id.to_owned(), requests: Arc::clone(self) })
    }

    fn insert(&self, id: &str, waiting: Waiting) -> Result<(), Refused> {
        let mut open = self.lock();
        if open.len() >= self.most {
            return Err(Refused::TooMany(self.most));
        }
        if open.contains_key(id) {
            return Err(Refused::SameId);
        }
        open.insert(id.to_owned(), waiting);
        Ok(())
    }

    pub(super) fn receive(&self, event: ReplyEvent) {
        match event {
            ReplyEvent::Arrived { properties, payload } => {
                let origin = Origin::default();
                let reply = open(&origin, &properties, payload, &self.names);
                if !self.deliver(reply) {
                    Counters::add(&self.counters.late_replies);
                }
            }
            ReplyEvent::Lost => {
                // In the order of their ids, so that a seed of the fault script can repeat it.
                let lost: BTreeMap<_, _> = self.lock().drain().collect();
                for waiting in lost.into_values() {
                    // Whoever has stopped waiting does not mind.
                    match waiting {
                        Waiting::One(waiting) => drop(waiting.send(Waited::Lost)),
                        Waiting::Many(waiting) => drop(waiting.try_send(Waited::Lost)),
                    }
                }
            }
        }
    }

    /// Whether somebody waits for the reply.
    fn deliver(&self, reply: Envelope) -> bool {
        let Some(id) = reply.correlation_id.clone() else { return false };
        let mut open = self.lock();
        if let Some(Waiting::Many(waiting)) = open.get(id.as_str()) {
            return waiting.try_send(Waited::Reply(Box::new(reply))).is_ok();
        }
        match open.remove(id.as_str()) {
            Some(Waiting::One(waiting)) => waiting.send(Waited::Reply(Box::new(reply))).is_ok(),
            Some(Waiting::Many(_)) | None => false,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for OpenRequest<T> {
    fn drop(&mut self) {
        self.requests.lock().remove(&self.id);
    }
}
