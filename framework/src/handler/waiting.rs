//! Handlers that wait for the answer to a request, as their own actor sees them: it may be the one who is to answer.

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
    /// Whether it has the state to itself.
    pub exclusive: bool,
}

/// A handler of this actor, as far as requests are concerned.
#[derive(Debug, Clone)]
pub struct Answers {
    /// Of what it handles.
    pub kind: Kind,
    /// Key or pattern of that.
    pub key: &'static str,
    /// The lane on which it comes.
    pub lane: Lane,
    /// Whether it needs the state for itself.
    pub exclusive: bool,
}

/// What this actor answers, and by which queues it is asked.
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
    /// Whether its queue's lane hands over one message at a time right now.
    pub narrow: Arc<AtomicBool>,
    /// Whether its queue has delivered something to this instance since it began to consume.
    pub active: Arc<AtomicBool>,
    /// How many handlers wait to have the state for themselves. They hold up their lane until those that share it have ended.
    pub writers: Rc<Cell<usize>>,
}

/// One run of a handler, until it has ended: what it has spawned may ask on, and holds nothing up.
#[derive(Debug, Clone, Default)]
pub struct Handling(Rc<Cell<bool>>);

impl Handling {
    /// It has ended.
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
    /// The lane of its own actor that is to answer, if one is.
    own: Option<Lane>,
}

/// The handlers of one actor that wait for answers right now. Each waits for as many as it asks at once.
#[derive(Debug, Default)]
pub struct Waiters(RefCell<Vec<Rc<Waiter>>>);

/// Ends the waiting as it is dropped.
pub(super) struct Waits<'a> {
    waiters: &'a Waiters,
    waiter: Rc<Waiter>,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.waiters.0.borrow_mut().retain(|waiter| !Rc::ptr_eq(waiter, &self.waiter));
    }
}

/// What a request to the very actor that makes it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnRequest {
    /// It can be answered beside the one that waits.
    Beside,
    /// It can only be answered when the one that waits has ended.
    Behind,
}

impl OwnAnswers {
    /// Whether a message for a handler is answered while another one waits.
    fn judge(&self, waits: HoldsUp, lane: Lane, exclusive: bool) -> OwnRequest {
        let one_by_one = self.ordered && waits.lane == lane;
        if waits.exclusive || exclusive || one_by_one { OwnRequest::Behind } else { OwnRequest::Beside }
    }

    fn is_narrow(&self, lane: Lane) -> bool {
        lane == Lane::Durable && self.narrow.load(Ordering::Relaxed)
    }

    /// As a message finds its handler: by its key, or else by a pattern.
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
    /// A handler waits for the answer to a request, until what is returned is dropped.
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

    /// What a request comes to that arrives from a conversation in which handlers of this actor wait; `None` if none does.
    pub fn judge(&self, request: &Envelope, lane: Lane, exclusive: bool, own: &OwnAnswers) -> Option<OwnRequest> {
        let conversation = request.conversation_id.as_ref()?;
        let waiters = self.0.borrow();
        let mut judged =
            waiters.iter().filter(|waiter| waiter.conversation == *conversation && waiter.handler.is_under_way());
        let first = own.judge(judged.next()?.holds_up, lane, exclusive);
        let behind = |waiter: &Rc<Waiter>| own.judge(waiter.holds_up, lane, exclusive) == OwnRequest::Behind;
        Some(if judged.any(behind) { OwnRequest::Behind } else { first })
    }

    /// How many other handlers of a lane wait for an answer of the same lane, each for one or more.
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

    /// The lane of its own actor that is to answer a request, and whether nobody can before the handler that asks has ended.
    /// Of the kinds the first one is meant that somebody handles.
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
            // One instance of an ordered actor handles. If it is this one after all, the request is refused as it arrives.
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
        // Another instance, or another copy in this process, may answer. Where that cannot be learnt, it is tried.
        let Ok(Some(state)) = bus.broker.inspect(own.queue(lane)?).await else {
            return Some((lane, OwnRequest::Beside));
        };
        let alone = state.consumers <= 1;
        // All that run wait for this lane: what waits in front of the request in the queue is not handled before it.
        let is_seen = held_up < prefetch && state.ready == 0;
        let behind = alone && (judged == OwnRequest::Behind || !is_seen);
        Some((lane, if behind { OwnRequest::Behind } else { OwnRequest::Beside }))
    }
}
