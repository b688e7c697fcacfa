//! What goes into a delay comes out of it as it would have gone at once.

use proptest::prelude::*;

use super::*;
use crate::broker::{any, due, is_reserved_header, strip};

/// What is published when the delay is over, as whoever consumes what is due does it.
fn to() -> impl Strategy<Value = To> {
    let kind = prop::sample::select(&[Kind::Command, Kind::Event, Kind::Query, Kind::Channel][..]);
    let key = (kind, prop::option::of("[a-z]{1,8}"), "[a-z]{1,5}(\\.[a-z]{1,5})?").prop_map(|(kind, service, key)| {
        To::Key { kind, service: service.filter(|_| kind != Kind::Event).map(Into::into), key: key.into() }
    });
    prop_oneof![key, "postrider\\.[a-z]{1,8}".prop_map(|queue| To::Queue(queue.into()))]
}

fn message(to: To, delay: Option<Duration>, properties: Properties, payload: Bytes) -> Addressed {
    Addressed { to, delay, ..Addressed::to_queue("", properties, payload) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn what_waits_keeps_its_payload_and_does_not_expire_before_it_is_due(
        to in to(), properties in any::properties(), payload in any::payload(), millis in 1..u64::from(u32::MAX)
    ) {
        let names = Names::default();
        let delay = Some(Duration::from_millis(millis));
        let waits = Routed::of(message(to.clone(), delay, properties.clone(), payload.clone()), &names);
        prop_assert!(names.is_delay(&waits.way.exchange) && waits.way.routing_key.len() <= 255);
        prop_assert!(matches!(waits.way.origin(&names), Origin::Delay(_)));
        prop_assert_eq!(&waits.payload, &payload);
        match &to {
            To::Queue(queue) => {
                prop_assert_eq!(waits.properties.headers.text(HOME), Some(&**queue));
                prop_assert_eq!(&waits.properties.message_type, &properties.message_type);
            }
            To::Key { kind, .. } => {
                prop_assert_eq!(&waits.properties.expiration, &None, "it would expire while it waits");
                prop_assert!(waits.properties.persistent);
                prop_assert_eq!(waits.properties.headers.text(KIND), Some(kind.as_str()));
                prop_assert_eq!(waits.properties.message_type.clone(), Some(to.name()));
            }
        }
        let at_once = Routed::of(message(to.clone(), None, properties.clone(), payload), &names);
        prop_assert_eq!(&*at_once.properties, &properties);
        prop_assert_eq!(at_once.way.origin(&names), Origin::from(&to));
    }

    #[test]
    fn what_was_delayed_is_published_in_the_end_as_if_it_had_not_been(
        to in to(), mut properties in any::properties(), payload in any::payload(), millis in 1..u64::from(u32::MAX),
        expiration in prop::option::of(any::<u32>()), given in prop::option::of("[A-Z]{1,8}")
    ) {
        let names = Names::default();
        // What only we write is refused in what is sent.
        properties.headers.retain(|name| !is_reserved_header(name));
        properties.expiration = expiration.map(|millis| millis.to_string().into());
        let name = to.name();
        let key = name.split_once(':').map_or(&*name, |(_, key)| key);
        properties.message_type = Some(given.map_or_else(|| key.into(), Into::into));
        let waits = message(to.clone(), Some(Duration::from_millis(millis)), properties.clone(), payload.clone());
        let waits = Routed::of(waits, &names);
        let due = due(Arc::unwrap_or_clone(waits.properties), waits.payload).unwrap();
        strip(&mut properties.headers);
        properties.persistent |= matches!(to, To::Key { .. });
        prop_assert_eq!((due.to, due.delay, due.payload), (to, None, payload));
        prop_assert_eq!(&*due.properties, &properties);
    }
}
