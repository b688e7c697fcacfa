//! What holds for whatever is forwarded.

use proptest::prelude::*;

use super::*;
use crate::broker::{Names, Origin, To, any, is_reserved_header, open};
use crate::handler::FailureClass;
use crate::message::Kind;

/// One of the three ways of a received message into a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Dead,
    Retried,
    Skewed,
}

fn forward(way: Way, original: &Properties, envelope: &Envelope) -> Addressed {
    let problem = Problem::new("code", "text");
    let failed = Failed { class: FailureClass::Transient, problem, log: "é".repeat(5_000) };
    let why =
        DeadLetter { service: "invoice", actor: "A", handler: None, attempts: 3, first_error: None, failed: &failed };
    match way {
        Way::Dead => dead_letter(original, envelope, "postrider.invoice.dead", &why),
        Way::Retried => retried(original, envelope, "postrider.invoice", 7, "transient: no"),
        Way::Skewed => skewed(original, envelope, "postrider.invoice"),
    }
}

fn received(origin: &Origin, properties: Properties, payload: bytes::Bytes) -> (Properties, Envelope) {
    let envelope = open(origin, &properties, payload);
    (properties, envelope)
}

/// What is shown of headers that are too large to be shown.
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
    fn whatever_is_forwarded_is_the_same_message_when_it_arrives(
        origin in any::origin(), properties in any::properties(), payload in any::payload(), way in way()
    ) {
        let (original, envelope) = received(&origin, properties.clone(), payload);
        let forwarded = forward(way, &original, &envelope);
        prop_assert!(matches!(forwarded.to, To::Queue(_)) && forwarded.mandatory && !forwarded.awaits_reply);
        prop_assert!(forwarded.properties.persistent && forwarded.properties.expiration.is_none());
        for (name, value) in properties.headers.iter().filter(|(name, _)| !is_reserved_header(name)) {
            let kept = forwarded.properties.headers.get(name);
            let by_broker = name.starts_with("x-") || name == "CC" || name == "BCC";
            prop_assert!(kept == Some(value) || by_broker, "{} is lost", name);
        }
        let again = open(&Origin::from(&forwarded.to), &forwarded.properties, forwarded.payload);
        prop_assert_eq!((again.kind, &again.id, &again.payload), (envelope.kind, &envelope.id, &envelope.payload));
        prop_assert_eq!(&again.key, &envelope.key);
        if envelope.kind != Kind::Reply {
            prop_assert_eq!(&again.target, &envelope.target);
        }
        let attempt = if way == Way::Retried { 7 } else { envelope.attempt };
        prop_assert_eq!(again.attempt, attempt);
        prop_assert_eq!((again.media_type, again.reply_to), (envelope.media_type, envelope.reply_to));
    }

    #[test]
    fn any_header_of_ours_that_a_stranger_wrote_is_read_without_a_panic(properties in any::properties()) {
        let mut properties = properties;
        prop_assert!(skewed_for(&properties) <= Duration::from_secs(seconds_now()));
        set_skewed_since(&mut properties);
        prop_assert!(skewed_since(&properties).is_some());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_a_frame_holds_can_be_forwarded(headers in too_large(), way in way()) {
        let properties = Properties { headers: headers.headers(), ..Properties::default() };
        let origin = Origin::Key { kind: Kind::Command, key: "a.b".into() };
        let (original, envelope) = received(&origin, properties, bytes::Bytes::new());
        let forwarded = forward(way, &original, &envelope);
        prop_assert!(forwarded.properties.size() <= MAX_PROPERTIES_BYTES, "{} bytes", forwarded.properties.size());
        prop_assert_eq!(forwarded.properties.headers.text(KIND), Some("command"));
        let reason = forwarded.properties.headers.text("postrider-dead-reason");
        prop_assert_eq!(reason, (way == Way::Dead).then_some("transient"));
    }
}

#[test]
fn a_message_that_is_moved_keeps_the_service_that_it_was_delayed_for() {
    let names = Names::default();
    let headers = [(KIND.to_owned(), Value::from("channel"))].into_iter().collect();
    let properties = Properties { message_type: Some("invoice:alerts".into()), headers, ..Properties::default() };
    let delivery = |origin: Origin| Delivery {
        origin: Arc::new(origin),
        redelivered: false,
        delivery_count: None,
        properties: Arc::new(properties.clone()),
        payload: bytes::Bytes::new(),
        receipt: any::receipt(),
    };
    for origin in [Origin::Delay("key".into()), Origin::Queue("key".into())] {
        let moved = relocated(&delivery(origin.clone()), &names, "elsewhere");
        assert_eq!(moved.properties.message_type.as_deref(), Some("invoice:alerts"), "{origin:?}");
    }
    let sent = Origin::Key { kind: Kind::Command, key: "key".into() };
    let moved = relocated(&delivery(sent), &names, "elsewhere");
    assert_eq!(moved.properties.message_type.as_deref(), Some("key"), "a stranger's type says nothing");
}

#[test]
fn a_letter_that_the_broker_made_says_when_also_after_it_was_moved() {
    let names = Names::default();
    let death: Headers = [("reason", Value::from("expired")), ("time", Value::Timestamp(7))].into_iter().collect();
    let headers = [("x-death".to_owned(), Value::List(vec![Value::Table(death)]))].into_iter().collect();
    let delivery = |properties: Properties, queue: &str| Delivery {
        origin: Arc::new(Origin::Queue(queue.into())),
        redelivered: false,
        delivery_count: None,
        properties: Arc::new(properties),
        payload: bytes::Bytes::new(),
        receipt: any::receipt(),
    };
    let letter = delivery(Properties { headers, ..Properties::default() }, "postrider.invoice.dead");
    let moved = relocated(&letter, &names, "postrider.invoice.dead.migrating");
    let back = delivery((*moved.properties).clone(), "postrider.invoice.dead.migrating");
    let back = relocated(&back, &names, "postrider.invoice.dead");
    let at = |addressed: &Addressed| addressed.properties.headers.get("postrider-dead-at").cloned();
    assert_eq!((at(&moved), at(&back)), (Some(Value::Timestamp(7)), Some(Value::Timestamp(7))));
    assert!(back.properties.headers.get("x-death").is_none());
}

/// The broker would read it as the address of whoever forwards, and close the channel of one that awaits no replies.
#[test]
fn an_address_that_means_its_sender_is_not_forwarded_as_ours() {
    let literal = || Properties { reply_to: Some(DIRECT_REPLY_TO.into()), ..Properties::default() };
    let origin = Origin::Key { kind: Kind::Command, key: "a.b".into() };
    for way in [Way::Dead, Way::Retried, Way::Skewed] {
        let (original, envelope) = received(&origin, literal(), bytes::Bytes::new());
        let properties = forward(way, &original, &envelope).properties;
        assert_eq!(properties.reply_to, None, "{way:?}");
        assert_eq!(properties.headers.text("postrider-original-reply-to"), Some(DIRECT_REPLY_TO));
    }
}
