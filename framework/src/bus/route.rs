use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::broker::{
    Addressed, HOME, KIND, Names, ORIGINAL_EXPIRATION, ORIGINAL_TYPE, Properties, delayed_publish, seal_owned, strip,
};
use crate::message::{Envelope, Kind, Name, ReplyTo};

/// The routing key for a channel, a query or a command of a service by name.
#[must_use]
pub fn channel_key(service: &str, key: &str) -> String {
    format!("{service}:{key}")
}

/// Where an envelope goes: kind and key become an exchange and routing keys. More than one only for a command or
/// channel message with several recipients; such copies share their id.
pub fn route(mut envelope: Box<Envelope>, names: &Names) -> impl Iterator<Item = Addressed> {
    let (kind, delay) = (envelope.kind, envelope.delay);
    let exchange = names.exchange(kind);
    let awaits_reply = envelope.reply_to == Some(ReplyTo::Caller);
    let message_type = envelope.message_type.clone();
    let (last, others) = routing_keys(&mut envelope);
    let (properties, payload) = seal_owned(envelope);
    let properties = Arc::new(properties);
    let address = |routing_key, properties, payload| {
        let (exchange, mandatory) = (Arc::clone(&exchange), kind != Kind::Reply);
        let addressed = Addressed { exchange, routing_key, mandatory, awaits_reply, properties, payload };
        if let Some(delay) = delay { delayed(addressed, kind, message_type.clone(), delay, names) } else { addressed }
    };
    let others = others.into_iter().map(|key| address(key, properties.clone(), payload.clone()));
    let others: Vec<Addressed> = others.collect();
    others.into_iter().chain(last.map(|key| address(key, properties, payload)))
}

/// The way through the delays. Where the message goes when it is due travels in `type` and in its kind; it does not
/// expire before it is published.
fn delayed(
    mut addressed: Addressed,
    kind: Kind,
    message_type: Option<Arc<str>>,
    delay: Duration,
    names: &Names,
) -> Addressed {
    let (exchange, routing_key) = delayed_publish(names, delay);
    let properties = Arc::make_mut(&mut addressed.properties);
    properties.headers.set(KIND, kind.as_str());
    if let Some(given) = message_type {
        properties.headers.set(ORIGINAL_TYPE, given);
    }
    properties.message_type = Some(std::mem::replace(&mut addressed.routing_key, routing_key.into()));
    // A restart of the broker must not lose what waits for days.
    properties.persistent = true;
    if let Some(expiration) = properties.expiration.take() {
        properties.headers.set(ORIGINAL_EXPIRATION, expiration);
    }
    Addressed { exchange: exchange.into(), ..addressed }
}

/// The message as it is published when its delay is over.
#[must_use]
pub fn due(mut properties: Properties, payload: Bytes, names: &Names) -> Option<Addressed> {
    if let Some(home) = properties.headers.remove(HOME).and_then(|home| home.shared_text()) {
        // A delayed attempt that did not find the way back: it is nobody else's.
        strip(&mut properties.headers);
        return Some(Addressed {
            exchange: names.exchange(Kind::Reply),
            routing_key: home,
            mandatory: true,
            awaits_reply: false,
            properties: Arc::new(properties),
            payload,
        });
    }
    let kind = properties.headers.remove(KIND).and_then(|value| value.as_text().and_then(Kind::from_word))?;
    let routing_key = properties.message_type.take()?;
    strip(&mut properties.headers);
    // A foreign sender may have written anything there, and the broker closes the channel over what it cannot read.
    let expiration = properties.headers.remove(ORIGINAL_EXPIRATION);
    properties.expiration = expiration.and_then(|value| value.shared_text()).filter(|text| text.parse::<u32>().is_ok());
    let key = routing_key.split_once(':').map_or(&*routing_key, |(_, key)| key);
    let given = properties.headers.remove(ORIGINAL_TYPE).and_then(|given| given.shared_text());
    properties.message_type = Some(given.unwrap_or_else(|| key.into()));
    let (exchange, properties) = (names.exchange(kind), Arc::new(properties));
    Some(Addressed { exchange, routing_key, mandatory: true, awaits_reply: false, properties, payload })
}

/// The last one, and those before it if there are several.
fn routing_keys(envelope: &mut Envelope) -> (Option<Arc<str>>, Vec<Arc<str>>) {
    let key = &envelope.key;
    let at = |service: &Name| channel_key(service.as_str(), key.as_str()).into();
    let only = match (envelope.kind, &envelope.target) {
        // Nobody answers a reply: where it goes is said once.
        (Kind::Reply, _) => match envelope.reply_to.take() {
            Some(ReplyTo::Queue(queue)) => Some(queue),
            Some(ReplyTo::Caller) | None => None,
        },
        (Kind::Event, _) => Some(key.shared()),
        (_, Some(target)) => Some(at(target)),
        (_, None) => match envelope.recipients.split_last() {
            Some((last, others)) => return (Some(at(last)), others.iter().map(at).collect()),
            None => Some(key.shared()),
        },
    };
    (only, Vec::new())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::broker::{any, is_reserved_header, open};

    fn sent() -> impl Strategy<Value = Envelope> {
        (any::origin(), any::properties(), any::payload(), prop::option::of("[a-z]{1,8}"), 0..=u32::MAX).prop_map(
            |(origin, mut properties, payload, target, expiration)| {
                // What only we write is refused in what is sent.
                properties.headers.retain(|name| !is_reserved_header(name));
                properties.expiration = Some(expiration.to_string().into());
                let mut envelope = open(&origin, &properties, payload, &Names::default());
                envelope.target = target.as_deref().map(crate::message::Name::from_wire);
                envelope
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn what_was_delayed_is_published_in_the_end_as_if_it_had_not_been(
            envelope in sent(), delay in 1..u64::from(u32::MAX), kind in 0..4_usize
        ) {
            let kind = [Kind::Command, Kind::Event, Kind::Query, Kind::Channel][kind];
            // A colon parts service and key.
            let key = crate::message::Key::from_wire(envelope.key.as_str().replace(':', "."));
            let now = Box::new(Envelope { kind, key, ..envelope });
            let later = Box::new(Envelope { delay: Some(Duration::from_millis(delay)), ..(*now).clone() });
            let names = Names::default();
            let (now, later): (Vec<_>, Vec<_>) = (route(now, &names).collect(), route(later, &names).collect());
            prop_assert_eq!(now.len(), later.len());
            for (mut now, later) in now.into_iter().zip(later) {
                prop_assert!(names.is_delay(&later.exchange) && later.routing_key.len() <= 255);
                prop_assert_eq!(&later.properties.expiration, &None, "it would expire while it waits");
                let due = due(Arc::unwrap_or_clone(later.properties), later.payload, &names).unwrap();
                let properties = Arc::make_mut(&mut now.properties);
                strip(&mut properties.headers);
                properties.persistent = true;
                prop_assert_eq!((due.exchange, due.routing_key, due.payload), (now.exchange, now.routing_key, now.payload));
                prop_assert_eq!(due.properties, now.properties);
            }
        }

        #[test]
        fn anything_that_is_due_has_a_way_and_an_expiration_that_the_broker_takes(
            properties in any::properties(), payload in any::payload()
        ) {
            let names = Names::default();
            let says_where = properties.headers.text(KIND).and_then(Kind::from_word).is_some() && properties.message_type.is_some();
            let has_home = properties.headers.text(HOME).is_some();
            match due(properties, payload.clone(), &names) {
                Some(addressed) => {
                    prop_assert!(says_where || has_home);
                    prop_assert_eq!(addressed.payload, payload);
                    prop_assert!(addressed.properties.headers.get(HOME).is_none());
                    let expiration = addressed.properties.expiration.clone().filter(|_| !has_home);
                    prop_assert!(expiration.is_none_or(|text| text.parse::<u32>().is_ok()));
                }
                None => prop_assert!(!says_where && !has_home),
            }
        }
    }

    #[test]
    fn a_reply_is_routed_to_whoever_asked_and_asks_for_no_reply_itself() {
        let key = crate::message::Key::from_wire("a.b");
        let mut reply = Box::new(Envelope::new(Kind::Reply, key, crate::message::MediaType::JSON, Bytes::new()));
        reply.reply_to = Some(ReplyTo::Queue("answers".into()));
        let routed: Vec<Addressed> = route(reply, &Names::default()).collect();
        let [only] = &routed[..] else { panic!("{routed:?}") };
        assert_eq!((&*only.exchange, &*only.routing_key, only.mandatory), ("", "answers", false));
        assert_eq!((&only.properties.reply_to, only.awaits_reply), (&None, false));
    }
}
