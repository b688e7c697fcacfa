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

/// A message with its destination: the input of a publisher.
#[derive(Debug, Clone)]
pub struct Addressed {
    /// Where it goes.
    pub to: To,
    /// The delay before it arrives there; `None` for no delay.
    pub delay: Option<Duration>,
    /// Whether the broker returns the message when no queue takes it.
    pub mandatory: bool,
    /// Whether it carries only what its receiver cannot know otherwise: it leaves out its key if its route tells the
    /// key.
    pub bare: bool,
    /// The message. With [`ReplyTo::Caller`](crate::message::ReplyTo::Caller) the sender waits for a reply on this
    /// publisher, and the adapter fills in the address.
    pub envelope: Arc<Envelope>,
}

impl Addressed {
    /// A message that goes straight into a queue. It is returned if there is no such queue.
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
    /// The broker has taken the message; if a queue matched, it is in that queue.
    Confirmed,
    /// The broker returned it: it was mandatory and no queue matched.
    Returned,
    /// The broker rejected it, for example because a queue is full.
    Rejected,
    /// It was sent, but whether the broker has it is unknown; the text says why.
    Unknown(String),
}

/// An event for a sender that waits for replies.
#[derive(Debug)]
pub enum ReplyEvent {
    /// A reply.
    Arrived(Box<Envelope>),
    /// A request is about to be sent on the channel on which its reply will arrive.
    Sent {
        /// The id that its reply will name: its correlation id, or its message id if it has none.
        id: MessageId,
    },
    /// The channel is gone: no reply to the requests sent on it will arrive. Requests that wait for a channel go out on
    /// the next one.
    Lost,
}

/// Receives the events for waiting senders. It is called on the adapter's thread and must return at once.
pub type ReplySink = Arc<dyn Fn(ReplyEvent) + Send + Sync>;

/// What to consume, and how.
#[derive(Debug, Clone)]
pub struct ConsumerSpec {
    /// The queue. It is declared before it is consumed, unless it is a standing one.
    pub queue: Queue,
    /// Its subscriptions, and what else must exist before the first delivery.
    pub topology: Topology,
    /// The most unacknowledged deliveries.
    pub prefetch: u16,
    /// Whether its deliveries may be answered on the channel on which they arrive.
    pub answers: bool,
}

/// The state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionState {
    /// Whether it is open.
    pub up: bool,
    /// How often it has been opened.
    pub epoch: u64,
    /// Whether the broker blocks publishing because it is short of memory or disk space.
    pub blocked: bool,
}

/// The state of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueState {
    /// Messages ready to be delivered.
    pub ready: u64,
    /// The consumers of all processes.
    pub consumers: u64,
}

/// A broker: it declares topology, and opens publishers and consumers.
///
/// All methods may be called from any thread and any tokio runtime. They are cancel safe: a dropped future leaves at
/// worst an unused declaration.
pub trait Broker: Send + Sync + 'static {
    /// The broker's capabilities.
    fn capabilities(&self) -> Capabilities;

    /// The broker's location for logs, without secrets.
    fn describe(&self) -> String;

    /// Watches the state of the publishing connection.
    fn connection(&self) -> watch::Receiver<ConnectionState>;

    /// The supervised tasks of the app that uses this connection, including those of the adapter. It is the same list each time.
    fn tasks(&self) -> Tasks {
        Tasks::default()
    }

    /// Declares claims, sources, queues and subscriptions, in this order. Declaring what already exists changes
    /// nothing. Sources, and what connects them, are declared
    /// again after every reconnect.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses; the error distinguishes permanent from temporary failures.
    fn declare<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// Declares what already exists, except subscriptions, to check that it has the same arguments. A reconnect does not
    /// declare it again.
    ///
    /// # Errors
    /// [`BrokerError::Inequivalent`] when the arguments differ; as [`Broker::declare`].
    fn compare<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// Removes exactly these subscriptions, then these queues, then these sources and claims. Removing what does not
    /// exist is no error. A reconnect does not declare it again.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses.
    fn remove<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// The state of a queue; `None` if there is no such queue.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    fn inspect<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Option<QueueState>, BrokerError>>;

    /// The parts of the topology that do not exist, by their names at the broker. If no delay has been used yet, one
    /// name stands for all delays. Subscriptions cannot be checked. A claim counts as existing whichever service made
    /// it.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    fn absent<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<Vec<String>, BrokerError>>;

    /// The data that all processes of the namespace share apart from messages.
    fn registry(&self) -> Box<dyn Registry + '_>;

    /// A topology in this broker's own words, for people and for a service's record of its declarations. By default in
    /// the port's words.
    fn in_own_words(&self, topology: &Topology) -> OwnWords {
        OwnWords::of(topology)
    }

    /// The subscription that was recorded in the broker's own words, if it is one of ours.
    fn recorded_subscription(&self, json: &serde_json::Value) -> Option<Subscription> {
        OwnWords::subscription(json)
    }

    /// The queue that was recorded in the broker's own words. By default a standing queue with unknown arguments.
    fn recorded_queue(&self, name: &str, arguments: &Headers) -> Queue {
        let _ = arguments;
        Queue::standing(name)
    }

    /// The names of sources and claims that were declared over this connection and then deleted by another party,
    /// including those that a reconnect has since declared again. `None` if only this process could delete them.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    fn missing(&self) -> BoxFuture<'_, Result<Option<Vec<String>>, BrokerError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Declares again all sources and claims that were declared over this connection, and all subscriptions of its
    /// consumers. A failed subscription does not prevent the others.
    ///
    /// # Errors
    /// The first failure.
    fn restore(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Opens a publisher with a confirm channel of its own. Replies to its messages go to `replies`.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    fn publisher(&self, replies: ReplySink) -> BoxFuture<'_, Result<Arc<dyn Publisher>, BrokerError>>;

    /// Declares what the consumer needs and starts it on a channel of its own. Each call is one channel epoch: when the
    /// consumer ends, call again.
    ///
    /// # Errors
    /// When the broker cannot be reached, or refuses the queue: it exists with other arguments, or another consumer
    /// uses it exclusively.
    fn consume<'a>(&'a self, spec: &'a ConsumerSpec) -> BoxFuture<'a, Result<Box<dyn Consumer>, BrokerError>>;

    /// Closes all connections. Open publications resolve and consumers end. Idempotent.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Publishes on one confirm channel.
pub trait Publisher: Send + Sync {
    /// Publishes a message. Messages are sent in the order in which the futures are first polled, as long as the
    /// adapter's queue has room (RabbitMQ's: 1 024). While the connection is down the message waits; after a reconnect
    /// an unconfirmed message is sent again with the same id. The deadline ends all of it, so the future always
    /// resolves. If an adapter has as many unconfirmed messages as it takes (RabbitMQ's: 1 024), a message behind them
    /// may resolve later, when the silent channel is given up (30 s).
    ///
    /// If the future is dropped before the message is on a channel, the message is never sent. If the message is on a
    /// channel by then, it is not sent again. A request is never sent again: its sender gets [`ReplyEvent::Lost`].
    ///
    /// # Errors
    /// When the message was certainly not accepted: the broker cannot be reached before the deadline, or refuses it
    /// outright.
    fn publish(&self, message: Addressed, deadline: Instant) -> BoxFuture<'static, Result<Publication, BrokerError>>;

    /// [`Publisher::publish`] for a message that was sent before on another channel and may have caused that channel to
    /// end. It is sent only this once.
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

    /// The most bytes of properties and headers that it currently takes. A moved message is cut to fit.
    fn max_properties_bytes(&self) -> usize {
        MAX_PROPERTIES_BYTES
    }
}

/// Yields the deliveries of one queue during one channel epoch.
pub trait Consumer: Send {
    /// The next delivery. `None` after [`Consumer::cancel`] once no delivery is left, an error when the channel, the
    /// connection or the queue is gone; after either the consumer has ended.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery, BrokerError>>>;

    /// [`Consumer::poll_next`] as a future. Cancel safe.
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Delivery, BrokerError>>> {
        Box::pin(poll_fn(|cx| self.poll_next(cx)))
    }

    /// The number of the next delivery whose answer was sent (`true`) or could not be sent (`false`). Pending while
    /// there is none. When the channel ends, deliveries whose answer was not sent are delivered again.
    fn poll_answered(&mut self, cx: &mut Context<'_>) -> Poll<(u64, bool)> {
        let _ = cx;
        Poll::Pending
    }

    /// Tells the broker to send no more. Deliveries already sent can still be received and settled.
    fn cancel(&mut self) -> BoxFuture<'_, ()>;

    /// Closes the channel after the acknowledgements on it have been sent. The broker requeues unacknowledged
    /// deliveries. Dropping the consumer does the same without waiting.
    fn close(&mut self) -> BoxFuture<'_, ()>;

    /// Whether the channel is open. Receipts of a closed channel settle nothing.
    fn is_live(&self) -> bool;
}
