//! The open requests of one publisher, by id. Each waits for its reply.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::HashMap;
use tokio::sync::{mpsc, oneshot};

use crate::broker::ReplyEvent;
use crate::bus::Counters;
use crate::message::Envelope;

/// How the wait for a reply ended.
pub(super) enum Waited {
    Reply(Box<Envelope>),
    Lost,
}

/// Why a request is not opened.
pub(super) enum Refused {
    TooMany(usize),
    /// A request with the same id is open already; their replies could not be told apart.
    SameId,
}

/// The most answers to one question to many that may wait unread.
const MAX_ANSWERS: usize = 1_000;

enum Waiting {
    /// Waits for one answer.
    One(oneshot::Sender<Waited>),
    /// Waits for any number of answers.
    Many(mpsc::Sender<Waited>),
}

/// An open request in the table.
struct Entry {
    /// Tells requests with the same id apart. An id is free again as soon as the answer arrives, even if the first caller has not
    /// read it yet.
    number: u64,
    /// Whether it was put on a channel.
    sent: bool,
    waiting: Waiting,
}

#[derive(Default)]
struct Table {
    entries: HashMap<String, Entry>,
    /// How many requests have been opened.
    opened: u64,
}

/// The open requests of one publisher.
pub(super) struct Requests {
    open: Mutex<Table>,
    most: usize,
    counters: Arc<Counters>,
}

/// An open request. Dropping it ends the wait.
pub(super) struct OpenRequest<T = oneshot::Receiver<Waited>> {
    pub answer: T,
    id: String,
    number: u64,
    requests: Arc<Requests>,
}

impl Requests {
    pub(super) fn new(most: usize, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), most, counters })
    }

    /// Opens a request.
    pub(super) fn open(self: &Arc<Self>, id: &str) -> Result<OpenRequest, Refused> {
        let (sender, answer) = oneshot::channel();
        let number = self.insert(id, Waiting::One(sender))?;
        Ok(OpenRequest { answer, id: id.to_owned(), number, requests: Arc::clone(self) })
    }

    /// Opens a question to many. An answer for which there is no room counts as late.
    pub(super) fn open_for_many(self: &Arc<Self>, id: &str) -> Result<OpenRequest<mpsc::Receiver<Waited>>, Refused> {
        let (sender, answer) = mpsc::channel(MAX_ANSWERS);
        let number = self.insert(id, Waiting::Many(sender))?;
        Ok(OpenRequest { answer, id: id.to_owned(), number, requests: Arc::clone(self) })
    }

    fn insert(&self, id: &str, waiting: Waiting) -> Result<u64, Refused> {
        let mut open = self.lock();
        if open.entries.len() >= self.most {
            return Err(Refused::TooMany(self.most));
        }
        if open.entries.contains_key(id) {
            return Err(Refused::SameId);
        }
        open.opened += 1;
        let number = open.opened;
        open.entries.insert(id.to_owned(), Entry { number, sent: false, waiting });
        Ok(number)
    }

    pub(super) fn receive(&self, event: ReplyEvent) {
        match event {
            ReplyEvent::Arrived(reply) => {
                if !self.deliver(reply) {
                    Counters::add(&self.counters.late_replies);
                }
            }
            ReplyEvent::Sent { id } => {
                if let Some(entry) = self.lock().entries.get_mut(id.as_str()) {
                    entry.sent = true;
                }
            }
            ReplyEvent::Lost => {
                // In the order of ids, so that the same seed of the fault script repeats it.
                let lost: BTreeMap<_, _> = self.lock().entries.extract_if(|_, entry| entry.sent).collect();
                for entry in lost.into_values() {
                    // The caller may have stopped waiting.
                    match entry.waiting {
                        Waiting::One(waiting) => drop(waiting.send(Waited::Lost)),
                        Waiting::Many(waiting) => drop(waiting.try_send(Waited::Lost)),
                    }
                }
            }
        }
    }

    /// Hands the reply to its caller. Returns whether a caller still waits.
    fn deliver(&self, reply: Box<Envelope>) -> bool {
        let Some(id) = reply.correlation_id.clone() else { return false };
        let entries = &mut self.lock().entries;
        if let Some(Entry { waiting: Waiting::Many(waiting), .. }) = entries.get(id.as_str()) {
            return waiting.try_send(Waited::Reply(reply)).is_ok();
        }
        match entries.remove(id.as_str()).map(|entry| entry.waiting) {
            Some(Waiting::One(waiting)) => waiting.send(Waited::Reply(reply)).is_ok(),
            Some(Waiting::Many(_)) | None => false,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for OpenRequest<T> {
    fn drop(&mut self) {
        let entries = &mut self.requests.lock().entries;
        if entries.get(&self.id).is_some_and(|entry| entry.number == self.number) {
            entries.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Key, Kind, MediaType};

    fn requests() -> Arc<Requests> {
        Requests::new(8, Arc::default())
    }

    fn reply_to(id: &str) -> ReplyEvent {
        let mut reply = Envelope::new(Kind::Reply, Key::from_wire("a.b"), MediaType::TEXT, "answer".into());
        reply.correlation_id = Some(id.into());
        ReplyEvent::Arrived(Box::new(reply))
    }

    #[test]
    fn an_id_that_is_used_again_while_its_first_caller_returns_keeps_its_answer() {
        let requests = requests();
        let mut first = requests.open("same").ok().unwrap();
        requests.receive(reply_to("same"));
        let mut second = requests.open("same").ok().unwrap();
        assert!(matches!(first.answer.try_recv(), Ok(Waited::Reply(_))));
        drop(first);
        requests.receive(reply_to("same"));
        assert!(matches!(second.answer.try_recv(), Ok(Waited::Reply(_))), "the second caller has its answer");
        drop(second);
        assert!(requests.lock().entries.is_empty(), "nothing is left behind");
    }

    #[test]
    fn a_lost_channel_ends_the_requests_that_were_sent_on_it_and_no_other() {
        let requests = requests();
        let mut sent = requests.open("sent").ok().unwrap();
        let mut unsent = requests.open("unsent").ok().unwrap();
        let mut many = requests.open_for_many("many").ok().unwrap();
        for id in ["sent", "many", "unknown"] {
            requests.receive(ReplyEvent::Sent { id: id.into() });
        }
        requests.receive(ReplyEvent::Lost);
        assert!(matches!(sent.answer.try_recv(), Ok(Waited::Lost)));
        assert!(matches!(many.answer.try_recv(), Ok(Waited::Lost)));
        assert!(unsent.answer.try_recv().is_err(), "it still waits");
        requests.receive(reply_to("unsent"));
        assert!(matches!(unsent.answer.try_recv(), Ok(Waited::Reply(_))));
    }
}
