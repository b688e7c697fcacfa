//! Sends an order to running processes and waits for an answer.

use std::time::Duration;

use bytes::Bytes;

use crate::bus::{Address, Bus, Options, Payload, RequestError, SendError, stamp};
use crate::inbound::CONTROL;
use crate::message::{Envelope, Kind, MediaType, ReplyTo};

/// [`Wanted::About`](crate::app::control::Wanted::About) in its encoded form.
const ABOUT: &[u8] = br#"{"order":"about"}"#;

/// An order, awaiting its answer.
pub(crate) fn question(bus: &Bus, service: &str, order: Bytes, window: Duration) -> Result<Box<Envelope>, SendError> {
    let address = Address { kind: Kind::Channel, key: CONTROL, service: Some(service) };
    // An order expires when its sender stops waiting.
    let options = Options::default().expiration(window).transient(true);
    let payload = Payload::bytes(order, MediaType::JSON);
    let mut outgoing = bus.identity.keyed(&address, payload, options, bus.confirm_timeout())?;
    outgoing.envelope.reply_to = Some(ReplyTo::Caller);
    stamp(outgoing, &bus.identity, None)
}

/// Asks whether a process of a service is running; returns at the first answer. A process hears orders only once all
/// its actors consume, so all their queues exist by then.
pub(in crate::app) async fn answers(bus: &Bus, service: &str, patience: Duration) -> Result<(), RequestError> {
    let order = question(bus, service, Bytes::from_static(ABOUT), patience)?;
    bus.outlet.request(order, patience, tokio::time::Instant::now() + patience).await.map(drop)
}
