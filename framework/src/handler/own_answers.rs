//! What an actor answers itself, and where.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::watch;

use crate::handler::{Lane, LaneLoads};
use crate::message::Kind;

/// How a handler holds up its actor while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldsUp {
    /// The lane in which it runs.
    pub lane: Lane,
    /// Whether it holds the state exclusively.
    pub exclusive: bool,
}

/// A handler of this actor that can answer requests.
#[derive(Debug, Clone)]
pub struct Answers {
    /// The kind of message it handles.
    pub kind: Kind,
    /// Its key or pattern.
    pub key: &'static str,
    /// The lane on which its messages arrive.
    pub lane: Lane,
    /// Whether it needs the state exclusively.
    pub exclusive: bool,
}

/// The requests that this actor answers, and the queues on which they arrive.
#[derive(Debug, Clone, Default)]
pub struct OwnAnswers {
    /// Its handlers for commands and queries.
    pub handlers: Vec<Answers>,
    /// Its queues.
    pub queues: Vec<(Lane, String)>,
    /// Whether one message is finished before the next begins.
    pub ordered: bool,
    /// How many `&self` handlers run at once per lane; `None` in a unit test.
    pub concurrency: Option<watch::Receiver<usize>>,
    /// What its lanes hold.
    pub loads: LaneLoads,
    /// Whether its durable queue has delivered to this instance since the consumer was opened.
    pub active: Arc<AtomicBool>,
    /// How many handlers wait for exclusive state. They hold up their lane until the handlers that share the state have ended.
    pub writers: Rc<Cell<usize>>,
}

/// Whether an actor can answer a request of its own waiting handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnRequest {
    /// The request can be answered beside the waiting handler.
    Beside,
    /// The request can only be answered after the waiting handler has ended.
    Behind,
}

impl OwnRequest {
    /// Of two waiting handlers, the one that the request must wait for decides.
    pub(super) fn or(self, other: Self) -> Self {
        if other == Self::Behind { Self::Behind } else { self }
    }
}

impl OwnAnswers {
    /// Whether a handler on `lane` can answer while another handler waits.
    pub(super) fn judge(&self, waits: HoldsUp, lane: Lane, exclusive: bool) -> OwnRequest {
        let one_by_one = self.ordered && waits.lane == lane;
        if waits.exclusive || exclusive || one_by_one { OwnRequest::Behind } else { OwnRequest::Beside }
    }

    /// Whether a queue with so many consumers has none but this actor's own.
    pub(super) fn is_alone(&self, lane: Lane, consumers: u64) -> bool {
        consumers == 0 || consumers == 1 && self.loads.consumes(lane)
    }

    /// Finds the handler as the handler table does: by exact key, else by pattern.
    pub(super) fn find(&self, kind: Kind, key: &str) -> Option<&Answers> {
        let exact = self.handlers.iter().find(|handler| handler.kind == kind && handler.key == key);
        let takes = |handler: &&Answers| handler.kind == kind && postrider_grammar::matches(handler.key, key);
        exact.or_else(|| self.handlers.iter().find(takes))
    }

    pub(super) fn queue(&self, lane: Lane) -> Option<&str> {
        self.queues.iter().find(|(of, _)| *of == lane).map(|(_, queue)| queue.as_str())
    }

    /// The most `&self` handlers that run at once.
    pub(super) fn concurrency(&self) -> usize {
        self.concurrency.as_ref().map_or(usize::MAX, |most| (*most.borrow()).max(1))
    }

    /// Whether a handler waits for exclusive state. Until the handlers that share the state have ended, no other begins.
    pub(super) fn writer_waits(&self) -> bool {
        self.writers.get() > 0
    }
}
