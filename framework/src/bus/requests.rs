//! Requests that wait for their reply, by id.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

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

type Table = HashMap<String, oneshot::Sender<Waited>>;

/// The open requests of one publisher.
pub(super) struct Requests {
    open: Mutex<Table>,
    most: usize,
    names: Names,
    counters: Arc<Counters>,
}

/// An open request. Dropping it ends the waiting.
pub(super) struct OpenRequest {
    pub answer: oneshot::Receiver<Waited>,
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
        let mut open = self.lock();
        if open.len() >= self.most {
            return Err(Refused::TooMany(self.most));
        }
        if open.contains_key(id) {
            return Err(Refused::SameId);
        }
        open.insert(id.to_owned(), sender);
        Ok(OpenRequest { answer, id: id.to_owned(), requests: Arc::clone(self) })
    }

    pub(super) fn receive(&self, event: ReplyEvent) {
        match event {
            ReplyEvent::Arrived { properties, payload } => {
                let origin = Origin { exchange: String::new(), routing_key: String::new() };
                let reply = open(&origin, *properties, payload, &self.names);
                let waiting = reply.correlation_id.as_ref().and_then(|id| self.lock().remove(id.as_str()));
                let delivered = waiting.is_some_and(|waiting| waiting.send(Waited::Reply(Box::new(reply))).is_ok());
                if !delivered {
                    Counters::add(&self.counters.late_replies);
                }
            }
            ReplyEvent::Lost => {
                for (_, waiting) in self.lock().drain() {
                    // Whoever has stopped waiting does not mind.
                    let _ = waiting.send(Waited::Lost);
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.requests.lock().remove(&self.id);
    }
}
