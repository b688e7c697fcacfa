//! What the broker writes when it gives a message up by itself: because it expired, a queue was too long, or it was
//! given back too often.

use std::sync::Arc;

use bytes::Bytes;

use crate::broker::wire::{KIND, open, strip};
use crate::broker::{Names, Origin, Properties};
use crate::message::{Headers, Value};

/// In front of everything that says why a message is a dead letter.
pub(crate) const DEAD: &str = "postrider-dead-";

/// Writes down in our own headers what the broker's say of the last time it gave the message up, and takes the broker's
/// out. A message that we gave up has none of them.
pub(crate) fn note_broker_death(properties: &mut Properties, names: &Names) {
    let first = |name: &str| properties.headers.text(&format!("x-first-death-{name}")).map(str::to_owned);
    let (first_reason, first_exchange) = (first("reason"), first("exchange"));
    // The last time comes first.
    let entry = match properties.headers.get("x-death") {
        Some(Value::List(entries)) => entries.iter().find_map(table).cloned(),
        _ => None,
    };
    if entry.is_some() || first_reason.is_some() {
        let entry = entry.unwrap_or_default();
        let text = |name: &str| entry.text(name).map(str::to_owned);
        // Whoever sent it cannot have known why it would be given up.
        properties.headers.retain(|name| !name.starts_with(DEAD));
        if let Some(reason) = text("reason").or(first_reason) {
            properties.headers.set("postrider-dead-reason", reason);
        }
        if let Some(Value::Timestamp(at)) = entry.get("time") {
            properties.headers.set("postrider-dead-at", Value::Timestamp(*at));
        }
        let exchange = text("exchange").or(first_exchange).unwrap_or_default();
        let key = routing_key(&entry).or(properties.message_type.as_deref()).unwrap_or_default();
        name_by(properties, &names.origin(&exchange, key.into()));
    }
    strip(&mut properties.headers);
}

/// The kind and the key, as a lane would have read them from what was delivered.
fn name_by(properties: &mut Properties, origin: &Origin) {
    let envelope = open(origin, properties, Bytes::new());
    properties.headers.set(KIND, envelope.kind.as_str());
    if !(origin.is_moved() && properties.message_type.is_some()) {
        // The whole of it: `invoice:ping` is for a service.
        properties.message_type = Some(Arc::clone(origin.name()));
    }
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
    use super::*;

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

    fn noted(message_type: Option<&str>, headers: &[(&str, Value)]) -> Properties {
        let mut properties = Properties { message_type: message_type.map(Into::into), ..Properties::default() };
        for (name, value) in headers {
            properties.headers.set((*name).to_owned(), value.clone());
        }
        note_broker_death(&mut properties, &Names::default());
        properties
    }

    #[test]
    fn the_last_death_tells_the_key_the_reason_and_the_time() {
        let deaths = vec![death("maxlen", "postrider.event", "order.placed", 7), death("expired", "x", "y", 3)];
        let properties = noted(
            Some("a foreign type"),
            &[
                ("x-death", deaths.into()),
                ("x-first-death-reason", "expired".into()),
                ("postrider-dead-at", Value::Timestamp(1)),
                ("postrider-dead-id", "forged".into()),
            ],
        );
        let headers = &properties.headers;
        assert_eq!(properties.message_type.as_deref(), Some("order.placed"));
        assert_eq!((headers.text("postrider-dead-reason"), headers.text(KIND)), (Some("maxlen"), Some("event")));
        assert_eq!(headers.get("postrider-dead-at"), Some(&Value::Timestamp(7)));
        assert!(headers.get("postrider-dead-id").is_none() && headers.get("x-death").is_none());
    }

    #[test]
    fn a_message_that_came_from_a_delay_keeps_the_key_in_its_type() {
        let deaths = vec![death("expired", "postrider.delay.out", "0.0.invoice", 7)];
        let properties = noted(Some("invoice.create"), &[("x-death", deaths.into()), (KIND, "command".into())]);
        assert_eq!(properties.message_type.as_deref(), Some("invoice.create"));
        assert_eq!(properties.headers.text(KIND), Some("command"));
    }

    #[test]
    fn a_letter_of_ours_stays_as_it_is() {
        let properties = noted(Some("a.b"), &[("postrider-dead-reason", "transient".into())]);
        assert_eq!(properties.headers.text("postrider-dead-reason"), Some("transient"));
        assert_eq!(properties.message_type.as_deref(), Some("a.b"));
    }
}
