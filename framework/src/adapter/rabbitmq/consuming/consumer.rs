//! One consumer on a channel of its own: opens it, reads deliveries, writes acknowledgements.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::adapter::amqp::{ConsumedBindings, Declared};
use crate::adapter::amqp::{Declaration, DeclaredQueue, Origin, Routed, Way, note_broker_death};
use crate::adapter::rabbitmq::ANSWER_TIMEOUT;
use crate::adapter::rabbitmq::consuming::acknowledgements::{Ack, Acks};
use crate::adapter::rabbitmq::declare::{self, answered};
use crate::adapter::rabbitmq::errors::{declaring, on_channel};
use crate::adapter::rabbitmq::properties::{from_client, short};
use crate::adapter::rabbitmq::reconnect::Link;
use crate::adapter::rabbitmq::writes::{ClientMessage, Writes};
use crate::broker::{
    Addressed, Answered, BrokerError, Consumer, ConsumerSpec, Delivery, DeliveryChannel, Names, Receipt,
};
use crate::message::Value;

/// Opens a consumer over `link`. The topology is declared over `declaring`.
pub(in crate::adapter::rabbitmq) async fn open(
    link: &Link,
    declaring: &Link,
    spec: &ConsumerSpec,
    declared: &Arc<Declared>,
    names: &Names,
) -> Result<Box<dyn Consumer>, BrokerError> {
    let (queue, needs) = (DeclaredQueue::of(&spec.queue), Declaration::of(&spec.topology, names));
    let mut declaration = needs.clone();
    declaration.queues.insert(0, queue.clone());
    // An exclusive queue belongs to the connection that declares it.
    let declaring = if queue.exclusive { link } else { declaring };
    let (connection, _) = declaring.up(ANSWER_TIMEOUT).await?;
    declare::declare(&connection, &declaration).await?;
    let (connection, _) = link.up(ANSWER_TIMEOUT).await?;
    let mut opening = Opening { channel: Some(declare::channel(&connection).await?), handle: link.handle.clone() };
    let (channel, consumer) = opening.consume(spec).await?;
    let lane = Arc::new(LaneChannel {
        channel: Arc::new(channel),
        answers: spec.answers.then(Mutex::default),
        acks: Mutex::new(Acks::new(spec.prefetch)),
        open: AtomicBool::new(true),
        names: names.clone(),
        max_properties: link.max_properties(),
        _connection: connection,
    });
    let (handle, counts_deliveries) = (link.handle.clone(), spec.queue.counts_deliveries());
    let is_of_dead_letters = Names::is_dead_queue(&spec.queue.name);
    let (last, living) = ((Way::default(), Arc::default()), declared.consumes(&queue, &needs));
    Ok(Box::new(RabbitConsumer {
        consumer,
        lane,
        handle,
        last,
        counts_deliveries,
        is_of_dead_letters,
        _living: living,
    }))
}

/// A channel without a consumer yet.
struct Opening {
    channel: Option<Channel>,
    handle: Handle,
}

impl Opening {
    async fn consume(&mut self, spec: &ConsumerSpec) -> Result<(Channel, lapin::Consumer), BrokerError> {
        let queue = short("a queue's name", &spec.queue.name)?;
        let ended = || BrokerError::Lost { reason: "the channel was closed".into() };
        let channel = self.channel.as_ref().ok_or_else(ended)?;
        let limited =
            answered("limit the prefetch", channel.basic_qos(spec.prefetch, BasicQosOptions::default())).await?;
        limited.map_err(|error| on_channel(&error))?;
        let options = BasicConsumeOptions::default();
        let consuming = channel.basic_consume(queue, ShortString::default(), options, FieldTable::default());
        let consumer = answered("consume", consuming).await?;
        let consumer = consumer.map_err(|error| declaring(&error, format!("queue {:?}", spec.queue.name)))?;
        Ok((self.channel.take().ok_or_else(ended)?, consumer))
    }
}

impl Drop for Opening {
    /// Closes the channel when the caller has stopped waiting. If the broker's answer came late, the client would keep a consumer
    /// that is never read. Messages delivered to it would stay there until the connection ends.
    fn drop(&mut self) {
        if let Some(channel) = self.channel.take().filter(|channel| channel.status().connected()) {
            self.handle.spawn(async move { timeout(ANSWER_TIMEOUT, channel.close(200, "OK".into())).await });
        }
    }
}

/// The channel of one lane, for one connection.
struct LaneChannel {
    channel: Arc<Channel>,
    /// Answers that are being written; `None` if the lane sends none.
    answers: Option<Mutex<Writes>>,
    acks: Mutex<Acks>,
    open: AtomicBool,
    names: Names,
    /// The most bytes of an answer's properties.
    max_properties: usize,
    /// The connection closes when its last holder drops it.
    _connection: Arc<Connection>,
}

impl DeliveryChannel for LaneChannel {
    // The first poll of the client's future puts the frame into the connection's order. After that the future only waits until the
    // frame is written. If the channel closes instead, the broker delivers again.
    fn ack(&self, tag: u64) {
        let mut acks = self.acks();
        if acks.done(tag) {
            self.send(&mut acks);
        }
    }

    fn flush(&self) {
        self.send(&mut self.acks());
    }

    fn give_back(&self, tag: u64) {
        let mut acks = self.acks();
        if self.is_live() {
            let _ = self.channel.basic_nack(tag, BasicNackOptions { requeue: true, multiple: false }).now_or_never();
        }
        acks.given_back(tag);
    }

    fn is_live(&self) -> bool {
        self.open.load(Ordering::Acquire) && self.channel.status().connected()
    }

    fn answer(&self, number: u64, answer: Addressed) -> Answered {
        let Some(mut answers) = self.answers().filter(|_| self.is_live()) else {
            return Answered::Refused(Box::new(answer));
        };
        match ClientMessage::of(Routed::of(answer.clone(), &self.names), self.max_properties) {
            Ok(message) => {
                // The lane polls for written answers before it waits, so no waker is needed.
                answers.put(number, &self.channel, message, Waker::noop());
                Answered::Leaving
            }
            Err(_) => Answered::Refused(Box::new(answer)),
        }
    }
}

impl LaneChannel {
    fn answers(&self) -> Option<MutexGuard<'_, Writes>> {
        Some(self.answers.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Closes the channel when its answers are written, however long that takes. The client lets the close of a channel overtake
    /// unwritten messages, which would cost the connection. If the connection ends, the wait ends too.
    async fn close(self: Arc<Self>) {
        let answers = self.answers().map(|mut answers| std::mem::take(&mut *answers));
        if let Some(mut answers) = answers {
            answers.all_written().await;
        }
        let _ = timeout(ANSWER_TIMEOUT, self.channel.close(200, "OK".into())).await;
    }

    /// Frames are sent while this lock is held, so that they leave in the order in which they were decided.
    fn acks(&self) -> MutexGuard<'_, Acks> {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, acks: &mut Acks) {
        for ack in acks.flush() {
            let (tag, multiple) = match ack {
                Ack::One(tag) => (tag, false),
                Ack::UpTo(tag) => (tag, true),
            };
            if self.is_live() {
                let _ = self.channel.basic_ack(tag, BasicAckOptions { multiple }).now_or_never();
            }
        }
    }
}

struct RabbitConsumer {
    consumer: lapin::Consumer,
    lane: Arc<LaneChannel>,
    handle: Handle,
    /// The exchange and routing key of the last delivery, and the origin they stand for.
    last: (Way, Arc<Origin>),
    counts_deliveries: bool,
    is_of_dead_letters: bool,
    /// Keeps the bindings of its queue in place.
    _living: Option<ConsumedBindings>,
}

impl Consumer for RabbitConsumer {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery, BrokerError>>> {
        Poll::Ready(match ready!(self.consumer.poll_next_unpin(cx)) {
            Some(Ok(delivery)) => Some(Ok(self.delivery(delivery))),
            Some(Err(error)) => Some(Err(on_channel(&error))),
            None if self.lane.is_live() => None,
            None => Some(Err(BrokerError::Lost { reason: "the channel was closed".into() })),
        })
    }

    fn poll_answered(&mut self, cx: &mut Context<'_>) -> Poll<(u64, bool)> {
        let Some(mut answers) = self.lane.answers() else { return Poll::Pending };
        // A failed write means that the channel has ended.
        answers.poll_written(cx).map(|(number, written)| (number, written.is_ok()))
    }

    fn cancel(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let cancelled = self.lane.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default());
            // Without an answer the channel is closed soon anyway, which cancels the consumer too.
            let _ = timeout(ANSWER_TIMEOUT, cancelled).await;
        })
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.lane.flush();
            if self.lane.open.swap(false, Ordering::AcqRel) && self.lane.channel.status().connected() {
                // Acks and requeues come before the close in the order of frames.
                let closing = self.handle.spawn(Arc::clone(&self.lane).close());
                let _ = timeout(ANSWER_TIMEOUT, closing).await;
            }
        })
    }

    fn is_live(&self) -> bool {
        self.lane.is_live()
    }
}

impl RabbitConsumer {
    /// The origin of a delivery. Deliveries often have the same address as the one before, so the last origin is kept.
    fn origin(&mut self, exchange: &str, routing_key: &str) -> Arc<Origin> {
        let (way, origin) = &mut self.last;
        if *way.exchange != *exchange || *way.routing_key != *routing_key {
            *way = Way { exchange: exchange.into(), routing_key: routing_key.into() };
            *origin = Arc::new(way.origin(&self.lane.names));
        }
        Arc::clone(origin)
    }

    fn delivery(&mut self, delivery: lapin::message::Delivery) -> Delivery {
        let origin = self.origin(delivery.exchange.as_str(), delivery.routing_key.as_str());
        let mut envelope = from_client(&delivery.properties, &origin, delivery.data.into());
        // The broker sets this header from the second delivery on, over the sender's. On the first delivery, and in a queue that
        // does not count, its value is the sender's.
        let counted = self.counts_deliveries && delivery.redelivered;
        let count = envelope.headers.get("x-delivery-count").filter(|_| counted).and_then(Value::as_integer);
        if self.is_of_dead_letters {
            note_broker_death(&mut envelope, &self.lane.names);
        }
        Delivery {
            envelope: Arc::new(envelope),
            redelivered: delivery.redelivered,
            delivery_count: count.and_then(|count| u32::try_from(count).ok()),
            receipt: Receipt::new(delivery.delivery_tag, Arc::clone(&self.lane) as Arc<dyn DeliveryChannel>),
        }
    }
}

impl Drop for RabbitConsumer {
    fn drop(&mut self) {
        self.lane.flush();
        if self.lane.open.swap(false, Ordering::AcqRel) && self.lane.channel.status().connected() {
            let lane = Arc::clone(&self.lane);
            self.handle.spawn(lane.close());
        }
    }
}
