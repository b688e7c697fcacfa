//! Builds a routed message for tests of the adapters.

use std::sync::Arc;

use bytes::Bytes;

use crate::adapter::amqp::{Routed, Way};
use crate::message::{Envelope, Key, Kind, MediaType, ReplyTo};

impl Routed {
    /// A command without an id, routed.
    pub(in crate::adapter) fn for_test(exchange: &str, routing_key: &str, awaits_reply: bool) -> Self {
        let mut envelope = Envelope::new(Kind::Command, Key::from_wire(routing_key), MediaType::BYTES, Bytes::new());
        envelope.reply_to = awaits_reply.then_some(ReplyTo::Caller);
        envelope.foreign.get_or_insert_default().no_id = true;
        let way = Way { exchange: exchange.into(), routing_key: routing_key.into() };
        Self { way, mandatory: true, tells_address: false, bare: false, envelope: Arc::new(envelope) }
    }
}
