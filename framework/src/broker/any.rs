//! Anything that a sender may put into a message, for tests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::{BoxFuture, ready};
use proptest::prelude::*;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::broker::{
    Addressed, Answered, Broker, BrokerError, Capabilities, ConnectionState, Consumer, ConsumerSpec, Delivery,
    DeliveryChannel, Origin, Properties, Publication, Publisher, QueueState, Receipt, ReplySink, Topology,
};
use crate::message::{Headers, Kind, Value};

/// Names of headers that mean something to us or to the broker.
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

/// Texts that are nearly what some header or property expects.
fn text() -> impl Strategy<Value = String> {
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

/// Headers of any names, ours among them, with values of any type.
pub(crate) fn headers() -> impl Strategy<Value = Headers> {
    prop::collection::btree_map(name(), value(), 0..10).prop_map(|headers| headers.into_iter().collect())
}

/// Properties of any content that fits into AMQP's short texts.
pub(crate) fn properties() -> impl Strategy<Value = Properties> {
    let media_type = prop_oneof![
        prop::sample::select(vec!["application/json", "application/msgpack", "text/plain", "x/y+json; a=b", ";"])
            .prop_map(str::to_owned),
        text(),
    ];
    let texts = (
        prop::option::of(media_type),
        prop::option::of(text()),
        prop::option::of(text()),
        prop::option::of(text()),
        prop::option::of(text()),
        prop::option::of(text()),
        prop::option::of(text()),
        prop::option::of(text()),
        (prop::option::of(text()), prop::option::of(text())),
    );
    let timestamp = prop::option::of(prop_oneof![any::<u64>(), Just(u64::MAX), 0..2_000_000_000_u64]);
    let rest = (timestamp, any::<bool>(), prop::option::of(any::<u8>()), headers());
    (texts, rest).prop_map(|(texts, (timestamp, persistent, priority, headers))| {
        let (content_type, message_id, correlation_id, reply_to, message_type, app_id, expiration, user_id, rest) =
            texts;
        let (content_encoding, cluster_id) = rest;
        Properties {
            content_type: content_type.map(Into::into),
            message_id: message_id.map(Into::into),
            correlation_id: correlation_id.map(Into::into),
            reply_to: reply_to.map(Into::into),
            message_type: message_type.map(Into::into),
            app_id: app_id.map(Into::into),
            timestamp,
            expiration: expiration.map(Into::into),
            persistent,
            priority,
            user_id: user_id.map(Into::into),
            content_encoding: content_encoding.map(Into::into),
            cluster_id: cluster_id.map(Into::into),
            headers,
        }
    })
}

/// Any way in which a message may have been addressed.
pub(crate) fn origin() -> impl Strategy<Value = Origin> {
    let kind = prop::sample::select(&[Kind::Command, Kind::Query, Kind::Event, Kind::Channel][..]);
    (0..6_u8, kind, text()).prop_map(|(way, kind, name)| match way {
        0 => Origin::Queue(name.into()),
        1 => Origin::Delay(name.into()),
        2 => Origin::Foreign(name.into()),
        _ => Origin::Key { kind, key: name.into() },
    })
}

/// Payloads: bytes of any kind, and some that begin like JSON or MessagePack.
pub(crate) fn payload() -> impl Strategy<Value = bytes::Bytes> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..120).prop_map(bytes::Bytes::from),
        "[\\[\\]{}\":,0-9a-z\\\\ .e+-]{0,60}".prop_map(bytes::Bytes::from),
    ]
}

/// A value nested so deeply.
pub(crate) fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::Void, |inner, level| {
        if level % 2 == 0 { Value::List(vec![inner]) } else { Value::Table([("k", inner)].into_iter().collect()) }
    })
}

/// Everything of a delivery but the right to settle it.
pub(crate) fn delivery(receipt: impl Fn() -> Receipt + Clone) -> impl Strategy<Value = Delivery> {
    let parts = (origin(), properties(), payload(), any::<bool>(), prop::option::of(any::<u32>()));
    parts.prop_map(move |(origin, properties, payload, redelivered, delivery_count)| Delivery {
        origin: Arc::new(origin),
        redelivered,
        delivery_count,
        properties: Arc::new(properties),
        payload,
        receipt: receipt(),
    })
}

/// A channel that writes down what it is told.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) closed: AtomicBool,
    /// The numbers of what was answered, if answers are taken.
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

/// The right to settle a delivery of a channel that nobody asks.
pub(crate) fn receipt() -> Receipt {
    Receipt::new(1, Arc::new(Told::default()))
}

/// A broker, publisher and consumer that takes everything and gives nothing.
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

    fn exchange_stands<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<bool, BrokerError>> {
        Box::pin(ready(Ok(true)))
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
