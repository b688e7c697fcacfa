//! Generates, for tests, any message that a sender may produce.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use futures::future::{BoxFuture, ready};
use proptest::prelude::*;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::broker::headers::read_header;
use crate::broker::{
    Addressed, Answered, Broker, BrokerError, Capabilities, ConnectionState, Consumer, ConsumerSpec, Delivery,
    DeliveryChannel, Names, Publication, Publisher, QueueRegistry, QueueState, Receipt, Registry, ReplySink, Topology,
};
use crate::message::{
    ContentEncoding, Envelope, Foreign, Headers, Key, Kind, MediaType, MessageId, Name, ReplyTo, Status, Value,
};

/// Names of headers that have a meaning to us or to the broker.
const KNOWN: [&str; 34] = [
    "postrider-original-type",
    "postrider-kind",
    "postrider-original-expiration",
    "postrider-original-user-id",
    "postrider-home",
    "postrider-instance",
    "postrider-causation-id",
    "postrider-conversation-id",
    "postrider-attempt",
    "postrider-timeout",
    "postrider-skip",
    "postrider-recipients",
    "postrider-schema-version",
    "postrider-call-path",
    "postrider-status",
    "postrider-first-error",
    "postrider-skewed-since",
    "postrider-cut-headers",
    "postrider-dead-reason",
    "postrider-dead-error",
    "postrider-dead-first-error",
    "postrider-dead-service",
    "postrider-dead-handler",
    "postrider-dead-attempts",
    "postrider-dead-at",
    "postrider-dead-id",
    "postrider-whatever",
    "authorization",
    "Authorization",
    "x-death",
    "x-first-death-reason",
    "x-first-death-exchange",
    "x-delivery-count",
    "CC",
];

/// Texts that nearly match what some header or property expects.
pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => ".{0,30}",
        2 => prop::sample::select(vec!["", "command", "query", "event", "channel", "reply", "error", "ok"]).prop_map(str::to_owned),
        2 => prop_oneof![
            any::<i64>().prop_map(|n| n.to_string()),
            any::<u64>().prop_map(|n| n.to_string()),
            Just("99999999999999999999".to_owned()),
        ],
        2 => "[a-z:.]{0,20}",
        1 => "(invoice|orders)?:?[a-z]{1,5}(\\.[a-z]{1,5}){0,3}",
    ]
}

/// A value of any type. No float is `NaN`, which is not equal to itself.
pub(crate) fn value() -> impl Strategy<Value = Value> {
    let numbers = prop_oneof![
        any::<i8>().prop_map(Value::I8),
        any::<u8>().prop_map(Value::U8),
        any::<i16>().prop_map(Value::I16),
        any::<u16>().prop_map(Value::U16),
        any::<i32>().prop_map(Value::I32),
        any::<u32>().prop_map(Value::U32),
        any::<i64>().prop_map(Value::I64),
        prop::sample::select(vec![i64::MIN, -1, 0, 1, i64::MAX]).prop_map(Value::I64),
        any::<u64>().prop_map(Value::Timestamp),
        Just(Value::Timestamp(u64::MAX)),
        (any::<u8>(), any::<u32>()).prop_map(|(scale, value)| Value::Decimal { scale, value }),
        any::<f32>().prop_filter("a number", |n| !n.is_nan()).prop_map(Value::F32),
        any::<f64>().prop_filter("a number", |n| !n.is_nan()).prop_map(Value::F64),
    ];
    let leaf = prop_oneof![
        4 => numbers,
        1 => Just(Value::Void),
        1 => any::<bool>().prop_map(Value::Bool),
        4 => text().prop_map(Value::from),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Value::Bytes(bytes.into())),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
            prop::collection::btree_map(name(), inner, 0..4)
                .prop_map(|table| Value::Table(table.into_iter().collect())),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => prop::sample::select(&KNOWN[..]).prop_map(str::to_owned), 1 => "[a-zA-Z-]{0,20}", 1 => "\\PC{0,8}"]
}

/// Headers with any names, ours included, and values of any type.
pub(crate) fn headers() -> impl Strategy<Value = Headers> {
    prop::collection::btree_map(name(), value(), 0..10).prop_map(|headers| headers.into_iter().collect())
}

/// An envelope as any sender may produce it, with any of our headers and more.
pub(crate) fn envelope() -> impl Strategy<Value = Envelope> {
    let media_type = prop_oneof![
        prop::sample::select(vec!["application/json", "application/msgpack", "text/plain", "x/y+json; a=b", ";"])
            .prop_map(str::to_owned),
        text(),
    ];
    let some = || prop::option::of(text());
    let texts = (prop::option::of(media_type), some(), some(), some(), some(), some(), some(), some(), some());
    let way = (prop::sample::select(&Kind::ALL[..]), text(), some());
    let seconds = prop::option::of(prop_oneof![any::<u64>(), Just(u64::MAX), 0..2_000_000_000_u64]);
    let rest = (seconds, prop::option::of(any::<u64>()), any::<bool>(), prop::option::of(any::<u8>()));
    (way, texts, rest, headers(), payload()).prop_map(|(way, texts, rest, headers, payload)| {
        let ((kind, key, target), (seconds, millis, transient, priority)) = (way, rest);
        let (media_type, id, correlation_id, reply_to, message_type, source, odd_expiration, user_id, encoding) = texts;
        let mut foreign = Foreign { no_media_type: media_type.is_none(), ..Foreign::default() };
        let media_type = media_type.map_or(MediaType::BYTES, MediaType::new);
        let id = id.filter(|id| !id.is_empty()).map(MessageId::from);
        foreign.no_id = id.is_none();
        (foreign.expiration, foreign.user_id) = (odd_expiration.map(Into::into), user_id.map(Into::into));
        let mut envelope = Envelope::with_id(kind, Key::from_wire(key), id.unwrap_or_default(), media_type, payload);
        envelope.target = target.map(Name::from_wire).filter(|_| !matches!(kind, Kind::Event | Kind::Reply));
        envelope.correlation_id = correlation_id.map(MessageId::from);
        envelope.reply_to = reply_to.map(|queue| ReplyTo::Queue(queue.into()));
        envelope.message_type = message_type.filter(|given| *given != envelope.key.as_str()).map(Into::into);
        envelope.source = source.map(Name::from_wire);
        envelope.content_encoding = encoding.and_then(|text| ContentEncoding::from_wire(&text.into()));
        envelope.sent_at = seconds.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        foreign.timestamp = seconds.filter(|_| envelope.sent_at.is_none());
        envelope.expiration = millis.map(Duration::from_millis);
        (envelope.transient, envelope.priority) = (transient, priority);
        envelope.status = (kind == Kind::Reply).then_some(Status::Ok);
        envelope.foreign = Some(Box::new(foreign));
        for (name, value) in
            headers.iter().filter(|(name, _)| !["postrider-kind", "postrider-original-type"].contains(name))
        {
            if let Some(value) = read_header(&mut envelope, name, value.clone()) {
                envelope.headers.set(name, value);
            }
        }
        envelope.conversation_id.get_or_insert_with(|| envelope.id.clone());
        envelope
    })
}

/// Payloads: arbitrary bytes, and some that begin like JSON or MessagePack.
pub(crate) fn payload() -> impl Strategy<Value = bytes::Bytes> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..120).prop_map(bytes::Bytes::from),
        "[\\[\\]{}\":,0-9a-z\\\\ .e+-]{0,60}".prop_map(bytes::Bytes::from),
    ]
}

/// A value with this many levels of nesting.
pub(crate) fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::Void, |inner, level| {
        if level % 2 == 0 { Value::List(vec![inner]) } else { Value::Table([("k", inner)].into_iter().collect()) }
    })
}

/// One of our commands, with this id.
pub(crate) fn command(id: &str) -> Envelope {
    Envelope::with_id(Kind::Command, Key::from_wire("a.b"), id.into(), MediaType::BYTES, bytes::Bytes::new())
}

/// A delivery with this receipt and otherwise arbitrary content.
pub(crate) fn delivery(receipt: impl Fn() -> Receipt + Clone) -> impl Strategy<Value = Delivery> {
    let parts = (envelope(), any::<bool>(), prop::option::of(any::<u32>()));
    parts.prop_map(move |(envelope, redelivered, delivery_count)| Delivery {
        envelope: Arc::new(envelope),
        redelivered,
        delivery_count,
        receipt: receipt(),
    })
}

/// A channel that records its calls.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) closed: AtomicBool,
    /// The numbers of the answers, if the channel takes answers.
    pub(crate) answers: Option<Mutex<Vec<u64>>>,
    pub(crate) acked: Mutex<Vec<u64>>,
    pub(crate) given_back: Mutex<Vec<u64>>,
}

impl DeliveryChannel for Told {
    fn ack(&self, tag: u64) {
        self.acked.lock().unwrap().push(tag);
    }

    fn flush(&self) {}

    fn give_back(&self, tag: u64) {
        self.given_back.lock().unwrap().push(tag);
    }

    fn is_live(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    fn answer(&self, number: u64, answer: Addressed) -> Answered {
        let Some(answers) = &self.answers else { return Answered::Refused(Box::new(answer)) };
        answers.lock().unwrap().push(number);
        Answered::Leaving
    }
}

/// A receipt of a channel that no test inspects.
pub(crate) fn receipt() -> Receipt {
    Receipt::new(1, Arc::new(Told::default()))
}

/// Default names for test brokers.
pub(crate) static NAMES: LazyLock<Names> = LazyLock::new(Names::default);

/// A broker, publisher and consumer that accepts everything and delivers nothing.
pub(crate) struct NoBroker;

impl Broker for NoBroker {
    fn capabilities(&self) -> Capabilities {
        Capabilities::none()
    }

    fn describe(&self) -> String {
        "no broker".into()
    }

    fn connection(&self) -> watch::Receiver<ConnectionState> {
        watch::channel(ConnectionState { up: true, epoch: 1, blocked: false }).1
    }

    fn declare<'a>(&'a self, _: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(ready(Ok(())))
    }

    fn compare<'a>(&'a self, _: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(ready(Ok(())))
    }

    fn remove<'a>(&'a self, _: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(ready(Ok(())))
    }

    fn inspect<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<QueueState>, BrokerError>> {
        Box::pin(ready(Ok(None)))
    }

    fn absent<'a>(&'a self, _: &'a Topology) -> BoxFuture<'a, Result<Vec<String>, BrokerError>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn registry(&self) -> Box<dyn Registry + '_> {
        Box::new(QueueRegistry::new(self, &NAMES))
    }

    fn publisher(&self, _: ReplySink) -> BoxFuture<'_, Result<Arc<dyn Publisher>, BrokerError>> {
        Box::pin(ready(Ok(Arc::new(Self) as Arc<dyn Publisher>)))
    }

    fn consume<'a>(&'a self, _: &'a ConsumerSpec) -> BoxFuture<'a, Result<Box<dyn Consumer>, BrokerError>> {
        Box::pin(ready(Ok(Box::new(Self) as Box<dyn Consumer>)))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }
}

impl Publisher for NoBroker {
    fn publish(&self, _: Addressed, _: Instant) -> BoxFuture<'static, Result<Publication, BrokerError>> {
        Box::pin(ready(Ok(Publication::Confirmed)))
    }
}

impl Consumer for NoBroker {
    fn poll_next(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Option<Result<Delivery, BrokerError>>> {
        std::task::Poll::Pending
    }

    fn cancel(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }

    fn is_live(&self) -> bool {
        false
    }
}
