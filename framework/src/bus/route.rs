use crate::broker::{Addressed, Names, seal};
use crate::message::{Envelope, Kind, ReplyTo};

/// The routing key for a channel, a query or a command of a service by name.
#[must_use]
pub fn channel_key(service: &str, key: &str) -> String {
    format!("{service}:{key}")
}

/// Where an envelope goes: kind and key become an exchange and routing keys. More than one only for a command or
/// channel message with several recipients; such copies share their id.
#[must_use]
pub fn route(envelope: Envelope, names: &Names) -> Vec<Addressed> {
    let exchange = names.exchange(envelope.kind);
    let routing_keys = routing_keys(&envelope);
    let awaits_reply = envelope.reply_to == Some(ReplyTo::Caller);
    let mandatory = envelope.kind != Kind::Reply;
    let properties = seal(&envelope);
    routing_keys
        .into_iter()
        .map(|routing_key| Addressed {
            exchange: exchange.clone(),
            routing_key,
            mandatory,
            awaits_reply,
            properties: properties.clone(),
            payload: envelope.payload.clone(),
        })
        .collect()
}

fn routing_keys(envelope: &Envelope) -> Vec<String> {
    let key = envelope.key.as_str();
    match (envelope.kind, &envelope.target) {
        (Kind::Reply, _) => match &envelope.reply_to {
            Some(ReplyTo::Queue(queue)) => vec![queue.clone()],
            Some(ReplyTo::Caller) | None => Vec::new(),
        },
        (Kind::Event, _) => vec![key.to_owned()],
        (_, Some(target)) => vec![channel_key(target.as_str(), key)],
        (_, None) if envelope.recipients.is_empty() => vec![key.to_owned()],
        (_, None) => envelope.recipients.iter().map(|service| channel_key(service.as_str(), key)).collect(),
    }
}
