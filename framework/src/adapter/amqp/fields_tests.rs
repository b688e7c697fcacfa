//! Property tests: envelopes and foreign messages survive being written and read.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use proptest::prelude::*;

use super::Origin;
use super::fields::{write, write_all_headers};
use super::foreign::ForeignMessage;
use crate::broker::{MAX_PROPERTIES_BYTES, any as anything, is_of_earlier_attempts, is_reserved_header, size};
use crate::message::{ContentEncoding, Envelope, Key, Kind, MediaType, MessageId, Name, ReplyTo, Status, Value};

/// The message that is sent over the network for an envelope.
pub(in crate::adapter) fn written(envelope: &Envelope, tells_address: bool) -> ForeignMessage {
    let fields = write(envelope, tells_address);
    let mut message = ForeignMessage {
        content_type: fields.content_type.map(Into::into),
        content_encoding: fields.content_encoding.map(Into::into),
        message_id: fields.message_id.map(Into::into),
        correlation_id: fields.correlation_id.map(Into::into),
        reply_to: fields.reply_to.map(Into::into),
        message_type: fields.message_type.map(Into::into),
        app_id: fields.app_id.map(Into::into),
        timestamp: fields.timestamp,
        expiration: fields.expiration.map(Into::into),
        persistent: fields.persistent,
        priority: fields.priority,
        cluster_id: fields.cluster_id.map(Into::into),
        user_id: fields.user_id.map(Into::into),
        ..ForeignMessage::default()
    };
    write_all_headers(envelope, tells_address, |name, value| drop(message.headers.set(name, value.to_value())));
    message
}

/// A foreign message with any properties that fit into AMQP's short strings.
pub(in crate::adapter) fn foreign() -> impl Strategy<Value = ForeignMessage> {
    let media_type = prop_oneof![
        prop::sample::select(vec!["application/json", "application/msgpack", "text/plain", "x/y+json; a=b", ";"])
            .prop_map(str::to_owned),
        anything::text(),
    ];
    let some = || prop::option::of(anything::text());
    let texts = (some(), some(), some(), some(), some(), some(), some(), some(), some());
    let timestamp = prop::option::of(prop_oneof![any::<u64>(), Just(u64::MAX), 0..2_000_000_000_u64]);
    let rest = (prop::option::of(media_type), timestamp, any::<bool>(), prop::option::of(any::<u8>()));
    (texts, rest, anything::headers()).prop_map(|(texts, rest, headers)| {
        let (message_id, correlation_id, reply_to, message_type, app_id, expiration, user_id, encoding, cluster_id) =
            texts;
        let (content_type, timestamp, persistent, priority) = rest;
        ForeignMessage {
            content_type: content_type.map(Into::into),
            content_encoding: encoding.map(Into::into),
            message_id: message_id.map(Into::into),
            correlation_id: correlation_id.map(Into::into),
            reply_to: reply_to.map(Into::into),
            message_type: message_type.map(Into::into),
            app_id: app_id.map(Into::into),
            timestamp,
            expiration: expiration.map(Into::into),
            persistent,
            priority,
            cluster_id: cluster_id.map(Into::into),
            user_id: user_id.map(Into::into),
            headers,
        }
    })
}

/// Any origin of a message.
pub(in crate::adapter) fn origin() -> impl Strategy<Value = Origin> {
    let kind = prop::sample::select(&[Kind::Command, Kind::Query, Kind::Event, Kind::Channel][..]);
    (0..6_u8, kind, anything::text()).prop_map(|(way, kind, name)| match way {
        0 => Origin::Queue(name.into()),
        1 => Origin::Delay(name.into()),
        2 => Origin::Foreign(name.into()),
        _ => Origin::Key { kind, key: name.into() },
    })
}

fn key() -> impl Strategy<Value = Key> {
    "[a-z][a-z0-9-]{0,8}(\\.[a-z][a-z0-9-]{0,8}){0,3}".prop_map(|key| Key::new(&key).unwrap())
}

fn word() -> impl Strategy<Value = Name> {
    "[a-z][a-z0-9-]{0,8}".prop_map(Name::from_wire)
}

/// Durations whose milliseconds fit into the signed number that is sent.
fn whole_millis() -> impl Strategy<Value = Duration> {
    prop_oneof![0..100_000_u64, 0..=i64::MAX as u64].prop_map(Duration::from_millis)
}

/// Any envelope that Postrider itself may send to a key; replies and delays are tested separately.
fn envelope() -> impl Strategy<Value = Envelope> {
    let kind = prop::sample::select(vec![Kind::Command, Kind::Query, Kind::Event, Kind::Channel]);
    let id = || prop::option::of("[ -~]{1,30}".prop_map(MessageId::from));
    let first = (kind, key(), any::<u8>(), id(), id(), id(), prop::option::of(word()), prop::option::of(word()));
    let own_headers = anything::headers().prop_map(|mut headers| {
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

/// All fields of an envelope, as text.
fn all_of(envelope: &Envelope) -> String {
    let e = envelope;
    format!(
        "{:?}",
        (
            (e.kind, &e.key, &e.id, &e.media_type, &e.payload, &e.correlation_id, &e.causation_id, &e.conversation_id),
            (&e.reply_to, &e.source, &e.instance, &e.target, &e.sent_at, &e.delay, &e.expiration, &e.timeout),
            (e.transient, e.priority, e.attempt, &e.skip, &e.recipients, e.schema_version, &e.call_path, e.status),
            (e.headers.iter().collect::<Vec<_>>(), &e.content_encoding, &e.message_type, &e.cluster_id, &e.foreign),
        )
    )
}

/// The envelope as read: a message without a conversation starts one.
fn in_conversation(mut envelope: Envelope) -> Envelope {
    envelope.conversation_id.get_or_insert_with(|| envelope.id.clone());
    envelope
}

/// Removes fields that are empty or default, and those that the origin replaces: they may differ when written again.
fn without_what_says_nothing(mut message: ForeignMessage) -> ForeignMessage {
    let is_said = |text: &mut Arc<str>| !text.is_empty();
    message.message_id = message.message_id.take_if(is_said);
    message.reply_to = message.reply_to.take_if(is_said);
    message.content_encoding = message.content_encoding.take_if(is_said);
    message.message_type = None;
    message.headers.retain(|name| name != "postrider-kind");
    if message.headers.get("postrider-conversation-id").and_then(Value::as_text) == message.message_id.as_deref() {
        message.headers.remove("postrider-conversation-id");
    }
    message
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn what_a_stranger_wrote_is_written_again_as_it_came(
        message in foreign(), origin in origin(), payload in anything::payload()
    ) {
        let envelope = message.received(&origin, payload.clone());
        prop_assert!(envelope.attempt >= 1 && envelope.delay.is_none());
        prop_assert!(!envelope.id.as_str().is_empty(), "an empty id would be that of many messages");
        prop_assert_eq!(envelope.status.is_some(), envelope.kind == Kind::Reply);
        prop_assert_eq!(&envelope.payload, &payload);
        let mut expected = without_what_says_nothing(message.clone());
        if !origin.is_moved() {
            expected.headers.retain(|name| !is_of_earlier_attempts(name));
        }
        prop_assert_eq!(without_what_says_nothing(written(&envelope, origin.is_moved())), expected);
        for (name, value) in message.headers.iter().filter(|(name, _)| !is_reserved_header(name)) {
            prop_assert_eq!(envelope.headers.get(name), Some(value), "{}", name);
        }
        let sent = written(&envelope, true);
        let bytes = sent.headers.size() + sent.message_type.map_or(0, |text| text.len());
        prop_assert!(size(&envelope) >= bytes, "{} bytes, said {}", bytes, size(&envelope));
        let shown = format!("{envelope:?}");
        prop_assert!(!shown.is_empty());
    }

    #[test]
    fn what_is_written_is_read_as_it_was(
        envelope in envelope(), foreign in prop::array::uniform3(prop::option::of("[A-Z]{1,9}|gzip|zstd")),
        moved in any::<bool>()
    ) {
        let [encoding, message_type, cluster_id] = foreign.map(|text| text.map(Arc::<str>::from));
        let content_encoding = encoding.as_ref().and_then(ContentEncoding::from_wire);
        let mut envelope = Envelope { content_encoding, message_type, cluster_id, ..envelope };
        if !moved {
            envelope.attempt = 1;
        }
        let origin = if moved {
            Origin::Queue("postrider.invoice".into())
        } else {
            Origin::Key { kind: envelope.kind, key: envelope.address() }
        };
        let read = written(&envelope, moved).received(&origin, envelope.payload.clone());
        prop_assert_eq!(all_of(&read), all_of(&in_conversation(envelope)));
    }

    #[test]
    fn a_reply_arrives_with_its_status_and_key(key in key(), fails in any::<bool>(), queue in anything::text()) {
        let mut reply = Envelope::new(Kind::Reply, key, MediaType::JSON, Bytes::new());
        reply.status = Some(if fails { Status::Error } else { Status::Ok });
        let sent = written(&reply, true);
        prop_assert_eq!(sent.headers.len(), usize::from(fails), "what is default is not sent");
        let read = sent.received(&Origin::Queue(queue.into()), Bytes::new());
        prop_assert_eq!(all_of(&read), all_of(&in_conversation(reply)));
    }

    #[test]
    fn a_service_in_front_of_a_key_is_split_off_at_the_first_colon(service in "[^:]{0,10}", key in ".{0,20}") {
        let address = |kind: Kind| {
            let origin = Origin::Key { kind, key: format!("{service}:{key}").into() };
            ForeignMessage::default().received(&origin, Bytes::new())
        };
        for kind in [Kind::Command, Kind::Query, Kind::Channel] {
            let read = address(kind);
            prop_assert_eq!(read.target.as_ref().map(Name::as_str), Some(service.as_str()));
            prop_assert_eq!(read.key.as_str(), key.as_str());
        }
        prop_assert_eq!(address(Kind::Event).key.to_string(), format!("{service}:{key}"));
    }
}

#[test]
fn defaults_are_not_sent() {
    let envelope = Envelope::new(Kind::Command, Key::from_wire("a.b"), MediaType::JSON, Bytes::new());
    let headers = written(&envelope, false).headers;
    assert!(headers.is_empty(), "{headers:?}");
    assert!(size(&envelope) < MAX_PROPERTIES_BYTES / 100);
}

#[test]
fn headers_of_ours_with_a_value_that_makes_no_sense_count_as_left_out() {
    let origin = Origin::Key { kind: Kind::Command, key: "invoice.create".into() };
    let opened = |name: &str, value: Value| {
        let headers = [(name, value)].into_iter().collect();
        ForeignMessage { headers, ..ForeignMessage::default() }.received(&origin, Bytes::new())
    };
    let service = |name: &str| vec![Name::from_wire(name)];
    assert_eq!(
        opened("postrider-recipients", "invoice".into()).recipients,
        service("invoice"),
        "one alone may be a text"
    );
    assert_eq!(
        opened("postrider-recipients", vec![Value::from("invoice"), 7_i32.into()].into()).recipients,
        service("invoice")
    );
    assert_eq!(
        (opened("postrider-recipients", 7_i32.into()).recipients, opened("postrider-skip", true.into()).skip),
        (Vec::new(), None)
    );
    assert_eq!(
        (opened("postrider-timeout", (-5_i64).into()).timeout, opened("postrider-timeout", "5".into()).timeout),
        (None, None)
    );
    assert_eq!(opened("postrider-timeout", i64::MAX.into()).timeout, Some(Duration::from_millis(i64::MAX as u64)));
    assert_eq!(
        (
            opened("postrider-attempt", (-1_i64).into()).attempt,
            opened("postrider-schema-version", (-1_i64).into()).schema_version
        ),
        (1, 0)
    );
    assert_eq!(opened("postrider-kind", "event".into()).kind, Kind::Command, "the exchange knows it better");
    for seconds in [0, u64::MAX] {
        let properties = ForeignMessage { timestamp: Some(seconds), priority: Some(255), ..ForeignMessage::default() };
        let envelope = properties.received(&origin, Bytes::new());
        assert_eq!((envelope.sent_at.is_some(), envelope.priority), (seconds == 0, Some(255)));
    }
}

#[test]
fn a_foreign_message_needs_only_routing_key_and_content_type() {
    let origin = Origin::Key { kind: Kind::Command, key: "invoice.create".into() };
    let properties = ForeignMessage { content_type: Some("application/json".into()), ..ForeignMessage::default() };
    let envelope = properties.received(&origin, Bytes::from_static(b"{}"));
    assert_eq!((envelope.kind, envelope.key.as_str(), envelope.attempt), (Kind::Command, "invoice.create", 1));
    assert!(!envelope.id.as_str().is_empty());
}
