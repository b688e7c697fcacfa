//! Keys and patterns: our matcher against a real topic exchange.

use postrider::broker::{Queue, Source, Subscription, Topology, matches};
use postrider::{Kind, Payload, SendError};

/// Pattern by pattern, key by key.
const PATTERNS: [&str; 10] = ["a", "a.b", "a.*", "*.b", "a.#", "#.b", "#", "*", "a.*.c", "a.#.c"];
const KEYS: [&str; 12] =
    ["a", "b", "a.b", "a.c", "b.b", "a.b.c", "a.x.c", "a.b.b.c", "a.b.b", "c", "x.y.b", "a.c.c.c.c"];

on_both_brokers! {
    /// T6: 120 pairs.
    async fn the_matcher_agrees_with_the_broker_on_every_pair(world: World) {
        let broker = world.broker().await;
        let name = |text: &str| format!("{}.{text}", world.names.namespace());
        let queues: Vec<Queue> = (0..PATTERNS.len()).map(|index| Queue::on_one_node(name(&format!("pattern{index}")))).collect();
        let subscriptions = PATTERNS.iter().zip(&queues).map(|(pattern, queue)| Subscription::new(Kind::Event, *pattern, &queue.name)).collect();
        let sources = vec![Source::Kind(Kind::Event)];
        broker.declare(&Topology { sources, queues: queues.clone(), subscriptions, ..Topology::default() }).await.unwrap();
        for key in KEYS {
            let properties = postrider::testing::ForeignMessage { message_type: Some(key.into()), ..Default::default() };
            world.publish_foreign(&world.names.exchange(Kind::Event), key, properties, key).await;
        }
        for (pattern, queue) in PATTERNS.iter().zip(queues) {
            let expected: Vec<&str> = KEYS.into_iter().filter(|key| matches(pattern, key)).collect();
            assert_eq!(world.ready(&queue.name).await, Some(expected.len() as u64), "pattern {pattern}");
            let got: Vec<String> = world.take(queue, expected.len()).await.iter().map(|e| e.key.to_string()).collect();
            assert_eq!(got, expected, "pattern {pattern}");
        }
    }

    /// T11
    async fn a_key_of_200_bytes_is_sent_and_one_of_201_refused_before_the_wire(world: World) {
        let client = world.client().await;
        let key = |length: usize| format!("tester.{}", "k".repeat(length - 7));
        client.bus().publish_key(&key(200), Payload::text("x")).await.unwrap();
        let error = client.bus().publish_key(&key(201), Payload::text("x")).await.unwrap_err();
        assert!(matches!(error, SendError::Name(_)) && error.to_string().contains("201"), "{error}");
    }
}
