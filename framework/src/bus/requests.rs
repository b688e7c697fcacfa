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

/// The open requests of one publisher.
pub(super) struct Requests {
    open: Mutex<HashMap<String, oneshot::Sender<Waited>>>,
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

    /// Opens a request; the number of open ones if there are too many.
    pub(super) fn open(self: &Arc<Self>, id: &str) -> Result<OpenRequest, usize> {
        let (sender, answer) = oneshot::channel();
        let mut open = self.lock();
        if open.len() >= self.most {
            return Err(self.most);
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

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, oneshot::Sender<Waited>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.requests.lock().remove(&self.id);
    }
}
