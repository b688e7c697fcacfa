//! Addresses an envelope: to the owner of its key, to a named service, or to the caller.

use std::sync::Arc;

use crate::broker::{Addressed, To};
use crate::message::{Envelope, Kind, Name, ReplyTo};

/// The key of a channel, query or command of a named service: `service:key`.
#[must_use]
pub fn channel_key(service: &str, key: &str) -> String {
    format!("{service}:{key}")
}

/// Addresses an envelope. A command, query or channel message with several recipients becomes one message for each; the copies
/// share their id.
pub fn route(mut envelope: Box<Envelope>) -> impl Iterator<Item = Addressed> {
    let (kind, delay, bare) = (envelope.kind, envelope.delay.take(), std::mem::take(&mut envelope.fire));
    let (last, others) = addresses(&mut envelope);
    let address = move |to: To, mut envelope: Box<Envelope>| {
        if let To::Key { service, .. } = &to {
            // Each copy is for its own service.
            envelope.target = service.clone().map(Name::from_wire);
        }
        // A delay has to be there, whoever is at its end.
        let mandatory = kind != Kind::Reply && (!bare || delay.is_some());
        Addressed { to, delay, mandatory, bare, envelope: Arc::from(envelope) }
    };
    let others: Vec<Addressed> = others.into_iter().map(|to| address(to, envelope.clone())).collect();
    others.into_iter().chain(last.map(|to| address(to, envelope)))
}

/// The last address, and the others if there are several.
fn addresses(envelope: &mut Envelope) -> (Option<To>, Vec<To>) {
    let kind = envelope.kind;
    let key = |service: Option<&Name>| To::Key { kind, service: service.map(Name::shared), key: envelope.key.shared() };
    let only = match (kind, &envelope.target) {
        // A reply gets no reply: `reply_to` moves into the address.
        (Kind::Reply, _) => match envelope.reply_to.take() {
            Some(ReplyTo::Queue(queue)) => Some(To::Queue(queue)),
            Some(ReplyTo::Caller) | None => None,
        },
        (Kind::Event, _) => Some(key(None)),
        (_, Some(target)) => Some(key(Some(target))),
        (_, None) => match envelope.recipients.split_last() {
            Some((last, others)) => {
                return (Some(key(Some(last))), others.iter().map(|service| key(Some(service))).collect());
            }
            None => Some(key(None)),
        },
    };
    (only, Vec::new())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_reply_is_routed_to_whoever_asked_and_asks_for_no_reply_itself() {
        let key = crate::message::Key::from_wire("a.b");
        let mut reply = Box::new(Envelope::new(Kind::Reply, key, crate::message::MediaType::JSON, Bytes::new()));
        reply.reply_to = Some(ReplyTo::Queue("answers".into()));
        let routed: Vec<Addressed> = route(reply).collect();
        let [only] = &routed[..] else { panic!("{routed:?}") };
        assert_eq!((&only.to, only.mandatory), (&To::Queue("answers".into()), false));
        assert_eq!(only.envelope.reply_to, None);
    }
}
