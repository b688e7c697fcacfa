//! Exchanges, queues and bindings: declared, listed, compared, cleaned.

use std::time::Duration;

use postrider::broker::{Queue, Topology, WhenFull};
use postrider::{App, Payload, distributed};
use postrider_tests::world::{Seen, eventually};

#[derive(Clone, Default)]
struct Old {
    seen: Seen<String>,
}

#[distributed(service = "alpha")]
impl Old {
    #[distributed(command = "alpha.first")]
    async fn first(&self, text: String) {
        self.seen.add(format!("old {text}"));
    }
}

#[derive(Clone, Default)]
struct New {
    seen: Seen<String>,
}

#[distributed(service = "alpha")]
impl New {
    #[distributed(command = "alpha.first")]
    async fn first(&mut self, text: String) {
        self.seen.add(format!("new {text}"));
    }

    #[distributed(command = "alpha.second")]
    async fn second(&mut self, text: String) {
        self.seen.add(format!("second {text}"));
    }
}

fn old(seen: &Seen<String>) -> App {
    let actor = Old { seen: seen.clone() };
    App::new("alpha").actor(move || actor.clone()).configure(|config| config.skew.pause = Duration::from_millis(100))
}

fn new(seen: &Seen<String>) -> App {
    let actor = New { seen: seen.clone() };
    App::new("alpha").actor(move || actor.clone())
}

on_both_brokers! {
    /// T128
    async fn starting_twice_declares_the_same(world: World) {
        let seen = Seen::default();
        let first = world.start(new(&seen)).await;
        let second = world.start(new(&seen)).await;
        assert!(first.health().ready && second.health().ready);
    }

    /// T129
    async fn a_queue_with_other_arguments_is_refused_with_queue_argument_and_both_values(world: World) {
        let broker = world.broker().await;
        let name = world.names.queue("alpha", None);
        let standing = Queue::on_one_node(&name).with_limit(5, WhenFull::DropOldest);
        broker.declare(&Topology::of_queues([standing])).await.unwrap();
        let Err(error) = world.try_start(new(&Seen::default())).await else { panic!("it started") };
        let text = error.to_string();
        assert!(text.contains(&name) && text.contains("received") && text.contains("current"), "{text}");
        let other = world.client().await;
        other.bus().publish_key("tester.fine", Payload::text("x")).await.unwrap();
    }

    /// T174
    async fn an_old_instance_passes_a_new_key_on_to_the_new_one(world: World) {
        let (seen_by_old, seen_by_new) = (Seen::default(), Seen::default());
        let new_version = world.start(new(&seen_by_new)).await;
        new_version.stop().await;
        let old_version = world.start(old(&seen_by_old)).await;
        old_version.bus().send_key("alpha.second", Payload::text("x")).await.unwrap();
        eventually("the old one has met it", || old_version.stats().no_handler >= 2).await;
        assert_eq!(old_version.stats().dead_lettered, 0);
        let _new_version = world.start(new(&seen_by_new)).await;
        seen_by_new.reach(1).await;
        assert_eq!((seen_by_new.all(), seen_by_old.count()), (vec!["second x".to_owned()], 0));
        assert_eq!(old_version.stats().dead_lettered, 0);
    }

    async fn a_key_that_no_version_handles_is_dead_lettered_after_the_window(world: World) {
        let seen = Seen::default();
        world.start(new(&seen)).await.stop().await;
        let old_version = world.start(old(&seen).configure(|config| config.skew.window = Duration::from_secs(1))).await;
        old_version.bus().send_key("alpha.second", Payload::text("x")).await.unwrap();
        let dead = world.dead_letters("alpha", 1).await;
        assert_eq!(dead[0].headers.text("postrider-dead-reason"), Some("no_handler"));
        assert_eq!((dead[0].key.as_str(), &dead[0].payload[..]), ("alpha.second", &b"x"[..]));
    }

    /// T137
    async fn the_list_has_every_handler_with_its_queue_and_guarantee(world: World) {
        let rows = world.app(new(&Seen::default())).list();
        let row = |key: &str| rows.iter().find(|row| row.key == key).unwrap();
        assert_eq!(rows.len(), 2);
        let first = row("alpha.first");
        assert_eq!((first.kind.as_str(), first.mode.as_str(), first.method.as_str()), ("command", "exclusive", "first"));
        assert_eq!(first.queue, world.names.queue("alpha", None));
        assert!(first.file.ends_with("topology.rs") && first.line > 0);
    }
}
