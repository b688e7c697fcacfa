//! Messages of strangers, which no handler can decode.

use std::sync::Arc;

use bytes::Bytes;

use crate::adapter::amqp::Routed;
use crate::message::{ContentEncoding, Envelope, Foreign, Headers, MediaType, MessageId, ReplyTo, Value};

/// How many kinds there are.
pub(super) const KINDS: usize = 6;

/// How deep the headers of one kind are nested.
const DEPTH: usize = 40;

/// A message of this kind that goes where the other one goes.
pub(super) fn message(kind: usize, other: &Routed) -> Routed {
    let Envelope { kind: of, key, .. } = &*other.envelope;
    let mut envelope = Envelope::new(*of, key.clone(), MediaType::JSON, Bytes::from_static(b"no message of ours"));
    // A compression that nobody knows, so that no handler can decode it, whatever type it takes.
    envelope.content_encoding = Some(ContentEncoding::Other("rot13".into()));
    match kind {
        0 => envelope.foreign = Some(Box::new(Foreign { no_id: true, ..Foreign::default() })),
        1 => drop(envelope.headers.set("x-delivery-count", 20_i64)),
        2 => envelope.reply_to = Some(ReplyTo::Queue("amq.rabbitmq.reply-to.made-up".into())),
        3 => envelope.correlation_id = Some(MessageId::from("\u{fffd}\u{0}\n")),
        4 => drop(envelope.headers.set("nested", nested(DEPTH))),
        _ => envelope.message_type = Some("a type of theirs".into()),
    }
    Routed { mandatory: false, envelope: Arc::new(envelope), ..other.clone() }
}

fn nested(depth: usize) -> Value {
    let mut table = Value::from("the innermost");
    for _ in 0..depth {
        table = Value::Table([("within", table)].into_iter().collect::<Headers>());
    }
    table
}
