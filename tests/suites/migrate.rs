//! A queue gets other arguments, and keeps its messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postrider::broker::{ConsumerSpec, Publication, Queue, Topology};
use postrider::message::ContentEncoding;
use postrider::operate::{Migration, MigrationError};
use postrider::testing::ForeignMessage;
use postrider::{App, Kind, MessageId, Payload, Running, Value, distributed};
use postrider_tests::ledger::Ledger;
use postrider_tests::program::operator_command;
use postrider_tests::world::{PATIENCE, Seen, World, assert_same, eventually, eventually_async, run};

/// The version before: at most once, in no order.
#[derive(Clone, Default)]
struct Before {
    seen: Seen<String>,
}

#[distributed(service = "alpha", guarantee = "at_most_once")]
impl Before {
    #[distributed(command = "alpha.do")]
    async fn take(&mut self, text: String) {
        self.seen.add(text);
    }

    #[distributed(event = "beta.*")]
    async fn hear(&mut self, text: String) {
        self.seen.add(text);
    }
}

/// The present version: ordered.
#[derive(Clone, Default)]
struct Alpha {
    seen: Seen<String>,
    ledger: Ledger,
}

#[distributed(service = "alpha", ordered = true)]
impl Alpha {
    #[distributed(command = "alpha.do")]
    async fn take(&mut self, text: String) {
        self.ledger.handles(&text);
        self.seen.add(text);
    }

    #[distributed(event = "beta.*")]
    async fn hear(&mut self, text: String) {
        self.ledger.handles(&text);
        self.seen.add(text);
    }
}

impl Alpha {
    fn app(&self) -> App {
        let state = self.clone();
        App::new("alpha").actor(move || state.clone())
    }
}

fn target(world: &World) -> Queue {
    let queue = world.names.queue("alpha", None);
    Queue::replicated(&queue).with_last_resort(world.names.dead_queue(&queue)).with_one_active_consumer()
}

/// The version before has run and is gone; its queue stands.
async fn left_by_the_version_before(world: &World) -> Running {
    let before = Before::default();
    let running = world.start(App::new("alpha").actor(move || before.clone())).await;
    running.stop().await;
    world.client().await
}

/// Sends commands and events until it is told to stop, and keeps the books.
async fn send_until(client: &Running, ledger: &Ledger, stop: &AtomicBool) -> u64 {
    let mut sent = 0;
    while !stop.load(Ordering::Acquire) {
        let id = MessageId::new();
        ledger.attempts(id.as_str());
        let (bus, payload) = (client.bus(), Payload::text(id.as_str()));
        let result = if sent % 2 == 0 {
            bus.send_key("alpha.do", payload).await
        } else {
            bus.publish_key_with("beta.changed", payload, |o| o.as_owner()).await
        };
        if result.is_ok() {
            ledger.confirms(id.as_str());
        }
        sent += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    sent
}

on_both_brokers! {
    async fn messages_survive_the_migration_of_their_queue_in_their_order(world: World) {
        let client = left_by_the_version_before(&world).await;
        let texts: Vec<String> = (0..250).map(|number| number.to_string()).collect();
        for text in &texts {
            client.bus().send_key("alpha.do", Payload::text(text)).await.unwrap();
        }
        client.bus().send_key_with("alpha.do", Payload::text("delayed"), |o| o.delay(Duration::from_millis(300))).await.unwrap();
        let alpha = Alpha::default();
        let refused = world.try_start(alpha.app()).await.err().unwrap().to_string();
        assert!(refused.contains("inequivalent arg") && refused.contains("topology migrate"), "{refused}");
        let moved = Migration::new(client.bus()).run(&target(&world), &[]).await.unwrap();
        assert!(moved >= 250, "{moved}");
        assert_eq!(world.ready(&format!("{}.migrating", world.names.queue("alpha", None))).await, None);
        let running = world.start(alpha.app()).await;
        let seen = alpha.seen.reach(251).await;
        let undelayed: Vec<String> = seen.iter().filter(|text| *text != "delayed").cloned().collect();
        assert_eq!(undelayed, texts, "the order is kept");
        client.bus().publish_key_with("beta.changed", Payload::text("event"), |o| o.as_owner()).await.unwrap();
        alpha.seen.reach(252).await;
        assert_eq!(running.stats().dead_lettered, 0);
        running.stop().await;
        assert_eq!(Migration::new(client.bus()).run(&target(&world), &[]).await, Ok(0), "there is nothing to do");
    }

    async fn encoding_type_and_cluster_stay_as_they_were_through_a_migration(world: World) {
        let client = left_by_the_version_before(&world).await;
        let foreign = ForeignMessage {
            content_type: Some("text/plain".into()),
            content_encoding: Some("br".into()),
            message_type: Some("Shop.Text".into()),
            cluster_id: Some("east".into()),
            ..ForeignMessage::default()
        };
        let exchange = world.names.exchange(Kind::Command);
        world.publish_foreign(&exchange, "alpha.do", foreign, &b"\x0b\x02"[..]).await;
        assert_eq!(Migration::new(client.bus()).run(&target(&world), &[]).await, Ok(1));
        let (broker, queue) = (world.broker().await, Queue::standing(world.names.queue("alpha", None)));
        let spec = ConsumerSpec { queue, topology: Topology::default(), prefetch: 1, answers: false };
        let mut consumer = broker.consume(&spec).await.unwrap();
        let delivery = tokio::time::timeout(PATIENCE, consumer.next()).await.unwrap().unwrap().unwrap();
        let envelope = &delivery.envelope;
        assert_eq!((envelope.kind, envelope.key.as_str(), &envelope.payload[..]), (Kind::Command, "alpha.do", &b"\x0b\x02"[..]));
        assert_eq!(envelope.content_encoding.as_ref().map(ContentEncoding::as_str), Some("br"));
        assert_eq!((envelope.message_type.as_deref(), envelope.cluster_id.as_deref()), (Some("Shop.Text"), Some("east")));
        delivery.receipt.ack();
        consumer.close().await;
        broker.close().await;
        client.stop().await;
    }

    async fn senders_go_on_during_a_migration_and_lose_nothing(world: World) {
        let client = left_by_the_version_before(&world).await;
        let (alpha, stop) = (Alpha::default(), Arc::new(AtomicBool::new(false)));
        let sending = send_until(&client, &alpha.ledger, &stop);
        let migrating = async {
            eventually("some messages wait", || alpha.ledger.balance().confirmed > 50).await;
            Migration::new(client.bus()).run(&target(&world), &[]).await.unwrap();
            let after = alpha.ledger.balance().confirmed;
            eventually("senders go on", || alpha.ledger.balance().confirmed > after + 20).await;
            stop.store(true, Ordering::Release);
        };
        let (sent, ()) = tokio::join!(sending, migrating);
        let running = world.start(alpha.app()).await;
        let balance = alpha.ledger.balanced("a migration under load").await;
        assert_eq!(balance.confirmed as u64, sent, "no command was refused for want of a queue");
        running.stop().await;
    }

    async fn what_waited_before_a_migration_is_in_front_of_what_is_sent_after_it(world: World) {
        let client = left_by_the_version_before(&world).await;
        let (alpha, stop) = (Alpha::default(), Arc::new(AtomicBool::new(false)));
        let waiting: Vec<String> = (0..40).map(|number| format!("waiting {number}")).collect();
        for text in &waiting {
            client.bus().send_key("alpha.do", Payload::text(text)).await.unwrap();
        }
        let target = target(&world);
        let (_, moved) = tokio::join!(send_until(&client, &alpha.ledger, &stop), async {
            let moved = Migration::new(client.bus()).run(&target, &[]).await;
            stop.store(true, Ordering::Release);
            moved
        });
        moved.unwrap();
        let running = world.start(alpha.app()).await;
        eventually("all is handled", || alpha.seen.count() as u64 >= 40 + alpha.ledger.balance().confirmed as u64).await;
        assert_eq!(alpha.seen.all()[..40], waiting, "nothing overtakes them");
        running.stop().await;
    }

    async fn what_a_stranger_writes_straight_into_the_queue_is_moved_too(world: World) {
        let client = left_by_the_version_before(&world).await;
        let (alpha, queue, stop) = (Alpha::default(), world.names.queue("alpha", None), AtomicBool::new(false));
        let headers = || [("postrider-kind", Value::from("command"))].into_iter().map(|(name, value)| (name.to_owned(), value));
        let writing = async {
            let mut confirmed = Vec::new();
            while !stop.load(Ordering::Acquire) {
                let id = MessageId::new().to_string();
                let properties = ForeignMessage { message_type: Some("alpha.do".into()), message_id: Some(id.as_str().into()),
                    content_type: Some("text/plain".into()), headers: headers().collect(), ..ForeignMessage::default() };
                if world.publish_foreign("", &queue, properties, id.clone()).await == Publication::Confirmed {
                    confirmed.push(id);
                }
                // Longer than a queue is to be empty before it is removed.
                tokio::time::sleep(Duration::from_millis(350)).await;
            }
            confirmed
        };
        let target = target(&world);
        let (confirmed, moved) = tokio::join!(writing, async {
            let moved = Migration::new(client.bus()).run(&target, &[]).await;
            stop.store(true, Ordering::Release);
            moved
        });
        moved.unwrap();
        let running = world.start(alpha.app()).await;
        assert!(confirmed.len() > 2, "{confirmed:?}");
        assert_same(confirmed.clone(), alpha.seen.reach(confirmed.len()).await);
        running.stop().await;
    }

    async fn a_migration_goes_on_only_with_the_arguments_that_it_was_begun_with(world: World) {
        let client = left_by_the_version_before(&world).await;
        client.bus().send_key("alpha.do", Payload::text("kept")).await.unwrap();
        let (migration, ordered) = (Migration::new(client.bus()), target(&world));
        let (temporary, mut begun) = (format!("{}.migrating", ordered.name), Box::pin(migration.run(&ordered, &[])));
        let moved = eventually_async("it has begun", || async { world.ready(&temporary).await == Some(1) });
        tokio::select! { () = moved => {} done = &mut begun => panic!("it has ended: {done:?}") }
        drop(begun);
        let other = Queue::replicated(&ordered.name);
        let refused = migration.run(&other, &[]).await.unwrap_err();
        assert!(matches!(&refused, MigrationError::OtherTarget { .. }), "{refused}");
        migration.run(&ordered, &[]).await.unwrap();
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        assert_eq!(alpha.seen.reach(1).await, ["kept"]);
        running.stop().await;
    }

    async fn a_queue_of_which_nothing_is_recorded_is_left_to_its_services_own_binary(world: World) {
        let client = left_by_the_version_before(&world).await;
        let broker = world.broker().await;
        let record = Queue::standing(world.names.topology("alpha"));
        broker.remove(&Topology::of_queues([record])).await.unwrap();
        let refused = Migration::new(client.bus()).run(&target(&world), &[]).await.unwrap_err();
        let text = refused.to_string();
        assert!(matches!(refused, MigrationError::NoRecord { .. }) && text.contains("alpha topology migrate"), "{text}");
        assert_eq!(world.ready(&format!("{}.migrating", target(&world).name)).await, None, "nothing was begun");
    }

    async fn dead_letters_move_only_without_their_service_and_it_waits_for_them(world: World) {
        let before = Before::default();
        let running = world.start(App::new("alpha").actor(move || before.clone())).await;
        let client = world.client().await;
        let dead = world.names.dead_queue(&world.names.queue("alpha", None));
        let classic = Queue::on_one_node(&dead);
        let refused = Migration::new(client.bus()).run(&classic, &[]).await.unwrap_err();
        assert!(matches!(refused, MigrationError::Consumed { .. }), "{refused}");
        running.stop().await;
        let begun = Queue::replicated(format!("{dead}.migrating"));
        world.broker().await.declare(&Topology::of_queues([begun])).await.unwrap();
        let before = Before::default();
        let text = world.try_start(App::new("alpha").actor(move || before.clone())).await.err().unwrap().to_string();
        assert!(text.contains(&dead) && text.contains("not finished"), "{text}");
    }

    async fn a_queue_that_is_consumed_or_missing_is_not_migrated(world: World) {
        let client = world.client().await;
        let missing = Migration::new(client.bus()).run(&target(&world), &[]).await.unwrap_err();
        assert!(matches!(missing, MigrationError::NoQueue { .. }), "{missing}");
        let before = Before::default();
        let running = world.start(App::new("alpha").actor(move || before.clone())).await;
        let consumed = Migration::new(client.bus()).run(&target(&world), &[]).await.unwrap_err();
        assert!(matches!(consumed, MigrationError::Consumed { consumers: 1, .. }), "{consumed}");
        running.stop().await;
    }

    async fn an_actor_does_not_start_while_its_queue_is_being_migrated(world: World) {
        let client = left_by_the_version_before(&world).await;
        let queue = format!("{}.migrating", world.names.queue("alpha", None));
        let (migration, target) = (Migration::new(client.bus()), target(&world));
        let mut begun = Box::pin(migration.run(&target, &[]));
        let standing = eventually_async("it has begun", || async { world.ready(&queue).await.is_some() });
        tokio::select! { () = standing => {} done = &mut begun => panic!("it has ended: {done:?}") }
        drop(begun);
        let alpha = Alpha::default();
        let refused = world.try_start(alpha.app()).await.err().unwrap().to_string();
        assert!(refused.contains("not finished") && refused.contains("topology migrate"), "{refused}");
        migration.run(&target, &[]).await.unwrap();
        world.start(alpha.app()).await.stop().await;
    }
}

/// With a real SIGKILL, again and again, wherever it hits.
#[test]
fn a_migration_that_is_killed_anywhere_loses_nothing_and_goes_on() {
    run(async {
        let world = World::rabbitmq();
        let client = left_by_the_version_before(&world).await;
        let alpha = Alpha::default();
        let mut ids = Vec::new();
        for _ in 0..3_000 {
            let id = MessageId::new().to_string();
            alpha.ledger.attempts(&id);
            ids.push(id);
        }
        let sending = ids.iter().map(|id| client.bus().send_key("alpha.do", Payload::text(id)));
        for sent in futures::future::join_all(sending).await {
            sent.unwrap();
        }
        ids.iter().for_each(|id| alpha.ledger.confirms(id));
        let queue = world.names.queue("alpha", None);
        let (mut kills, mut refused) = (0, false);
        // Each run lives a little longer, so that every step is hit.
        for millis in (100..).step_by(150) {
            let mut migrating =
                operator_command(&world, &["topology", "migrate", &queue, "--ordered"]).spawn().unwrap();
            tokio::time::sleep(Duration::from_millis(millis)).await;
            if let Some(status) = migrating.try_wait().unwrap() {
                assert!(status.success(), "a run that was not killed succeeds");
                break;
            }
            migrating.kill().unwrap();
            migrating.wait().unwrap();
            kills += 1;
            let temporary = world.ready(&format!("{queue}.migrating")).await;
            if temporary.is_some() && !refused {
                let text = world.try_start(alpha.app()).await.err().unwrap().to_string();
                refused = text.contains("not finished");
            }
            assert!(millis < 60_000, "the migration never ends");
        }
        println!("killed {kills} times; a start in between was refused: {refused}");
        assert!(kills > 2 && refused, "the faults did not bite: {kills} kills");
        let running = world.start(alpha.app()).await;
        alpha.ledger.balanced("a migration killed again and again").await;
        let mut first: Vec<String> = Vec::new();
        let mut known = std::collections::HashSet::new();
        for text in alpha.seen.all() {
            if known.insert(text.clone()) {
                first.push(text);
            }
        }
        assert_same(ids, first);
        running.stop().await;
    });
}
