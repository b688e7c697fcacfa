//! Tests that a delayed message comes out of its delay as if it had been sent without one.

use proptest::prelude::*;

use super::fields_tests::{foreign, written};
use super::*;
use crate::broker::{any as anything, is_reserved_header, resume_expiration, strip};

fn to() -> impl Strategy<Value = To> {
    let kind = prop::sample::select(&[Kind::Command, Kind::Event, Kind::Query, Kind::Channel][..]);
    let key = (kind, prop::option::of("[a-z]{1,8}"), "[a-z]{1,5}(\\.[a-z]{1,5})?").prop_map(|(kind, service, key)| {
        To::Key { kind, service: service.filter(|_| kind != Kind::Event).map(Into::into), key: key.into() }
    });
    prop_oneof![key, "postrider\\.[a-z]{1,8}".prop_map(|queue| To::Queue(queue.into()))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn what_waits_keeps_its_payload_and_does_not_expire_before_it_is_due(
        to in to(), message in foreign(), payload in anything::payload(), millis in 1..u64::from(u32::MAX)
    ) {
        let names = Names::default();
        let envelope = Arc::new(message.envelope(&to, payload));
        let addressed = |delay| Addressed { to: to.clone(), delay, ..Addressed::to_queue("", Arc::clone(&envelope)) };
        let waits = Routed::of(addressed(Some(Duration::from_millis(millis))), &names);
        prop_assert!(names.is_delay(&waits.way.exchange) && waits.way.routing_key.len() <= 255);
        prop_assert_eq!(&waits.envelope.payload, &envelope.payload);
        let sent = written(&waits.envelope, waits.tells_address);
        match &to {
            To::Queue(queue) => prop_assert_eq!(sent.headers.text(HOME), Some(&**queue)),
            To::Key { kind, .. } => {
                prop_assert_eq!(&sent.expiration, &None, "it would expire while it waits");
                prop_assert!(sent.persistent);
                prop_assert_eq!(sent.headers.text("postrider-kind"), Some(kind.as_str()));
                prop_assert_eq!(sent.message_type, Some(to.name()));
            }
        }
        let at_once = Routed::of(addressed(None), &names);
        prop_assert!(Arc::ptr_eq(&at_once.envelope, &envelope), "what is not delayed is sent as it is");
        prop_assert_eq!(at_once.way, Way::to(&to, &names));
        prop_assert_eq!(at_once.tells_address, matches!(to, To::Queue(_)));
    }

    #[test]
    fn what_was_delayed_is_in_the_end_as_if_it_had_not_been(
        to in to(), mut message in foreign(), payload in anything::payload(), millis in 1..u64::from(u32::MAX),
        expiration in prop::option::of(any::<u32>()), given in prop::option::of("[A-Z]{1,8}")
    ) {
        let names = Names::default();
        // Senders may not set reserved headers, and a message straight to a queue needs an id and a kind.
        message.headers.retain(|name| !is_reserved_header(name));
        strip(&mut message.headers);
        message.expiration = expiration.map(|millis| millis.to_string().into());
        message.message_id = Some("it".into());
        if matches!(to, To::Queue(_)) {
            message.headers.set("postrider-kind", "command");
            message.message_type = Some("invoice.create".into());
        } else {
            message.message_type = given.map(Into::into);
        }
        let sent = message.envelope(&to, payload.clone());
        let delay = Some(Duration::from_millis(millis));
        let waits = Routed::of(Addressed { to: to.clone(), delay, ..Addressed::to_queue("", sent.clone()) }, &names);
        let origin = Origin::of(&names, &waits.way.exchange, "10.due".into());
        let mut due = written(&waits.envelope, waits.tells_address).received(&origin, payload);
        if due.headers.remove(HOME).is_none() {
            resume_expiration(&mut due);
        }
        let expected = Envelope { transient: sent.transient && matches!(to, To::Queue(_)), ..sent };
        prop_assert_eq!(written(&due, true), written(&expected, true));
        prop_assert_eq!((due.kind, due.address()), (expected.kind, expected.address()));
    }
}
