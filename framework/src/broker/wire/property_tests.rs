//! What holds for whatever a sender writes.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::broker::any;

fn key() -> impl Strategy<Value = Key> {
    "[a-z][a-z0-9-]{0,8}(\\.[a-z][a-z0-9-]{0,8}){0,3}".prop_map(|key| Key::new(&key).unwrap())
}

fn word() -> impl Strategy<Value = Name> {
    "[a-z][a-z0-9-]{0,8}".prop_map(Name::from_wire)
}

/// Milliseconds that survive the way: those of a signed number.
fn whole_millis() -> impl Strategy<Value = Duration> {
    prop_oneof![0..100_000_u64, 0..=i64::MAX as u64].prop_map(Duration::from_millis)
}

/// What a sender of ours may send; replies and delays go other ways.
fn envelope() -> impl Strategy<Value = Envelope> {
    let kind = prop::sample::select(vec![Kind::Command, Kind::Query, Kind::Event, Kind::Channel]);
    let id = || prop::option::of("[ -~]{1,30}".prop_map(MessageId::from));
    let first = (kind, key(), any::<u8>(), id(), id(), id(), prop::option::of(word()), prop::option::of(word()));
    let own_headers = any::headers().prop_map(|mut headers| {
        headers.retain(|name| !is_reserved_header(name));
        headers
    });
    let second = (
        prop::option::of(word()),
        prop::option::of(whole_millis()),
        prop::option::of(whole_millis()),
        1..=u32::MAX,
        prop::option::of(word()),
        prop::collection::vec(word(), 0..4),
        prop_oneof![Just(0), any::<u32>()],
        prop::collection::vec("[ -~]{0,20}", 0..4),
        own_headers,
    );
    (first, second, prop::option::of(0..10_000_000_000_u64), any::<bool>()).prop_map(
        |(first, second, seconds, transient)| {
            let (kind, key, priority, correlation_id, causation_id, conversation_id, source, instance) = first;
            let mut envelope = Envelope::new(kind, key, MediaType::JSON, Bytes::from_static(b"{}"));
            (envelope.correlation_id, envelope.causation_id) = (correlation_id, causation_id);
            (envelope.conversation_id, envelope.source, envelope.instance) = (conversation_id, source, instance);
            let (target, expiration, timeout, attempt, skip, recipients, schema_version, call_path, headers) = second;
            envelope.target = target.filter(|_| kind != Kind::Event);
            (envelope.expiration, envelope.timeout, envelope.attempt) = (expiration, timeout, attempt);
            (envelope.skip, envelope.recipients, envelope.schema_version) = (skip, recipients, schema_version);
            (envelope.call_path, envelope.headers, envelope.transient) = (call_path, headers, transient);
            envelope.sent_at = seconds.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
            (envelope.priority, envelope.reply_to) = (Some(priority), Some(ReplyTo::Queue("answers".into())));
            envelope
        },
    )
}

/// Everything that an envelope has, as text.
fn all_of(envelope: &Envelope) -> String {
    let e = envelope;
    format!(
        "{:?}",
        (
            (e.kind, &e.key, &e.id, &e.media_type, &e.payload, &e.correlation_id, &e.causation_id, &e.conversation_id),
            (&e.reply_to, &e.source, &e.instance, &e.target, &e.sent_at, &e.delay, &e.expiration, &e.timeout),
            (e.transient, e.priority, e.attempt, &e.skip, &e.recipients, e.schema_version, &e.call_path, e.status),
            (e.headers.iter().collect::<Vec<_>>(), &e.content_encoding, &e.message_type, &e.cluster_id),
        )
    )
}

/// A message that names no conversation begins one.
fn in_conversation(mut envelope: Envelope) -> Envelope {
    envelope.conversation_id.get_or_insert_with(|| envelope.id.clone());
    envelope
}

/// The headers that become fields of the envelope.
const FIELDS: [&str; 11] = [
    KIND,
    INSTANCE,
    CAUSATION_ID,
    CONVERSATION_ID,
    ATTEMPT,
    TIMEOUT,
    SKIP,
    RECIPIENTS,
    SCHEMA_VERSION,
    CALL_PATH,
    STATUS,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn what_fits_into_a_frame_is_told_without_putting_it_together(envelope in envelope(), near in -600..600_i64) {
        let room = MAX_PROPERTIES_BYTES.saturating_sub(seal(&envelope).size()) as i64;
        let mut envelope = envelope;
        envelope.headers.set("filler", "x".repeat(usize::try_from(room + near).unwrap_or_default()));
        let bytes = seal(&envelope).size();
        let fits = if bytes <= MAX_PROPERTIES_BYTES { Ok(()) } else { Err(bytes) };
        prop_assert_eq!(check_size(&envelope), fits);
        prop_assert_eq!(seal_owned(Box::new(envelope.clone())), (seal(&envelope), envelope.payload));
    }

    #[test]
    fn anything_opens_as_an_envelope_without_a_panic(
        origin in any::origin(), properties in any::properties(), payload in any::payload()
    ) {
        let envelope = open(&origin, &properties, payload.clone());
        prop_assert!(envelope.attempt >= 1 && envelope.delay.is_none());
        prop_assert!(!envelope.id.as_str().is_empty(), "an empty id would be that of many messages");
        prop_assert_eq!(envelope.status.is_some(), envelope.kind == Kind::Reply);
        prop_assert_eq!(&envelope.payload, &payload);
        for (name, value) in properties.headers.iter() {
            let kept = envelope.headers.get(name);
            prop_assert_eq!(kept, Some(value).filter(|_| !FIELDS.contains(&name)), "{}", name);
        }
        prop_assert!(envelope.headers.len() <= properties.headers.len());
        // What was opened can be sent again: nothing overflows, and nothing grows.
        let sealed = seal(&envelope);
        prop_assert!(sealed.size() <= properties.size() + origin.name().len() + 200);
        let shown = format!("{envelope:?}");
        prop_assert!(!shown.is_empty());
    }

    #[test]
    fn what_is_sealed_opens_as_it_was(
        envelope in envelope(), foreign in prop::array::uniform3(prop::option::of("[A-Z]{1,9}|gzip|zstd"))
    ) {
        let [encoding, message_type, cluster_id] = foreign.map(|text| text.map(Arc::<str>::from));
        let content_encoding = encoding.as_ref().and_then(ContentEncoding::from_wire);
        let envelope = Envelope { content_encoding, message_type, cluster_id, ..envelope };
        let routing_key = match &envelope.target {
            Some(target) => format!("{target}:{}", envelope.key),
            None => envelope.key.to_string(),
        };
        let key = routing_key.into();
        let origin = match envelope.kind {
            Kind::Reply => Origin::Queue(key),
            kind => Origin::Key { kind, key },
        };
        let opened = open(&origin, &seal(&envelope), envelope.payload.clone());
        prop_assert_eq!(all_of(&opened), all_of(&in_conversation(envelope)));
    }

    #[test]
    fn what_was_moved_keeps_kind_and_key(envelope in envelope(), due in any::<bool>()) {
        let mut properties = seal(&envelope);
        properties.headers.set(KIND, envelope.kind.as_str());
        let queue = "postrider.invoice".into();
        let origin = if due { Origin::Delay(queue) } else { Origin::Queue(queue) };
        let opened = open(&origin, &properties, envelope.payload.clone());
        let expected = Envelope { target: None, ..in_conversation(envelope) };
        prop_assert_eq!(all_of(&opened), all_of(&expected));
    }

    #[test]
    fn a_service_in_front_of_a_key_is_split_off_at_the_first_colon(service in "[^:]{0,10}", key in ".{0,20}") {
        let address = |kind: Kind| {
            let origin = Origin::Key { kind, key: format!("{service}:{key}").into() };
            open(&origin, &Properties::default(), Bytes::new())
        };
        for kind in [Kind::Command, Kind::Query, Kind::Channel] {
            let opened = address(kind);
            prop_assert_eq!(opened.target.as_ref().map(Name::as_str), Some(service.as_str()));
            prop_assert_eq!(opened.key.as_str(), key.as_str());
        }
        prop_assert_eq!(address(Kind::Event).key.to_string(), format!("{service}:{key}"));
    }

    #[test]
    fn stripping_takes_the_brokers_headers_and_no_others(headers in any::headers()) {
        let mut stripped = headers.clone();
        strip(&mut stripped);
        for (name, value) in headers.iter() {
            let by_broker = name.starts_with("x-") || name == "CC" || name == "BCC";
            prop_assert!(stripped.get(name) == Some(value) || by_broker, "{}", name);
        }
        let again = { let mut again = stripped.clone(); strip(&mut again); again };
        prop_assert_eq!(again, stripped);
    }
}
