//! Properties of every message in a dead-letter queue.

use proptest::prelude::*;

use super::*;
use crate::broker::headers::ORIGINAL_EXPIRATION;
use crate::broker::{To, any};
use crate::message::Headers;
use crate::operate::dead_letters::DeadFilter;

fn filter() -> impl Strategy<Value = DeadFilter> {
    let text = || prop::option::of("[a-z#*.]{0,6}");
    let time = || prop::option::of(any::<u64>().prop_map(Duration::from_millis));
    let ids = prop::collection::vec(".{0,6}", 0..2);
    (ids, text(), text(), text(), time(), time()).prop_map(|(ids, key, error, reason, newer_than, older_than)| {
        DeadFilter { ids, key, error, reason, newer_than, older_than, ..DeadFilter::all() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_delivery_is_shown_as_a_dead_letter_without_a_panic(delivery in any::delivery(any::receipt), filter in filter()) {
        let letter = DeadLetter::of("postrider.invoice.dead", &delivery);
        prop_assert_eq!(&letter.envelope.payload, &delivery.envelope.payload);
        prop_assert_eq!(letter.home(), "postrider.invoice");
        prop_assert!(DeadFilter::all().takes(&letter) && DeadFilter::id(letter.address()).takes(&letter));
        prop_assert_eq!(DeadFilter::id(letter.id()).takes(&letter), !letter.id().is_empty());
        // An address can be typed and stays the same.
        prop_assert!(!letter.address().is_empty() && letter.address().bytes().all(|b| b.is_ascii_alphanumeric()));
        let again = DeadLetter::of("postrider.invoice.dead", &delivery);
        prop_assert_eq!(again.address(), letter.address());
        prop_assert!(!crate::operate::dead_letters::print::row(&letter).chars().any(char::is_control));
        if letter.at().is_none() {
            let mut aged = DeadFilter::all();
            aged.newer_than = Some(Duration::MAX);
            prop_assert!(!aged.takes(&letter));
            let mut aged = DeadFilter::all();
            aged.older_than = Some(Duration::ZERO);
            prop_assert!(!aged.takes(&letter));
        }
        let _ = filter.takes(&letter);
        let json = letter.to_json();
        prop_assert_eq!(json["id"].as_str(), Some(letter.id()));
        prop_assert_eq!(json["key"].as_str(), Some(letter.key()));
        prop_assert!(json["headers"].as_object().is_some_and(|headers| headers.keys().all(|name| !is_reserved_header(name))));
        // An exported letter is one line.
        let line = json.to_string();
        prop_assert!(!line.contains('\n') && serde_json::from_str::<Json>(&line).is_ok());
        let shown = format!("{letter:?}");
        prop_assert!(!shown.is_empty());
    }

    #[test]
    fn any_letter_lives_again_as_the_first_attempt_at_the_same_message(delivery in any::delivery(any::receipt)) {
        let letter = DeadLetter::of("postrider.invoice.dead", &delivery);
        let revived = letter.revived();
        prop_assert_eq!(&revived.to, &To::Queue("postrider.invoice".into()));
        prop_assert!(revived.mandatory && !revived.envelope.transient && revived.envelope.reply_to.is_none());
        prop_assert_eq!(&revived.envelope.payload, &delivery.envelope.payload);
        let headers = &revived.envelope.headers;
        prop_assert_eq!((revived.envelope.attempt, revived.envelope.has_own_id()), (1, true));
        prop_assert!([ORIGINAL_EXPIRATION, "postrider-first-error", "postrider-dead-error"].iter().all(|name| headers.get(name).is_none()));
        for (name, value) in letter.envelope.headers.iter().filter(|(name, _)| !is_reserved_header(name)) {
            prop_assert_eq!(headers.get(name), Some(value));
        }
    }

    #[test]
    fn no_token_is_ever_shown(delivery in any::delivery(any::receipt), name in "[aA]uthori[zZ]ation|AUTHORIZATION", nested in 0..3) {
        let mut delivery = delivery;
        let headers = &mut std::sync::Arc::make_mut(&mut delivery.envelope).headers;
        let token = Value::from("Bearer hunter2");
        let inner: Headers = [(name.as_str(), token.clone())].into_iter().collect();
        match nested {
            0 => headers.set(name, token),
            1 => headers.set("table", inner),
            _ => headers.set("list", vec![Value::Table(inner)]),
        };
        let letter = DeadLetter::of("postrider.invoice.dead", &delivery);
        for shown in [letter.to_json().to_string(), format!("{letter:?}"), format!("{delivery:?}")] {
            prop_assert!(!shown.contains("hunter2"), "{}", shown);
        }
    }
}
