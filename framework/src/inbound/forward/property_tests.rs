//! What holds for every forwarded message.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::broker::{To, any, is_reserved_header, read_header, size};
use crate::handler::FailureClass;
use crate::message::Name;

/// The three ways in which a received message enters a queue again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Dead,
    Retried,
    Skewed,
}

fn forward(way: Way, original: &Envelope) -> Addressed {
    let problem = Problem::new("code", "text");
    let failed = Failed { class: FailureClass::Transient, problem, log: "é".repeat(5_000) };
    let why =
        DeadLetter { service: "invoice", actor: "A", handler: None, attempts: 3, first_error: None, failed: &failed };
    match way {
        Way::Dead => dead_letter(original, "postrider.invoice.dead", &why),
        Way::Retried => retried(original, "postrider.invoice", 7, "transient: no"),
        Way::Skewed => skewed(original, "postrider.invoice"),
    }
}

/// Headers too large to print when a case fails: only their shape is shown.
#[derive(Debug, Clone)]
enum TooLarge {
    One { name: &'static str, in_list: bool },
    Many { prefix: String, count: u32 },
}

impl TooLarge {
    /// As many and as large headers as a frame holds.
    fn headers(&self) -> Headers {
        match self {
            Self::One { name, in_list } => {
                let text = "x".repeat(100 * 1024);
                let value = if *in_list { Value::List(vec![text.into()]) } else { text.into() };
                [(*name, value)].into_iter().collect()
            }
            Self::Many { prefix, count } => (0..*count).map(|n| (format!("{prefix}{n}"), "x".repeat(24))).collect(),
        }
    }
}

fn too_large() -> impl Strategy<Value = TooLarge> {
    let known = prop::sample::select(vec![
        "postrider-first-error",
        "postrider-cut-headers",
        "postrider-call-path",
        "postrider-dead-handler",
        "postrider-dead-junk",
        "postrider-original-expiration",
        "postrider-skewed-since",
        "postrider-attempt",
        "tenant",
    ]);
    let one = (known, any::<bool>()).prop_map(|(name, in_list)| TooLarge::One { name, in_list });
    let many = ("(postrider-|postrider-dead-|)[a-z]{0,3}", 2_000..3_000_u32)
        .prop_map(|(prefix, count)| TooLarge::Many { prefix, count });
    prop_oneof![one, many]
}

fn way() -> impl Strategy<Value = Way> {
    prop::sample::select(vec![Way::Dead, Way::Retried, Way::Skewed])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn whatever_is_forwarded_is_the_same_message(original in any::envelope(), way in way()) {
        let forwarded = forward(way, &original);
        prop_assert!(matches!(forwarded.to, To::Queue(_)) && forwarded.mandatory && !forwarded.awaits_reply());
        let again = &*forwarded.envelope;
        prop_assert!(!again.transient && again.expiration.is_none() && again.has_own_id());
        prop_assert!(again.foreign.as_ref().is_none_or(|foreign| foreign.expiration.is_none()));
        for (name, value) in original.headers.iter().filter(|(name, _)| !is_reserved_header(name)) {
            let by_broker = name.starts_with("x-") || name == "CC" || name == "BCC";
            prop_assert!(again.headers.get(name) == Some(value) || by_broker, "{} is lost", name);
        }
        prop_assert_eq!((again.kind, &again.id, &again.payload), (original.kind, &original.id, &original.payload));
        prop_assert_eq!((&again.key, &again.target), (&original.key, &original.target));
        prop_assert_eq!(again.attempt, if way == Way::Retried { 7 } else { original.attempt });
        prop_assert_eq!((&again.media_type, &again.reply_to), (&original.media_type, &original.reply_to));
        prop_assert_eq!(&again.message_type, &original.message_type);
    }

    #[test]
    fn any_header_of_ours_that_a_stranger_wrote_is_read_without_a_panic(envelope in any::envelope()) {
        let mut envelope = envelope;
        prop_assert!(skewed_for(&envelope) <= Duration::from_secs(seconds_now()));
        set_skewed_since(&mut envelope);
        prop_assert!(skewed_since(&envelope).is_some());
    }
}

/// A command received from a stranger, with these headers.
fn received(headers: &Headers) -> Envelope {
    let mut envelope = any::command("it");
    for (name, value) in headers.iter() {
        if let Some(value) = read_header(&mut envelope, name, value.clone()) {
            envelope.headers.set(name, value);
        }
    }
    envelope
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_a_frame_holds_can_be_forwarded(headers in too_large(), way in way()) {
        let forwarded = forward(way, &received(&headers.headers()));
        prop_assert!(size(&forwarded.envelope) <= MAX_PROPERTIES_BYTES, "{} bytes", size(&forwarded.envelope));
        let reason = forwarded.envelope.headers.text("postrider-dead-reason");
        prop_assert_eq!(reason, (way == Way::Dead).then_some("transient"));
    }
}

#[test]
fn a_message_that_changes_its_queue_stays_for_its_service_and_expires_as_before() {
    let mut envelope = any::command("it");
    envelope.target = Some(Name::from_wire("invoice"));
    envelope.message_type = Some("Shop.Ping".into());
    envelope.expiration = Some(Duration::from_secs(7));
    envelope.headers.set("postrider-dead-reason", "transient");
    let delivery = Delivery {
        envelope: Arc::new(envelope.clone()),
        redelivered: false,
        delivery_count: None,
        receipt: any::receipt(),
    };
    let moved = relocated(&delivery, "elsewhere");
    assert_eq!(moved.to, To::Queue("elsewhere".into()));
    assert!(*moved.envelope == envelope, "{:?}", moved.envelope);
}

/// The broker would take it for the reply queue of the forwarding channel, and close a channel that consumes no replies.
#[test]
fn an_address_that_means_its_sender_is_not_forwarded_as_ours() {
    let literal = Envelope { reply_to: Some(ReplyTo::Queue(DIRECT_REPLY_TO.into())), ..any::command("it") };
    for way in [Way::Dead, Way::Retried, Way::Skewed] {
        let envelope = forward(way, &literal).envelope;
        assert_eq!(envelope.reply_to, None, "{way:?}");
        assert_eq!(envelope.headers.text("postrider-original-reply-to"), Some(DIRECT_REPLY_TO));
    }
}
