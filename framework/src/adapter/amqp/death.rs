//! Reads the headers that the broker writes when it dead-letters a message by itself: the message expired, its queue was too
//! long, or it was requeued too often.

use crate::adapter::amqp::Origin;
use crate::adapter::amqp::origin::split;
use crate::broker::{DEAD, Names, strip};
use crate::message::{Envelope, Headers, Kind, Value};

/// Copies the facts of the broker's latest dead-lettering into our own headers and removes the broker's headers. A dead
/// letter that we published has no such headers.
pub(in crate::adapter) fn note_broker_death(envelope: &mut Envelope, names: &Names) {
    let headers = &mut envelope.headers;
    let first = |headers: &Headers, name: &str| headers.text(&format!("x-first-death-{name}")).map(str::to_owned);
    let (first_reason, first_exchange) = (first(headers, "reason"), first(headers, "exchange"));
    // The broker puts the latest entry first.
    let entry = match headers.get("x-death") {
        Some(Value::List(entries)) => entries.iter().find_map(table).cloned(),
        _ => None,
    };
    if entry.is_some() || first_reason.is_some() {
        let entry = entry.unwrap_or_default();
        let text = |name: &str| entry.text(name).map(str::to_owned);
        // The sender cannot know why the broker would dead-letter the message, so its own claims are removed.
        headers.retain(|name| !name.starts_with(DEAD));
        if let Some(reason) = text("reason").or(first_reason) {
            headers.set("postrider-dead-reason", reason);
        }
        if let Some(Value::Timestamp(at)) = entry.get("time") {
            headers.set("postrider-dead-at", Value::Timestamp(*at));
        }
        let exchange = text("exchange").or(first_exchange).unwrap_or_default();
        let key = routing_key(&entry).map_or_else(|| envelope.key.shared(), Into::into);
        name_by(envelope, &Origin::of(names, &exchange, key));
    }
    strip(&mut envelope.headers);
}

/// Sets kind and key as a lane would have read them from the original delivery. A message that was moved before keeps its own.
fn name_by(envelope: &mut Envelope, origin: &Origin) {
    let kind = match origin {
        Origin::Queue(_) | Origin::Delay(_) => return,
        Origin::Key { kind, .. } => *kind,
        Origin::Foreign(_) if envelope.kind == Kind::Reply => Kind::Event,
        Origin::Foreign(_) => envelope.kind,
    };
    let (target, key) = split(kind, origin.name());
    let typeless = envelope.foreign.as_mut().is_some_and(|foreign| std::mem::take(&mut foreign.no_type));
    // In the dead-letter queue its type was read as its key.
    if !typeless && envelope.message_type.is_none() && envelope.key != key {
        envelope.message_type = Some(envelope.key.shared());
    }
    (envelope.kind, envelope.target, envelope.key) = (kind, target, key);
    envelope.status = None;
}

fn table(value: &Value) -> Option<&Headers> {
    if let Value::Table(table) = value { Some(table) } else { None }
}

fn routing_key(entry: &Headers) -> Option<&str> {
    let Some(Value::List(keys)) = entry.get("routing-keys") else { return None };
    keys.first().and_then(Value::as_text)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::adapter::amqp::fields::{Fields, Reading};
    use crate::broker::headers::KIND;

    fn death(reason: &str, exchange: &str, key: &str, at: u64) -> Value {
        let entry: Headers = [
            ("reason", Value::from(reason)),
            ("exchange", exchange.into()),
            ("routing-keys", vec![Value::from(key)].into()),
            ("time", Value::Timestamp(at)),
        ]
        .into_iter()
        .collect();
        Value::Table(entry)
    }

    /// A message read from a dead-letter queue.
    fn noted(message_type: Option<&str>, headers: &[(&str, Value)]) -> Envelope {
        let told = headers.iter().find(|(name, _)| *name == KIND).and_then(|(_, kind)| kind.as_text());
        let fields = Fields { message_type: message_type.map(Into::into), ..Fields::default() };
        let origin = Origin::Queue("postrider.invoice.dead".into());
        let mut reading = Reading::begin(&origin, &fields, told, Bytes::new());
        headers.iter().for_each(|(name, value)| reading.header((*name).to_owned(), value.clone()));
        let mut envelope = reading.end();
        note_broker_death(&mut envelope, &Names::default());
        envelope
    }

    #[test]
    fn the_last_death_tells_the_key_the_reason_and_the_time() {
        let deaths = vec![death("maxlen", "postrider.event", "order.placed", 7), death("expired", "x", "y", 3)];
        let letter = noted(
            Some("a foreign type"),
            &[
                ("x-death", deaths.into()),
                ("x-first-death-reason", "expired".into()),
                ("postrider-dead-at", Value::Timestamp(1)),
                ("postrider-dead-id", "forged".into()),
            ],
        );
        let headers = &letter.headers;
        assert_eq!((letter.kind, letter.key.as_str()), (Kind::Event, "order.placed"));
        assert_eq!(letter.message_type.as_deref(), Some("a foreign type"));
        assert_eq!(headers.text("postrider-dead-reason"), Some("maxlen"));
        assert_eq!(headers.get("postrider-dead-at"), Some(&Value::Timestamp(7)));
        assert!(headers.get("postrider-dead-id").is_none() && headers.get("x-death").is_none());
    }

    #[test]
    fn a_message_for_one_service_that_the_broker_gave_up_stays_for_that_service() {
        let deaths = vec![death("expired", "postrider.command", "invoice:ping", 7)];
        let letter = noted(None, &[("x-death", deaths.into())]);
        assert_eq!((letter.kind, &*letter.address()), (Kind::Command, "invoice:ping"));
        assert_eq!(letter.message_type, None, "the name of the dead-letter queue is no type");
    }

    #[test]
    fn a_message_that_came_from_a_delay_keeps_the_key_in_its_type() {
        let deaths = vec![death("expired", "postrider.delay.out", "0.0.invoice", 7)];
        let letter = noted(Some("invoice.create"), &[("x-death", deaths.into()), (KIND, "command".into())]);
        assert_eq!((letter.kind, letter.key.as_str()), (Kind::Command, "invoice.create"));
    }

    #[test]
    fn a_letter_of_ours_stays_as_it_is() {
        let letter = noted(Some("a.b"), &[("postrider-dead-reason", "transient".into())]);
        assert_eq!(letter.headers.text("postrider-dead-reason"), Some("transient"));
        assert_eq!(letter.key.as_str(), "a.b");
    }
}
