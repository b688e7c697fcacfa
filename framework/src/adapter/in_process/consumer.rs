//! Consumes from a queue of the in-process broker.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use foldhash::HashMap;
use futures::future::BoxFuture;
use futures::task::AtomicWaker;

use crate::adapter::amqp::{ConsumedBindings, Declaration, Declared, DeclaredQueue, Routed, note_broker_death};
use crate::adapter::in_process::connection::Connection;
use crate::adapter::in_process::faults::{FaultKind, Step};
use crate::adapter::in_process::publish::publish;
use crate::adapter::in_process::queue::Subscriber;
use crate::broker::{
    Addressed, Answered, BrokerError, Consumer, ConsumerSpec, Delivery, DeliveryChannel, Names, Receipt,
};

pub(super) fn open(
    connection: &Arc<Connection>,
    declared: &Arc<Declared>,
    spec: &ConsumerSpec,
) -> Result<Box<dyn Consumer>, BrokerError> {
    let mut state = connection.inner.lock();
    let mut topology = Declaration::of(&spec.topology, &connection.names);
    topology.queues.insert(0, DeclaredQueue::of(&spec.queue));
    state.declare(&topology, connection.id)?;
    let bindings = declared.consumes(&DeclaredQueue::of(&spec.queue), &topology);
    let id = state.next_id();
    let wake = Arc::new(AtomicWaker::new());
    let subscriber = Subscriber {
        id,
        session: connection.id,
        prefetch: usize::from(spec.prefetch.max(1)),
        next_tag: 0,
        unsettled: HashMap::default(),
        outbox: VecDeque::new(),
        wake: Arc::clone(&wake),
        cancelled: false,
        mute: false,
        panics: false,
    };
    if let Some(queue) = state.queues.get_mut(&spec.queue.name) {
        queue.subscribers.push(subscriber);
    }
    state.dispatch(&spec.queue.name);
    drop(state);
    let channel = Arc::new_cyclic(|itself| Channel {
        connection: Arc::clone(connection),
        is_of_dead_letters: Names::is_dead_queue(&spec.queue.name),
        queue: spec.queue.name.clone(),
        id,
        answers: spec.answers,
        closed: AtomicBool::new(false),
        told: Mutex::default(),
        wake: Arc::clone(&wake),
        itself: Weak::clone(itself),
    });
    Ok(Box::new(InProcessConsumer { channel, _bindings: bindings }))
}

/// The channel of one consumer.
struct Channel {
    connection: Arc<Connection>,
    queue: String,
    is_of_dead_letters: bool,
    id: u64,
    answers: bool,
    closed: AtomicBool,
    /// Results for [`Consumer::poll_answered`]: the delivery's number, and whether its answer was sent.
    told: Mutex<VecDeque<(u64, bool)>>,
    wake: Arc<AtomicWaker>,
    itself: Weak<Channel>,
}

impl Channel {
    fn shut(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.connection.inner.lock().end_consumer(&self.queue, self.id);
        self.connection.inner.changed();
    }

    fn settle(&self, tag: u64, back: bool) {
        let mut state = self.connection.inner.lock();
        let Some(queue) = state.queues.get_mut(&self.queue) else { return };
        let Some(message) = queue.subscriber(self.id).and_then(|subscriber| subscriber.unsettled.remove(&tag)) else {
            return;
        };
        let evicted = if back { queue.take_back(message) } else { None };
        if evicted.is_some() || !queue.is_idle() {
            state.settle_evicted(&self.queue, evicted.into_iter().collect(), 0);
            state.dispatch(&self.queue);
        }
        drop(state);
        self.connection.inner.changed();
    }
}

impl DeliveryChannel for Channel {
    fn ack(&self, tag: u64) {
        match self.connection.fault(Step::Ack, Some(&self.queue)) {
            // The channel ends before the acknowledgement reaches the broker.
            Some(FaultKind::Redeliver) => self.shut(),
            Some(FaultKind::CrashAfter) => {
                self.settle(tag, false);
                self.connection.shut();
            }
            _ => self.settle(tag, false),
        }
    }

    /// Nothing to do: each settlement takes effect at once.
    fn flush(&self) {}

    fn give_back(&self, tag: u64) {
        self.settle(tag, true);
    }

    fn is_live(&self) -> bool {
        !self.closed.load(Ordering::Acquire) && !self.connection.is_closed()
    }

    fn answer(&self, number: u64, answer: Addressed) -> Answered {
        if !self.answers || !self.is_live() {
            return Answered::Refused(Box::new(answer));
        }
        let fault = self.connection.fault(Step::Answer, None);
        match fault {
            // The answer is lost but reported as sent.
            Some(FaultKind::DropMessage) => return Answered::Left,
            Some(FaultKind::FailedWrite) => {
                self.tell(number, false);
                return Answered::Leaving;
            }
            Some(FaultKind::BlockedWrite) => {
                self.leave_later(number, answer);
                return Answered::Leaving;
            }
            _ => {}
        }
        // The fault may have ended this channel. The answer is lost with it.
        if !self.is_open() {
            return Answered::Leaving;
        }
        // An answer to a caller that is gone is dropped, as with any broker.
        let answer = Routed::of(answer, &self.connection.names);
        let _ = publish(&self.connection, answer, false);
        if fault == Some(FaultKind::CrashAfter) {
            self.connection.shut();
        }
        Answered::Left
    }
}

impl Channel {
    /// Whether the broker still knows this channel.
    fn is_open(&self) -> bool {
        let mut state = self.connection.inner.lock();
        self.is_live() && state.queues.get_mut(&self.queue).is_some_and(|queue| queue.subscriber(self.id).is_some())
    }

    /// Reports whether the answer was sent.
    fn tell(&self, number: u64, left: bool) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push_back((number, left));
        self.wake.wake();
    }

    /// Sends the answer after a pause, unless the channel has ended by then.
    fn leave_later(&self, number: u64, answer: Addressed) {
        let (Some(channel), Some(script)) = (self.itself.upgrade(), &self.connection.faults) else { return };
        let pause = script.silence();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let open = channel.is_open();
            if open {
                let answer = Routed::of(answer, &channel.connection.names);
                let _ = publish(&channel.connection, answer, false);
            }
            channel.tell(number, open);
        });
    }
}

struct InProcessConsumer {
    channel: Arc<Channel>,
    /// They are declared again while it lives.
    _bindings: Option<ConsumedBindings>,
}

impl InProcessConsumer {
    /// The next event, if there is one now. `Some(None)` means that the consumer was cancelled and has no delivery left.
    #[allow(clippy::panic, reason = "a fault that tests ask for")]
    fn poll_once(&mut self) -> Option<Option<Result<Delivery, BrokerError>>> {
        let lost = |reason: &str| Some(Some(Err(BrokerError::Lost { reason: reason.into() })));
        if self.channel.connection.is_closed() {
            return lost("the session was closed");
        }
        let mut state = self.channel.connection.inner.lock();
        let Some(queue) = state.queues.get_mut(&self.channel.queue) else { return lost("the queue was deleted") };
        let counts = queue.counts_deliveries();
        let Some(subscriber) = queue.subscriber(self.channel.id) else { return lost("the consumer was closed") };
        if subscriber.panics {
            drop(state);
            panic!("a fault that a test asked for");
        }
        let Some(tag) = subscriber.outbox.pop_front() else {
            return subscriber.cancelled.then_some(None);
        };
        let message = subscriber.unsettled.get(&tag).cloned()?;
        drop(state);
        if self.channel.connection.fault(Step::Deliver, Some(&self.channel.queue)) == Some(FaultKind::CrashAfter) {
            self.channel.connection.shut();
        }
        let mut envelope = message.envelope;
        if self.channel.is_of_dead_letters {
            note_broker_death(Arc::make_mut(&mut envelope), &self.channel.connection.names);
        }
        Some(Some(Ok(Delivery {
            envelope,
            redelivered: message.redelivered,
            delivery_count: counts.then_some(message.given_back),
            receipt: Receipt::new(tag, Arc::clone(&self.channel) as Arc<dyn DeliveryChannel>),
        })))
    }
}

impl Consumer for InProcessConsumer {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery, BrokerError>>> {
        // Ready deliveries use up tokio's budget, so that they do not starve the thread's other tasks.
        let budget = ready!(tokio::task::coop::poll_proceed(cx));
        self.channel.wake.register(cx.waker());
        match self.poll_once() {
            Some(event) => {
                budget.made_progress();
                Poll::Ready(event)
            }
            None => Poll::Pending,
        }
    }

    fn poll_answered(&mut self, cx: &mut Context<'_>) -> Poll<(u64, bool)> {
        let mut told = self.channel.told.lock().unwrap_or_else(PoisonError::into_inner);
        self.channel.wake.register(cx.waker());
        told.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    fn cancel(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let mut state = self.channel.connection.inner.lock();
            if let Some(subscriber) =
                state.queues.get_mut(&self.channel.queue).and_then(|queue| queue.subscriber(self.channel.id))
            {
                subscriber.cancelled = true;
            }
            state.dispatch(&self.channel.queue);
            drop(state);
            self.channel.wake.wake();
        })
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.channel.shut() })
    }

    fn is_live(&self) -> bool {
        self.channel.is_live()
    }
}

impl Drop for InProcessConsumer {
    fn drop(&mut self) {
        self.channel.shut();
    }
}
