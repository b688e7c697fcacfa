//! Tracks the handlers of an actor that wait for an answer, because this same actor may be the one to answer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::bus::Bus;
use crate::handler::Lane;
use crate::message::{Envelope, Kind, MessageId};

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
    /// The most deliveries held per lane.
    pub prefetch: usize,
    /// Whether its durable lane hands over one message at a time right now.
    pub narrow: Arc<AtomicBool>,
    /// Whether its durable queue has delivered to this instance since the consumer was opened.
    pub active: Arc<AtomicBool>,
    /// How many handlers wait for exclusive state. They hold up their lane until the handlers that share the state have ended.
    pub writers: Rc<Cell<usize>>,
}

/// One run of a handler, and whether it has ended. Tasks that it spawned may still send requests, but hold up nothing.
#[derive(Debug, Clone, Default)]
pub struct Handling(Rc<Cell<bool>>);

impl Handling {
    /// Marks the run as ended.
    pub(super) fn end(&self) {
        self.0.set(true);
    }

    pub(super) fn is_under_way(&self) -> bool {
        !self.0.get()
    }

    fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

/// A handler that waits.
#[derive(Debug)]
struct Waiter {
    holds_up: HoldsUp,
    handler: Handling,
    conversation: MessageId,
    /// The lane of the same actor that is to answer; `None` if another actor answers.
    own: Option<Lane>,
}

/// The handlers of one actor that wait for answers right now. A handler has one entry for each open request.
#[derive(Debug, Default)]
pub struct Waiters(RefCell<Vec<Rc<Waiter>>>);

/// Ends the wait when dropped.
pub(super) struct Waits<'a> {
    waiters: &'a Waiters,
    waiter: Rc<Waiter>,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.waiters.0.borrow_mut().retain(|waiter| !Rc::ptr_eq(waiter, &self.waiter));
    }
}

/// Whether an actor can answer a request of its own waiting handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnRequest {
    /// The request can be answered beside the waiting handler.
    Beside,
    /// The request can only be answered after the waiting handler has ended.
    Behind,
}

impl OwnAnswers {
    /// Whether a handler on `lane` can answer while another handler waits.
    fn judge(&self, waits: HoldsUp, lane: Lane, exclusive: bool) -> OwnRequest {
        let one_by_one = self.ordered && waits.lane == lane;
        if waits.exclusive || exclusive || one_by_one { OwnRequest::Behind } else { OwnRequest::Beside }
    }

    fn is_narrow(&self, lane: Lane) -> bool {
        lane == Lane::Durable && self.narrow.load(Ordering::Relaxed)
    }

    /// Finds the handler as the handler table does: by exact key, else by pattern.
    fn find(&self, kind: Kind, key: &str) -> Option<&Answers> {
        let exact = self.handlers.iter().find(|handler| handler.kind == kind && handler.key == key);
        let takes = |handler: &&Answers| handler.kind == kind && postrider_grammar::matches(handler.key, key);
        exact.or_else(|| self.handlers.iter().find(takes))
    }

    fn queue(&self, lane: Lane) -> Option<&str> {
        self.queues.iter().find(|(of, _)| *of == lane).map(|(_, queue)| queue.as_str())
    }
}

impl Waiters {
    /// Records that a handler waits for an answer, until the returned guard is dropped.
    pub(super) fn wait(
        &self,
        (holds_up, handler): (HoldsUp, Handling),
        conversation: MessageId,
        own: Option<Lane>,
    ) -> Waits<'_> {
        let waiter = Rc::new(Waiter { holds_up, handler, conversation, own });
        self.0.borrow_mut().push(Rc::clone(&waiter));
        Waits { waiters: self, waiter }
    }

    /// Judges a request from a conversation in which handlers of this actor wait; `None` if none waits.
    pub fn judge(&self, request: &Envelope, lane: Lane, exclusive: bool, own: &OwnAnswers) -> Option<OwnRequest> {
        let conversation = request.conversation_id.as_ref()?;
        let waiters = self.0.borrow();
        let mut judged =
            waiters.iter().filter(|waiter| waiter.conversation == *conversation && waiter.handler.is_under_way());
        let first = own.judge(judged.next()?.holds_up, lane, exclusive);
        let behind = |waiter: &Rc<Waiter>| own.judge(waiter.holds_up, lane, exclusive) == OwnRequest::Behind;
        Some(if judged.any(behind) { OwnRequest::Behind } else { first })
    }

    /// How many other handlers of a lane wait for an answer from the same lane. A handler with several requests counts once.
    fn of_lane(&self, lane: Lane, but: &Handling) -> usize {
        let waiters = self.0.borrow();
        let waits = |waiter: &&Rc<Waiter>| {
            waiter.holds_up.lane == lane
                && waiter.own == Some(lane)
                && !waiter.handler.is(but)
                && waiter.handler.is_under_way()
        };
        let mut handlers: Vec<*const Cell<bool>> =
            waiters.iter().filter(waits).map(|waiter| Rc::as_ptr(&waiter.handler.0)).collect();
        handlers.sort_unstable();
        handlers.dedup();
        handlers.len()
    }

    /// The lane of this actor that is to answer a request, and whether it can answer before the asking handler has ended. The
    /// first of `kinds` that this actor handles counts. `None` if it handles none.
    pub(super) async fn ask(
        &self,
        bus: &Bus,
        own: &OwnAnswers,
        (holds_up, handler): (HoldsUp, Handling),
        kinds: &[Kind],
        key: &str,
    ) -> Option<(Lane, OwnRequest)> {
        let answers = kinds.iter().find_map(|kind| own.find(*kind, key))?;
        let lane = answers.lane;
        let judged = own.judge(holds_up, lane, answers.exclusive);
        if judged == OwnRequest::Behind && own.ordered && lane == Lane::Durable {
            // Only one instance of an ordered actor handles messages. If it turns out to be this one, the request is refused on
            // arrival.
            let is_here = holds_up.lane == lane || own.active.load(Ordering::Relaxed);
            let nobody_is_there = !is_here
                && matches!(bus.broker.inspect(own.queue(lane)?).await, Ok(Some(state)) if state.consumers == 0);
            let behind = is_here || nobody_is_there;
            return Some((lane, if behind { OwnRequest::Behind } else { OwnRequest::Beside }));
        }
        let prefetch = if own.is_narrow(lane) { 1 } else { own.prefetch };
        let most = own.concurrency.as_ref().map_or(usize::MAX, |most| (*most.borrow()).max(1));
        let held_up = if holds_up.lane == lane { self.of_lane(lane, &handler) + 1 } else { 0 };
        let goes_on = lane != Lane::Durable || own.writers.get() == 0;
        if judged == OwnRequest::Beside && held_up < most && held_up < prefetch && goes_on {
            return Some((lane, OwnRequest::Beside));
        }
        // Another instance, or another copy in this process, may answer. If the broker does not tell, the request is sent.
        let Ok(Some(state)) = bus.broker.inspect(own.queue(lane)?).await else {
            return Some((lane, OwnRequest::Beside));
        };
        let alone = state.consumers <= 1;
        // All running handlers wait for this lane, so none ends before the request is answered. The request arrives only if the
        // prefetch has room and no message is ahead of it in the queue.
        let is_seen = held_up < prefetch && state.ready == 0;
        let behind = alone && (judged == OwnRequest::Behind || !is_seen);
        Some((lane, if behind { OwnRequest::Behind } else { OwnRequest::Beside }))
    }
}
