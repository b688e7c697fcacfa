//! Tracks the handlers of an actor that wait for an answer, because this same actor may be the one to answer.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::pending;
use std::iter::once;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use crate::bus::Bus;
use crate::handler::{HoldsUp, Lane, OwnAnswers, OwnRequest};
use crate::message::{Envelope, Kind, MessageId};

/// The pause until it is looked whether a request to the own actor can still be answered in time.
const FIRST_LOOK: Duration = Duration::from_millis(50);
/// The same while another instance may answer it.
const NEXT_LOOK: Duration = Duration::from_secs(1);

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

/// A handler that asks.
#[derive(Debug, Clone)]
pub(super) struct Asking {
    pub(super) holds_up: HoldsUp,
    pub(super) handler: Handling,
    /// The conversation of the message that it handles.
    pub(super) conversation: MessageId,
}

/// Why a request to the own actor cannot be answered before the handler that asks has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Circle {
    /// The one that answers waits for the one that asks.
    Behind,
    /// The lane takes no more, and what it holds waits for the one that asks.
    Full {
        /// The most deliveries that the lane holds at once.
        most: usize,
    },
}

/// A handler that waits.
#[derive(Debug)]
struct Waiter {
    asking: Asking,
    /// The lane of the same actor that is to answer; `None` if another actor answers.
    own: Option<Lane>,
    /// The key of what it asks.
    key: String,
    /// The id of the request, once it has arrived at this actor.
    arrived: OnceCell<MessageId>,
    /// Whether its handler has begun here.
    begun: Cell<bool>,
}

impl Waiter {
    /// Whether it waits as part of this conversation. A task that outlives its handler holds up nothing.
    fn is_of(&self, conversation: &MessageId) -> bool {
        self.asking.conversation == *conversation && self.asking.handler.is_under_way()
    }
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

impl Waiters {
    /// Records that a handler of a lane runs, until the result is dropped.
    pub fn run(self: &Rc<Self>, lane: Lane) -> Runs {
        let running = &self.running[lane.index()];
        running.set(running.get() + 1);
        Runs { waiters: Rc::clone(self), lane }
    }

    /// Records that a handler waits for an answer, until the returned guard is dropped.
    pub(super) fn wait(&self, asking: Asking, own: Option<Lane>, key: &str) -> Waits<'_> {
        let (arrived, begun) = (OnceCell::new(), Cell::new(false));
        let waiter = Rc::new(Waiter { asking, own, key: key.to_owned(), arrived, begun });
        self.waiting.borrow_mut().push(Rc::clone(&waiter));
        Waits { waiters: self, waiter }
    }

    /// Judges a request from a conversation in which handlers of this actor wait; `None` if none waits.
    pub fn judge(&self, request: &Envelope, lane: Lane, exclusive: bool, own: &OwnAnswers) -> Option<OwnRequest> {
        let conversation = request.conversation_id.as_ref()?;
        let waiters = self.waiting.borrow();
        if !waiters.iter().any(|waiter| waiter.arrived.get() == Some(&request.id)) {
            let asks = |waiter: &&Rc<Waiter>| {
                waiter.asking.conversation == *conversation
                    && waiter.key == request.key.as_str()
                    && waiter.arrived.get().is_none()
            };
            // Of several with this key it does not matter which: they are asked by handlers of one conversation.
            if let Some(waiter) = waiters.iter().find(asks) {
                let _ = waiter.arrived.set(request.id.clone());
            }
        }
        let judged = waiters.iter().filter(|waiter| waiter.is_of(conversation));
        judged.map(|waiter| own.judge(waiter.asking.holds_up, lane, exclusive)).reduce(OwnRequest::or)
    }

    /// Records that the handler of a request has begun.
    pub fn begins(&self, request: &MessageId) {
        let waiters = self.waiting.borrow();
        waiters.iter().filter(|waiter| waiter.arrived.get() == Some(request)).for_each(|waiter| waiter.begun.set(true));
    }

    /// How many other handlers of a lane wait for an answer from the same lane, or for the one that asks. A handler with several
    /// requests counts once.
    fn of_lane(&self, lane: Lane, asking: &Asking) -> usize {
        let waiters = self.waiting.borrow();
        let waits = |waiter: &&Rc<Waiter>| {
            let Asking { holds_up, handler, .. } = &waiter.asking;
            holds_up.lane == lane
                && (waiter.own == Some(lane) || waiter.is_of(&asking.conversation))
                && !handler.is(&asking.handler)
                && handler.is_under_way()
        };
        let mut handlers: Vec<*const Cell<bool>> =
            waiters.iter().filter(waits).map(|waiter| Rc::as_ptr(&waiter.asking.handler.0)).collect();
        handlers.sort_unstable();
        handlers.dedup();
        handlers.len()
    }

    /// The lane of this actor that is to answer a request; `None` if it answers none of `kinds`, of which the first that it
    /// answers counts.
    ///
    /// # Errors
    /// If it can answer only after the asking handler has ended.
    pub(super) async fn ask(
        &self,
        bus: &Bus,
        own: &OwnAnswers,
        asking: &Asking,
        kinds: &[Kind],
        key: &str,
    ) -> Result<Option<Lane>, Circle> {
        let Some(answers) = kinds.iter().find_map(|kind| own.find(*kind, key)) else { return Ok(None) };
        let (lane, Some(queue)) = (answers.lane, own.queue(answers.lane)) else { return Ok(None) };
        let judged = self.judge_own(own, asking, lane, answers.exclusive);
        if judged == OwnRequest::Behind && own.ordered && lane == Lane::Durable {
            // Only one instance of an ordered actor handles messages. If it turns out to be this one, the request is refused on
            // arrival.
            let is_here = asking.holds_up.lane == lane || own.active.load(Ordering::Relaxed);
            let nobody_is_there =
                !is_here && matches!(bus.broker.inspect(queue).await, Ok(Some(state)) if state.consumers == 0);
            return if is_here || nobody_is_there { Err(Circle::Behind) } else { Ok(Some(lane)) };
        }
        if judged == OwnRequest::Beside && !self.holds_up_all(own, lane, asking) {
            return Ok(Some(lane));
        }
        // Counted before the broker is asked, so that nothing which is delivered meanwhile counts twice. What is missed then is
        // found while the request waits.
        let blocked = self.blocked(own, lane, asking).saturating_sub(self.on_their_way(lane));
        // Another instance, or another copy in this process, may answer. If the broker does not tell, the request is sent.
        let Ok(Some(state)) = bus.broker.inspect(queue).await else { return Ok(Some(lane)) };
        if !own.is_alone(lane, state.consumers) {
            return Ok(Some(lane));
        }
        // The request arrives only if the lane still has room for it and for all that is ahead of it in the queue. A lane without a
        // consumer is about to open one.
        let (ready, most) = (usize::try_from(state.ready).unwrap_or(usize::MAX), own.loads.most(lane));
        let arrives = most == 0 || blocked.saturating_add(ready) < most;
        match (judged, arrives) {
            (OwnRequest::Behind, _) => Err(Circle::Behind),
            (OwnRequest::Beside, false) => Err(Circle::Full { most }),
            (OwnRequest::Beside, true) => Ok(Some(lane)),
        }
    }

    /// Judges a request that is to be sent, by all handlers of its conversation that wait here.
    fn judge_own(&self, own: &OwnAnswers, asking: &Asking, lane: Lane, exclusive: bool) -> OwnRequest {
        let waiters = self.waiting.borrow();
        let others = waiters.iter().filter(|waiter| waiter.is_of(&asking.conversation));
        let holding_up = once(asking.holds_up).chain(others.map(|waiter| waiter.asking.holds_up));
        holding_up.map(|holds_up| own.judge(holds_up, lane, exclusive)).fold(OwnRequest::Beside, OwnRequest::or)
    }

    /// Whether nothing more of a lane begins, or arrives, until one of the handlers ends that wait for it.
    fn holds_up_all(&self, own: &OwnAnswers, lane: Lane, asking: &Asking) -> bool {
        let waiting = self.of_lane(lane, asking) + usize::from(asking.holds_up.lane == lane);
        // Nothing overtakes a handler that waits for exclusive state, and that one waits for the handler that asks.
        waiting >= own.concurrency() || waiting >= own.loads.most(lane) || own.writer_waits()
    }

    /// Whether a request is the last of those to a lane that are held up. It is refused first, which makes room for the others.
    fn is_last(&self, own: &OwnAnswers, lane: Lane, waiter: &Rc<Waiter>) -> bool {
        let held_up = |other: &&Rc<Waiter>| {
            other.own == Some(lane)
                && other.arrived.get().is_none()
                && other.asking.handler.is_under_way()
                && self.holds_up_all(own, lane, &other.asking)
        };
        self.waiting.borrow().iter().rev().find(held_up).is_some_and(|last| Rc::ptr_eq(last, waiter))
    }

    /// How many requests to a lane have not arrived yet. They run beside the handlers that ask, so they do not block it.
    fn on_their_way(&self, lane: Lane) -> usize {
        let on_its_way = |waiter: &&Rc<Waiter>| waiter.own == Some(lane) && waiter.arrived.get().is_none();
        self.waiting.borrow().iter().filter(on_its_way).count()
    }

    /// How many deliveries of a lane do not end before one of the handlers that wait for it.
    fn blocked(&self, own: &OwnAnswers, lane: Lane, asking: &Asking) -> usize {
        let waiting = self.of_lane(lane, asking) + usize::from(asking.holds_up.lane == lane);
        let ends = self.running[lane.index()].get().saturating_sub(waiting);
        own.loads.unfinished(lane).saturating_sub(ends)
    }

    /// Ends when a request that was sent can no longer be answered before the asking handler has ended: others came first and fill
    /// the lane, or a handler that waits for exclusive state will begin before it.
    pub(super) async fn stuck(&self, bus: &Bus, own: &OwnAnswers, waits: &Waits<'_>) -> Circle {
        let Waiter { asking, own: lane, arrived, begun, .. } = &*waits.waiter;
        let Some((lane, queue)) = lane.and_then(|lane| Some((lane, own.queue(lane)?))) else { return pending().await };
        // Only an ordered actor begins it later than it arrives.
        let is_behind =
            || own.ordered && arrived.get().is_some() && asking.handler.is_under_way() && own.writer_waits();
        let is_full = || {
            arrived.get().is_none()
                && own.loads.most(lane) > 0
                && self.is_last(own, lane, &waits.waiter)
                && self.blocked(own, lane, asking) >= own.loads.most(lane)
        };
        let mut pause = FIRST_LOOK;
        // Ends with the request.
        while !begun.get() {
            sleep(pause).await;
            if is_behind() && !begun.get() {
                return Circle::Behind;
            }
            if !is_full() {
                continue;
            }
            let Ok(Some(found)) = bus.broker.inspect(queue).await else { continue };
            let is_alone = own.is_alone(lane, found.consumers);
            // It is in the queue or in the buffer. Else another instance has it, even if that one takes no more.
            let waits_here = found.ready > 0 || own.loads.buffered(lane) > 0;
            if is_alone && waits_here && is_full() {
                return Circle::Full { most: own.loads.most(lane) };
            }
            // Another instance may answer. It is asked about seldom.
            pause = if is_alone { FIRST_LOOK } else { NEXT_LOOK };
        }
        pending().await
    }
}
