//! The port: what an adapter implements. Start reading at [`Broker`].

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::broker::{
    BrokerError, Capabilities, Delivery, MAX_PROPERTIES_BYTES, OwnWords, Queue, Registry, Subscription, To, Topology,
};
use crate::message::{Envelope, Headers, MessageId, ReplyTo};
use crate::supervise::Tasks;

/// A message with its address: what a publisher sends.
#[derive(Debug, Clone)]
pub struct Addressed {
    /// Where it goes.
    pub to: To,
    /// How much later it is to arrive there; at once without one.
    pub delay: Option<Duration>,
    /// Whether the broker returns the message when no queue takes it.
    pub mandatory: bool,
    /// Whether it carries only what its receiver cannot know otherwise: not its key, where its way tells that.
    pub bare: bool,
    /// The message. With [`ReplyTo::Caller`](crate::message::ReplyTo::Caller) the sender waits for a reply on this publisher, and the
    /// adapter writes the address in its place.
    pub envelope: Arc<Envelope>,
}

impl Addressed {
    /// A message that goes straight into a queue and comes back if there is no such queue.
    pub fn to_queue(queue: impl Into<Arc<str>>, envelope: impl Into<Arc<Envelope>>) -> Self {
        Self { to: To::Queue(queue.into()), delay: None, mandatory: true, bare: false, envelope: envelope.into() }
    }

    /// Whether the sender waits for a reply.
    #[must_use]
    pub fn awaits_reply(&self) -> bool {
        self.envelope.reply_to == Some(ReplyTo::Caller)
    }
}

/// The result of publishing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publication {
    /// The broker has the message, in a queue if one took it.
    Confirmed,
    /// The broker has it back: it was mandatory and no queue took it.
    Returned,
    /// The broker refused it, for example because a queue is full.
    Rejected,
    /// It was sent, and nobody knows whether the broker has it; the text says why.
    Unknown(String),
}

/// What arrives for a sender that waits.
#[derive(Debug)]
pub enum ReplyEvent {
    /// A reply.
    Arrived(Box<Envelope>),
    /// A request is about to be put on the channel to which its reply will come.
    Sent {
        /// The id that its reply will name: its correlation id, or its message id if it has none.
        id: MessageId,
    },
    /// The channel is gone: no reply to what was sent on it will come. Requests that wait for a channel go out on the next one.
    Lost,
}

/// Takes what arrives for senders that wait. Called on the adapter's thread; it must return at once.
pub type ReplySink = Arc<dyn Fn(ReplyEvent) + Send + Sync>;

/// What a consumer consumes.
#[derive(Debug, Clone)]
pub struct ConsumerSpec {
    /// The queue, declared before it is consumed unless it is one that stands.
    pub queue: Queue,
    /// What goes into it, and what else must stand before the first delivery.
    pub topology: Topology,
    /// The most deliveries that may be unsettled at once.
    pub prefetch: u16,
    /// Whether its deliveries may be answered on the channel on which they come.
    pub answers: bool,
}

/// How a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionState {
    /// Whether it is there.
    pub up: bool,
    /// How often it has been made.
    pub epoch: u64,
    /// Whether the broker takes no messages for now, as it is short of memory or disk space.
    pub blocked: bool,
}

/// How a queue stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueState {
    /// Messages ready to be delivered.
    pub ready: u64,
    /// Consumers, everybody's.
    pub consumers: u64,
}

/// A broker: it connects, declares, and opens publishers and consumers.
///
/// All methods may be called from any thread and any tokio runtime. They are cancel safe: a dropped future
/// leaves at worst something declared that nobody uses.
pub trait Broker: Send + Sync + 'static {
    /// What it can do by itself.
    fn capabilities(&self) -> Capabilities;

    /// Where it is, for logs; without secrets.
    fn describe(&self) -> String;

    /// How the connection for publishing stands, now and later.
    fn connection(&self) -> watch::Receiver<ConnectionState>;

    /// The supervised tasks of the app that uses this connection, including those of the adapter. It is the same list each time.
    fn tasks(&self) -> Tasks {
        Tasks::default()
    }

    /// Declares claims, sources, queues and subscriptions, in this order. Declaring what stands already changes nothing. Claims are
    /// listed in the [registry](Broker::registry).
    /// Sources, and what joins them, are declared again whenever a connection is new.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses; the error tells a permanent mistake from a passing one.
    fn declare<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// Declares what stands already, subscriptions left out, to see whether it is the same. It is not declared again by a new
    /// connection.
    ///
    /// # Errors
    /// [`BrokerError::Inequivalent`] when it is another one; as [`Broker::declare`].
    fn compare<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// Removes exactly these subscriptions, then these queues, then these sources and claims. What is not there is no error.
    /// Nor is it declared again by a new connection.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses.
    fn remove<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// How a queue stands; `None` if there is no such queue.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    fn inspect<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Option<QueueState>, BrokerError>>;

    /// What of this does not stand, by its names at the broker; of delays that nobody has used yet, one name says it. Subscriptions cannot
    /// be seen. A claim stands whoever has made it.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    fn absent<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<Vec<String>, BrokerError>>;

    /// What all processes of the namespace know beside messages.
    fn registry(&self) -> Box<dyn Registry + '_>;

    /// What a topology is at this broker, in its own words: for people, and for what a service records of what it has declared. By itself
    /// in the words of this port.
    fn in_own_words(&self, topology: &Topology) -> OwnWords {
        OwnWords::of(topology)
    }

    /// The subscription that was recorded in the broker's own words, if it is one of ours.
    fn recorded_subscription(&self, json: &serde_json::Value) -> Option<Subscription> {
        OwnWords::subscription(json)
    }

    /// The queue that was recorded in the broker's own words; by itself one of which nothing more is known.
    fn recorded_queue(&self, name: &str, arguments: &Headers) -> Queue {
        let _ = arguments;
        Queue::standing(name)
    }

    /// The names of sources and claims that were declared over this connection and that somebody has deleted, also if a new
    /// connection has declared them again meanwhile. `None` where only this process could delete them.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    fn missing(&self) -> BoxFuture<'_, Result<Option<Vec<String>>, BrokerError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Declares again all sources and claims that were declared over this connection, and all subscriptions of what it consumes.
    /// What cannot be bound does not keep the rest from being bound.
    ///
    /// # Errors
    /// The first thing that could not be declared.
    fn restore(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Opens a publisher with its own confirm channel. Replies to what it sends go to `replies`.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    fn publisher(&self, replies: ReplySink) -> BoxFuture<'_, Result<Arc<dyn Publisher>, BrokerError>>;

    /// Declares what the consumer needs and starts it with its own channel. Each call is one channel epoch: when
    /// the consumer ends, call again.
    ///
    /// # Errors
    /// When the broker cannot be reached, or refuses the queue: another with the same name and other arguments
    /// stands already, or somebody else uses it exclusively.
    fn consume<'a>(&'a self, spec: &'a ConsumerSpec) -> BoxFuture<'a, Result<Box<dyn Consumer>, BrokerError>>;

    /// Closes all connections. Open publications resolve, consumers end. Idempotent.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Publishes on one confirm channel.
pub trait Publisher: Send + Sync {
    /// Publishes a message; messages leave in the order in which the futures are first polled, as long as an adapter's queue
    /// has room for them (RabbitMQ's: 1 024). While the
    /// connection is down the message waits; after a reconnect an unconfirmed one is sent again with the same
    /// id. All of it ends at the deadline, so the future always resolves; where an adapter's unconfirmed messages are all it
    /// takes (RabbitMQ's: 1 024), one behind them may end later, when the silent channel is given up (30 s).
    ///
    /// A message whose future is dropped before it was put on a channel never leaves; one that was on a channel then is not
    /// sent again. A request is not sent again either: its sender hears [`ReplyEvent::Lost`].
    ///
    /// # Errors
    /// When the message was certainly not accepted: the broker cannot be reached until the deadline, or refuses
    /// to take it at all.
    fn publish(&self, message: Addressed, deadline: Instant) -> BoxFuture<'static, Result<Publication, BrokerError>>;

    /// [`Publisher::publish`] for a message that was sent before, on another channel, and may have been the reason why that has
    /// ended. It is not sent once more than now.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    fn publish_suspect(
        &self,
        message: Addressed,
        deadline: Instant,
    ) -> BoxFuture<'static, Result<Publication, BrokerError>> {
        self.publish(message, deadline)
    }

    /// The most bytes of properties and headers that it takes right now. What is moved is cut to fit.
    fn max_properties_bytes(&self) -> usize {
        MAX_PROPERTIES_BYTES
    }
}

/// Yields the deliveries of one queue during one channel epoch.
pub trait Consumer: Send {
    /// The next delivery. `None` after [`Consumer::cancel`] once nothing is left, an error when the channel, the
    /// connection or the queue is gone; after either the consumer is done.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery, BrokerError>>>;

    /// [`Consumer::poll_next`] as a future. Cancel safe.
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Delivery, BrokerError>>> {
        Box::pin(poll_fn(|cx| self.poll_next(cx)))
    }

    /// The number of the next delivery whose answer is no longer on its way, and whether it has left; pending when none is on
    /// its way. Those whose answer has not left when the channel ends are delivered again.
    fn poll_answered(&mut self, cx: &mut Context<'_>) -> Poll<(u64, bool)> {
        let _ = cx;
        Poll::Pending
    }

    /// Tells the broker to send no more. What it has sent already can still be pulled and settled.
    fn cancel(&mut self) -> BoxFuture<'_, ()>;

    /// Closes the channel, after what was settled on it has been sent. The broker takes back what is unsettled.
    /// Dropping the consumer does the same without waiting.
    fn close(&mut self) -> BoxFuture<'_, ()>;

    /// Whether the channel is open. Receipts of a closed one settle nothing.
    fn is_live(&self) -> bool;
}
