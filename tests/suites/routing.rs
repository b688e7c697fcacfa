//! Who gets a message: commands, events, queries, channels.

use postrider::{App, Bus, Payload, SendError, distributed};
use postrider_tests::world::{Seen, assert_same, eventually};

use crate::messages::{Count, Note, Noted};

type Record = (String, String);

/// Records what arrives, under the name it was given.
#[derive(Clone)]
struct Alpha {
    name: String,
    seen: Seen<Record>,
}

impl Alpha {
    fn app(name: &str, seen: &Seen<Record>) -> App {
        let alpha = Self { name: name.into(), seen: seen.clone() };
        App::new("alpha").actor(move || alpha.clone())
    }

    fn add(&self, text: impl Into<String>) {
        self.seen.add((self.name.clone(), text.into()));
    }

    #[allow(dead_code)]
    async fn unreachable(&self, text: String) {
        self.add(format!("unreachable {text}"));
    }
}

#[distributed(service = "alpha")]
impl Alpha {
    #[distributed(command = "alpha.note")]
    async fn note(&self, note: Note) -> Result<String, postrider::Failure> {
        self.add(note.text.clone());
        Ok(note.text)
    }

    #[distributed(event = "alpha.note")]
    async fn note_as_event(&self, note: serde_json::Value) {
        self.add(format!("event {}", note["text"].as_str().unwrap_or_default()));
    }

    #[distributed(query = "alpha.count")]
    async fn count(&self, _: Count) -> Result<u64, postrider::Failure> {
        Ok(self.seen.count() as u64)
    }

    #[distributed(channel = "ledger")]
    async fn ledger(&self, text: String) {
        self.add(format!("ledger {text}"));
    }

    #[distributed(event = "alpha.noted")]
    async fn own_event(&self, noted: Noted) {
        self.add(format!("own {}", noted.text));
    }

    #[distributed(event = "alpha.everywhere", scope = "instance")]
    async fn everywhere(&self, text: String) {
        self.add(format!("everywhere {text}"));
    }

    // Local only: not reachable through the broker.
    #[allow(dead_code)]
    async fn local(&self, note: Note) {
        self.add(format!("local {}", note.text));
    }
}

macro_rules! subscriber {
    ($name:ident, $service:literal) => {
        #[derive(Clone)]
        struct $name {
            instance: String,
            seen: Seen<Record>,
        }

        impl $name {
            fn app(instance: &str, seen: &Seen<Record>) -> App {
                let actor = Self { instance: format!("{} {instance}", $service), seen: seen.clone() };
                App::new($service).actor(move || actor.clone())
            }
        }

        #[distributed(service = $service)]
        impl $name {
            #[distributed(event = "alpha.noted")]
            async fn noted(&self, noted: Noted) {
                self.seen.add((self.instance.clone(), noted.text));
            }
        }
    };
}

subscriber!(Beta, "beta");
subscriber!(Gamma, "gamma");
subscriber!(Delta, "delta");

async fn publish(bus: &Bus, text: &str) {
    bus.publish_with(&Noted { text: text.into() }, |o| o.as_owner()).await.unwrap();
}

on_both_brokers! {
    /// T1
    async fn a_command_runs_in_exactly_one_of_two_instances(world: World) {
        let seen = Seen::default();
        let (one, two) = (world.start(Alpha::app("one", &seen)).await, world.start(Alpha::app("two", &seen)).await);
        let client = world.client().await;
        for number in 0..40 {
            client.bus().send(&Note::new(number)).await.unwrap();
        }
        let records = seen.reach(40).await;
        eventually("all are settled", || one.stats().in_flight + two.stats().in_flight == 0).await;
        assert_same((0..40).map(|n| n.to_string()), seen.all().into_iter().map(|(_, text)| text));
        let instances: std::collections::BTreeSet<_> = records.into_iter().map(|(instance, _)| instance).collect();
        assert_eq!(instances.len(), 2, "both instances have worked");
    }

    /// T2
    async fn an_event_runs_once_in_each_of_three_services_with_two_instances(world: World) {
        let seen = Seen::default();
        let mut apps = Vec::new();
        for instance in ["one", "two"] {
            for app in [Beta::app(instance, &seen), Gamma::app(instance, &seen), Delta::app(instance, &seen)] {
                apps.push(world.start(app).await);
            }
        }
        let client = world.client().await;
        for number in 0..10 {
            publish(client.bus(), &number.to_string()).await;
        }
        seen.reach(30).await;
        eventually("all are settled", || apps.iter().all(|app| app.stats().in_flight == 0)).await;
        let expected = ["beta", "gamma", "delta"].iter().flat_map(|service| (0..10).map(move |n| format!("{service} {n}")));
        let got = seen.all().into_iter().map(|(instance, text)| format!("{} {text}", instance.split(' ').next().unwrap()));
        assert_same(expected, got);
    }

    /// T3
    async fn an_event_without_subscriber_is_sent_and_counted(world: World) {
        let client = world.client().await;
        client.bus().publish_key_with("nobody.listens", Payload::text("x"), |o| o.as_owner()).await.unwrap();
        assert_eq!(client.stats().unrouted, 1);
    }

    /// T4
    async fn a_command_to_nobody_is_unroutable(world: World) {
        let client = world.client().await;
        for error in [
            client.bus().send_key("nobody.there", Payload::text("x")).await.unwrap_err(),
            client.bus().send_to("nobody", "alpha.note", Payload::text("x")).await.unwrap_err(),
            client.bus().send_channel("nobody", "ledger", Payload::text("x")).await.unwrap_err(),
        ] {
            assert!(matches!(error, SendError::Unroutable { .. }), "{error:?}");
        }
    }

    /// T5
    async fn a_query_brings_a_typed_answer(world: World) {
        let seen = Seen::default();
        let _alpha = world.start(Alpha::app("one", &seen)).await;
        let client = world.client().await;
        client.bus().request(&Note::new("a")).await.unwrap();
        assert_eq!(client.bus().request(&Count).await.unwrap(), 1);
    }

    /// T7
    async fn the_same_key_as_command_and_as_event_never_crosses(world: World) {
        let seen = Seen::default();
        let alpha = world.start(Alpha::app("one", &seen)).await;
        alpha.bus().send_key("alpha.note", Payload::json(&Note::new("a"))).await.unwrap();
        alpha.bus().publish_key("alpha.note", Payload::json(&Note::new("b"))).await.unwrap();
        seen.reach(2).await;
        eventually("all are settled", || alpha.stats().in_flight == 0).await;
        assert_same(["a".to_owned(), "event b".to_owned()], seen.all().into_iter().map(|(_, text)| text));
    }

    /// T8
    async fn the_sender_is_skipped_exactly_when_asked(world: World) {
        let seen = Seen::default();
        let alpha = world.start(Alpha::app("one", &seen)).await;
        let beta = world.start(Beta::app("one", &seen)).await;
        alpha.bus().publish_with(&Noted { text: "skipped".into() }, |o| o.skip_sender()).await.unwrap();
        alpha.bus().publish(&Noted { text: "for all".into() }).await.unwrap();
        eventually("both have settled both", || alpha.stats().skipped == 1 && alpha.stats().handled == 1 && beta.stats().handled == 2).await;
        let texts = seen.all().into_iter().map(|(_, text)| text);
        assert_same(["own for all", "for all", "skipped"].map(str::to_owned), texts);
    }

    async fn an_instance_scoped_event_reaches_every_instance_and_skips_only_the_sender(world: World) {
        let seen = Seen::default();
        let one = world.start(Alpha::app("one", &seen)).await;
        let _two = world.start(Alpha::app("two", &seen)).await;
        one.bus().publish_key("alpha.everywhere", Payload::text("a")).await.unwrap();
        seen.reach(2).await;
        one.bus().publish_key_with("alpha.everywhere", Payload::text("b"), |o| o.skip_sender()).await.unwrap();
        eventually("the sender has skipped its own", || one.stats().skipped == 1).await;
        seen.reach(3).await;
        let record = |name: &str, text: &str| (name.to_owned(), format!("everywhere {text}"));
        assert_same([record("one", "a"), record("two", "a"), record("two", "b")], seen.all());
    }

    async fn recipients_narrow_an_event_and_address_a_command(world: World) {
        let seen = Seen::default();
        let beta = world.start(Beta::app("one", &seen)).await;
        let gamma = world.start(Gamma::app("one", &seen)).await;
        let alpha = world.start(Alpha::app("one", &seen)).await;
        let noted = Noted { text: "for gamma".into() };
        alpha.bus().publish_with(&noted, |o| o.recipients(["gamma"])).await.unwrap();
        eventually("all have settled", || beta.stats().skipped == 1 && gamma.stats().handled == 1 && alpha.stats().skipped == 1).await;
        assert_same([("gamma one".to_owned(), "for gamma".to_owned())], seen.all());
        let error = alpha.bus().send_with(&Note::new("x"), |o| o.recipients(["alpha", "beta"])).await.unwrap_err();
        assert!(matches!(error, SendError::Unroutable { .. }), "beta has no such command: {error:?}");
        seen.reach(2).await;
        let error = alpha.bus().request_with(&Note::new("x"), |o| o.recipients(["alpha", "beta"])).await.unwrap_err();
        assert!(error.to_string().contains("one recipient"), "{error}");
    }

    async fn commands_reach_a_service_by_name_and_channels_by_theirs(world: World) {
        let seen = Seen::default();
        let _alpha = world.start(Alpha::app("one", &seen)).await;
        let client = world.client().await;
        client.bus().send_to("alpha", "alpha.note", Payload::json(&Note::new("by name"))).await.unwrap();
        client.bus().send_channel("alpha", "ledger", Payload::text("line")).await.unwrap();
        seen.reach(2).await;
        assert_same(["by name", "ledger line"].map(str::to_owned), seen.all().into_iter().map(|(_, text)| text));
    }

    /// T12
    async fn a_method_without_the_attribute_is_not_reachable(world: World) {
        let seen = Seen::default();
        let alpha = world.start(Alpha::app("one", &seen)).await;
        for key in ["alpha.local", "alpha.unreachable", "local"] {
            let error = alpha.bus().send_key(key, Payload::json(&Note::new("x"))).await.unwrap_err();
            assert!(matches!(error, SendError::Unroutable { .. }), "{error:?}");
        }
        assert_eq!(seen.count(), 0);
    }

    /// T168
    async fn an_unroutable_command_is_returned_while_a_tap_listens(world: World) {
        let seen = Seen::default();
        let alpha = world.start(Alpha::app("one", &seen)).await;
        let mut tap = alpha.bus().tap(postrider::TapFilter::everything()).await.unwrap();
        let error = alpha.bus().send_key("alpha.unknown", Payload::text("x")).await.unwrap_err();
        assert!(matches!(error, SendError::Unroutable { .. }), "{error:?}");
        alpha.bus().request(&Note::new("a")).await.unwrap();
        alpha.bus().request(&Count).await.unwrap();
        alpha.bus().send_channel("alpha", "ledger", Payload::text("line")).await.unwrap();
        alpha.bus().publish(&Noted { text: "b".into() }).await.unwrap();
        let mut tapped = Vec::new();
        for _ in 0..4 {
            let envelope = tokio::time::timeout(postrider_tests::world::PATIENCE, tap.next()).await.unwrap().unwrap();
            tapped.push(format!("{} {}", envelope.kind, envelope.key));
        }
        assert_eq!(tapped, ["command alpha.note", "query alpha.count", "channel ledger", "event alpha.noted"]);
    }
}
