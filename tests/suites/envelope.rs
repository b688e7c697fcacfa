//! Envelope and encoding.

use postrider::testing::ForeignMessage;
use postrider::{App, Bytes, Context, Envelope, Failure, Headers, MediaType, Payload, SendError, Value, distributed};
use postrider_tests::world::{Seen, assert_same, eventually};
use serde::{Deserialize, Serialize};

#[derive(Clone, Default)]
struct Alpha {
    envelopes: Seen<Envelope>,
    texts: Seen<String>,
    nested: Seen<Nested>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Nested {
    #[serde(alias = "title")]
    name: String,
    #[serde(default)]
    nickname: Option<String>,
}

impl Alpha {
    fn app(&self) -> App {
        let alpha = self.clone();
        App::new("alpha").actor(move || alpha.clone())
    }
}

#[distributed(service = "alpha")]
impl Alpha {
    #[distributed(command = "alpha.raw")]
    async fn raw(&self, payload: Bytes, cx: &Context) {
        assert_eq!(cx.envelope().payload, payload);
        self.envelopes.add(cx.envelope().clone());
    }

    #[distributed(command = "alpha.text")]
    async fn text(&self, text: String, cx: &Context) {
        self.texts.add(format!("{}|{text}", cx.media_type()));
    }

    #[distributed(command = "alpha.nested")]
    async fn nested(&self, nested: Nested) {
        self.nested.add(nested);
    }

    #[distributed(command = "alpha.mine")]
    async fn mine(&self, number: u64, cx: &Context) -> Result<(), Failure> {
        tokio::task::yield_now().await;
        let header = cx.header("number").and_then(Value::as_integer).unwrap_or(-1);
        self.texts.add(format!("{number} {header}"));
        Ok(())
    }
}

fn json(text: &str) -> ForeignMessage {
    ForeignMessage { content_type: Some("application/json".into()), ..text_properties(text) }
}

fn text_properties(id: &str) -> ForeignMessage {
    ForeignMessage { message_id: Some(id.into()), content_type: Some("text/plain".into()), ..ForeignMessage::default() }
}

on_both_brokers! {
    /// T14
    async fn headers_keep_their_values_and_types(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let table: Headers = [("inner", Value::from(7_i32))].into_iter().collect();
        let headers: Vec<(&str, Value)> = vec![
            ("emoji", "🐎".into()), ("empty", "".into()), ("large", "x".repeat(64 * 1024).into()), ("binary", vec![0_u8, 159, 255].into()),
            ("int", 42_i64.into()), ("short", 7_i16.into()), ("flag", true.into()), ("float", 2.5_f64.into()),
            ("list", vec![Value::from("a"), Value::from(1_i32)].into()), ("table", table.into()),
        ];
        let sent: Headers = headers.into_iter().collect();
        let with = sent.clone();
        let bus = running.bus();
        bus.send_key_with("alpha.raw", Payload::text("x"), |o| with.into_iter().fold(o, |o, (name, value)| o.header(name, value))).await.unwrap();
        let mut arrived = alpha.envelopes.reach(1).await.remove(0).headers;
        arrived.remove("traceparent");
        assert_eq!(arrived, sent);
    }

    /// T15
    async fn payloads_of_every_size_arrive_or_are_refused_before_the_wire(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        for size in [0, 1, 1024 * 1024, 16 * 1024 * 1024] {
            running.bus().send_key("alpha.raw", Payload::bytes(vec![7_u8; size], MediaType::BYTES)).await.unwrap();
        }
        let sizes: Vec<usize> = alpha.envelopes.reach(4).await.iter().map(|envelope| envelope.payload.len()).collect();
        assert_same([0, 1, 1024 * 1024, 16 * 1024 * 1024], sizes);
        let error = running.bus().send_key("alpha.raw", Payload::bytes(vec![7_u8; 16 * 1024 * 1024 + 1], MediaType::BYTES)).await.unwrap_err();
        assert!(matches!(error, SendError::Encode(_)) && error.to_string().contains("max_payload_bytes"), "{error}");
    }

    async fn payloads_nested_too_deeply_are_refused_before_the_wire_and_dead_lettered_on_receipt(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let deep = |depth: usize| (0..depth).fold(serde_json::json!(1), |inner, _| serde_json::json!([inner]));
        running.bus().send_key("alpha.raw", Payload::json(&deep(100))).await.unwrap();
        for payload in [Payload::json(&deep(101)), Payload::msgpack(&deep(101))] {
            let error = running.bus().send_key("alpha.raw", payload).await.unwrap_err();
            assert!(error.to_string().contains("max_nesting"), "{error}");
        }
        let foreign = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
        world.publish_foreign(&world.names.exchange(postrider::Kind::Command), "alpha.nested", json("deep"), foreign).await;
        let dead = world.dead_letters("alpha", 1).await;
        assert_eq!(dead[0].headers.text("postrider-dead-reason"), Some("undecodable"));
    }

    /// T16
    async fn what_cannot_be_decoded_is_dead_lettered_with_its_bytes_and_the_consumer_goes_on(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let exchange = world.names.exchange(postrider::Kind::Command);
        let unknown = ForeignMessage { content_type: Some("application/x-unheard-of".into()), ..text_properties("unknown") };
        let none = ForeignMessage { message_id: Some("none".into()), ..ForeignMessage::default() };
        let cases: Vec<(&str, ForeignMessage, Vec<u8>)> = vec![
            ("alpha.nested", json("broken"), b"{\"name\":".to_vec()),
            ("alpha.nested", json("type"), b"[1,2]".to_vec()),
            ("alpha.nested", unknown, b"whatever".to_vec()),
            ("alpha.nested", none, b"no content type".to_vec()),
            ("alpha.text", text_properties("utf8"), vec![b'a', 0xff, b'b']),
        ];
        for (key, properties, payload) in cases.clone() {
            world.publish_foreign(&exchange, key, properties, payload).await;
        }
        let dead = world.dead_letters("alpha", cases.len()).await;
        for (key, properties, payload) in cases {
            let id = properties.message_id.unwrap();
            let letter = dead.iter().find(|letter| letter.id.as_str() == &*id).unwrap_or_else(|| panic!("no dead letter {id}: {dead:?}"));
            assert_eq!((letter.key.as_str(), &letter.payload[..]), (key, &payload[..]));
            assert_eq!(letter.headers.text("postrider-dead-reason"), Some("undecodable"));
            assert_eq!(letter.headers.text("postrider-dead-service"), Some("alpha"));
            assert!(!letter.headers.text("postrider-dead-error").unwrap_or_default().is_empty());
        }
        running.bus().send_key("alpha.nested", Payload::json(&Nested { name: "a".into(), nickname: None })).await.unwrap();
        alpha.nested.reach(1).await;
    }

    /// T17
    async fn old_and_new_shapes_of_a_message_interoperate(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let bus = running.bus();
        bus.send_key("alpha.nested", Payload::json(&serde_json::json!({ "name": "old" }))).await.unwrap();
        bus.send_key("alpha.nested", Payload::msgpack(&serde_json::json!({ "name": "new", "nickname": "n", "added": [1] }))).await.unwrap();
        bus.send_key("alpha.nested", Payload::json(&serde_json::json!({ "title": "renamed" }))).await.unwrap();
        let got = alpha.nested.reach(3).await.into_iter().map(|nested| (nested.name, nested.nickname));
        assert_same([("old".to_owned(), None), ("new".to_owned(), Some("n".to_owned())), ("renamed".to_owned(), None)], got);
    }

    async fn text_handlers_get_the_payload_as_it_is_with_its_media_type(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let bus = running.bus();
        bus.send_key("alpha.text", Payload::text("plain")).await.unwrap();
        bus.send_key("alpha.text", Payload::json(&serde_json::json!({ "a": 1 }))).await.unwrap();
        bus.send_key("alpha.text", Payload::bytes("<x/>", MediaType::new("application/xml"))).await.unwrap();
        bus.send_key("alpha.text", Payload::msgpack("packed")).await.unwrap();
        let expected = ["text/plain|plain", "application/json|{\"a\":1}", "application/xml|<x/>", "application/msgpack|packed"];
        assert_same(expected.map(str::to_owned), alpha.texts.reach(4).await);
    }

    /// T22
    async fn a_message_without_our_headers_is_handled_by_its_key(world: World) {
        let alpha = Alpha::default();
        let _running = world.start(alpha.app()).await;
        let properties = ForeignMessage { content_type: Some("application/json".into()), ..ForeignMessage::default() };
        world.publish_foreign(&world.names.exchange(postrider::Kind::Command), "alpha.raw", properties, "{\"a\":1}").await;
        let envelope = alpha.envelopes.reach(1).await.remove(0);
        assert_eq!((envelope.key.as_str(), envelope.attempt, envelope.source.clone()), ("alpha.raw", 1, None));
        assert!(!envelope.wants_reply());
    }

    async fn what_is_sent_on_of_a_strangers_message_is_ours_in_all(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        // Neither an id nor a media type, and headers of ours that we would not write so.
        let headers = [("postrider-attempt", "x".into()), ("postrider-schema-version", Value::from(7_i8))].into_iter().collect();
        let foreign = ForeignMessage { expiration: Some("0600000".into()), headers, ..ForeignMessage::default() };
        world.publish_foreign(&world.names.exchange(postrider::Kind::Command), "alpha.raw", foreign, "{}").await;
        let mut envelope = alpha.envelopes.reach(1).await.remove(0);
        (envelope.id, envelope.media_type) = ("mine".into(), MediaType::JSON);
        (envelope.schema_version, envelope.expiration) = (8, None);
        running.bus().dispatch(envelope).await.unwrap();
        let again = alpha.envelopes.reach(2).await.remove(1);
        assert_eq!((again.id.as_str(), again.media_type.as_str(), again.schema_version), ("mine", "application/json", 8));
        assert_eq!((again.expiration, again.foreign), (None, None));
    }

    /// T21
    async fn no_handler_sees_the_context_of_another_message(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let sends = (0..1_000_i64).map(|number| {
            let bus = running.bus().clone();
            async move { bus.send_key_with("alpha.mine", Payload::msgpack(&number), |o| o.header("number", number)).await }
        });
        futures::future::try_join_all(sends).await.unwrap();
        alpha.texts.reach(1_000).await;
        eventually("all are settled", || running.stats().in_flight == 0).await;
        assert_same((0..1_000).map(|number| format!("{number} {number}")), alpha.texts.all());
    }

    async fn headers_that_are_ours_or_too_many_are_refused(world: World) {
        let client = world.client().await;
        let error = client.bus().send_key_with("a.b", Payload::text("x"), |o| o.header("postrider-kind", "event")).await.unwrap_err();
        assert!(error.to_string().contains("postrider-kind"), "{error}");
        let error = client.bus().send_key_with("a.b", Payload::text("x"), |o| o.header("large", "x".repeat(100_000))).await.unwrap_err();
        assert!(matches!(error, SendError::HeadersTooLarge { .. }), "{error:?}");
    }
}
