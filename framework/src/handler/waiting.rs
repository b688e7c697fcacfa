//! Tracks the handlers of an actor that wait for an answer, because this same actor may be the one to answer.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::bus::Bus;
use crate::handler::{Lane, LaneLoads};
use crate::message::{Envelope, Kind, MessageId};

/// The pause until it is looked whether a request to the own actor can still arrive.
const FIRST_LOOK: Duration = Duration::from_millis(50);
/// The same while another instance may answer it.
const NEXT_LOOK: Duration = Duration::from_secs(1);

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
    /// The key of what it asks.
    key: String,
    /// The id of the request, once it has arrived at this actor.
    arrived: OnceCell<MessageId>,
}

/// The handlers of one actor that run right now, and those of them that wait for answers.
#[derive(Debug, Default)]
pub struct Waiters {
    /// A handler has one entry for each open request.
    waiting: RefCell<Vec<Rc<Waiter>>>,
    /// How many handlers run, by lane.
    running: [Cell<usize>; Lane::ALL.len()],
}

/// Counts a handler that runs, until dropped.
pub struct Runs {
    waiters: Rc<Waiters>,
    lane: Lane,
}

impl Drop for Runs {
    fn drop(&mut self) {
        let running = &self.waiters.running[self.lane.index()];
        running.set(running.get() - 1);
    }
}

/// Ends the wait when dropped.
pub(super) struct Waits<'a> {
    waiters: &'a Waiters,
    waiter: Rc<Waiter>,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.waiters.waiting.borrow_mut().retain(|waiter| !Rc::ptr_eq(waiter, &self.waiter));
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

    /// Whether a queue with so many consumers has none but this actor's own.
    fn is_alone(&self, lane: Lane, consumers: u64) -> bool {
        consumers == 0 || consumers == 1 && self.loads.most(lane) > 0
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
    /// Records that a handler of a lane runs, until the result is dropped.
    pub fn run(self: &Rc<Self>, lane: Lane) -> Runs {
        let running = &self.running[lane.index()];
        running.set(running.get() + 1);
        Runs { waiters: Rc::clone(self), lane }
    }

    /// Records that a handler waits for an answer, until the returned guard is dropped.
    pub(super) fn wait(
        &self,
        (holds_up, handler): (HoldsUp, Handling),
        conversation: MessageId,
        own: Option<Lane>,
        key: &str,
    ) -> Waits<'_> {
        let arrived = OnceCell::new();
        let waiter = Rc::new(Waiter { holds_up, handler, conversation, own, key: key.to_owned(), arrived });
        self.waiting.borrow_mut().push(Rc::clone(&waiter));
        Waits { waiters: self, waiter }
    }

    /// Judges a request from a conversation in which handlers of this actor wait; `None` if none waits.
    pub fn judge(&self, request: &Envelope, lane: Lane, exclusive: bool, own: &OwnAnswers) -> Option<OwnRequest> {
        let conversation = request.conversation_id.as_ref()?;
        let waiters = self.waiting.borrow();
        if !waiters.iter().any(|waiter| waiter.arrived.get() == Some(&request.id)) {
            let asks = |waiter: &&Rc<Waiter>| {
                waiter.conversation == *conversation
                    && waiter.key == request.key.as_str()
                    && waiter.arrived.get().is_none()
            };
            // Of several with this key it does not matter which: they are asked by handlers of one conversation.
            if let Some(waiter) = waiters.iter().find(asks) {
                let _ = waiter.arrived.set(request.id.clone());
            }
        }
        let mut judged =
            waiters.iter().filter(|waiter| waiter.conversation == *conversation && waiter.handler.is_under_way());
        let first = own.judge(judged.next()?.holds_up, lane, exclusive);
        let behind = |waiter: &Rc<Waiter>| own.judge(waiter.holds_up, lane, exclusive) == OwnRequest::Behind;
        Some(if judged.any(behind) { OwnRequest::Behind } else { first })
    }

    /// How many other handlers of a lane wait for an answer from the same lane. A handler with several requests counts once.
    fn of_lane(&self, lane: Lane, but: &Handling) -> usize {
        let waiters = self.waiting.borrow();
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
        if judged == OwnRequest::Beside && !self.holds_up_all(own, lane, (holds_up, &handler)) {
            return Some((lane, OwnRequest::Beside));
        }
        // Counted before the broker is asked, so that nothing which is delivered meanwhile counts twice. What is missed then is
        // found while the request waits.
        let blocked = self.blocked(own, lane, (holds_up, &handler)).saturating_sub(self.on_their_way(lane));
        // Another instance, or another copy in this process, may answer. If the broker does not tell, the request is sent.
        let Ok(Some(state)) = bus.broker.inspect(own.queue(lane)?).await else {
            return Some((lane, OwnRequest::Beside));
        };
        // The request arrives only if the lane still has room for it and for all that is ahead of it in the queue. A lane without a
        // consumer is about to open one.
        let ready = usize::try_from(state.ready).unwrap_or(usize::MAX);
        let most = own.loads.most(lane);
        let arrives = most == 0 || blocked.saturating_add(ready) < most;
        let behind = own.is_alone(lane, state.consumers) && (judged == OwnRequest::Behind || !arrives);
        Some((lane, if behind { OwnRequest::Behind } else { OwnRequest::Beside }))
    }

    /// Whether nothing more of a lane begins, or arrives, until one of the handlers ends that wait for it.
    fn holds_up_all(&self, own: &OwnAnswers, lane: Lane, (holds_up, handler): (HoldsUp, &Handling)) -> bool {
        let most = own.concurrency.as_ref().map_or(usize::MAX, |most| (*most.borrow()).max(1));
        let waiting = if holds_up.lane == lane { self.of_lane(lane, handler) + 1 } else { 0 };
        // A handler that waits for exclusive state holds up the durable lane.
        let writers = lane == Lane::Durable && own.writers.get() > 0;
        waiting >= most || waiting >= own.loads.most(lane) || writers
    }

    /// Whether a request is the last of those to a lane that have not arrived. It is refused first, which makes room for the others.
    fn is_last(&self, lane: Lane, waiter: &Rc<Waiter>) -> bool {
        let waiting = self.waiting.borrow();
        let may_be_stuck = |other: &&Rc<Waiter>| {
            other.own == Some(lane) && other.arrived.get().is_none() && other.handler.is_under_way()
        };
        waiting.iter().rev().find(may_be_stuck).is_some_and(|last| Rc::ptr_eq(last, waiter))
    }

    /// How many requests to a lane have not arrived yet. They run beside the handlers that ask, so they do not block it.
    fn on_their_way(&self, lane: Lane) -> usize {
        let on_its_way = |waiter: &&Rc<Waiter>| waiter.own == Some(lane) && waiter.arrived.get().is_none();
        self.waiting.borrow().iter().filter(on_its_way).count()
    }

    /// How many deliveries of a lane do not end before one of the handlers that wait for it.
    fn blocked(&self, own: &OwnAnswers, lane: Lane, (holds_up, handler): (HoldsUp, &Handling)) -> usize {
        let waiting = self.of_lane(lane, handler) + usize::from(holds_up.lane == lane);
        let ends = self.running[lane.index()].get().saturating_sub(waiting);
        own.loads.held(lane).saturating_sub(ends)
    }

    /// Ends when a request that was sent can no longer arrive before the asking handler has ended: others came first, and fill the
    /// lane.
    pub(super) async fn stuck(&self, bus: &Bus, own: &OwnAnswers, waits: &Waits<'_>) {
        let Waiter { holds_up, handler, own: lane, arrived, .. } = &*waits.waiter;
        let Some((lane, queue)) = lane.and_then(|lane| Some((lane, own.queue(lane)?))) else { return pending().await };
        let is_stuck = || {
            let asking = (*holds_up, handler);
            // A task that outlives its handler holds up nothing.
            handler.is_under_way()
                && arrived.get().is_none()
                && own.loads.most(lane) > 0
                && self.is_last(lane, &waits.waiter)
                && self.holds_up_all(own, lane, asking)
                && self.blocked(own, lane, asking) >= own.loads.most(lane)
        };
        let mut pause = FIRST_LOOK;
        // Ends with the request.
        while arrived.get().is_none() {
            sleep(pause).await;
            if !is_stuck() {
                continue;
            }
            let found = bus.broker.inspect(queue).await;
            if matches!(found, Ok(Some(state)) if own.is_alone(lane, state.consumers)) && is_stuck() {
                return;
            }
            // Another instance may answer. It is asked about seldom.
            pause = NEXT_LOOK;
        }
        pending().await
    }
}
