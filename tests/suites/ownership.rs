//! Who owns a domain, and who may speak for it.

use postrider::{App, Payload, SendError, distributed};
use postrider_tests::world::eventually_async;

#[derive(Default)]
struct Depot;

#[distributed(service = "depot", domains = ["parcels"])]
impl Depot {
    #[distributed(command = "parcels.send")]
    async fn send(&self, _: String) {}
}

#[derive(Default)]
struct Office;

#[distributed(service = "office", domains = ["office", "parcels"])]
impl Office {
    #[distributed(command = "parcels.weigh")]
    async fn weigh(&self, _: String) {}
}

#[derive(Default)]
struct Double;

#[distributed(service = "depot", queue = "second", domains = ["parcels"])]
impl Double {
    #[distributed(command = "parcels.send")]
    async fn send(&self, _: String) {}
}

#[derive(Default)]
struct Promising;

#[distributed(service = "promising", guarantee = "effectively_once")]
impl Promising {
    #[distributed(command = "promising.keep")]
    async fn keep(&self, _: String) {}
}

on_both_brokers! {
    /// T170
    async fn a_second_service_that_claims_an_owned_domain_is_refused_and_the_first_undisturbed(world: World) {
        let depot = world.start(App::new("depot").actor(Depot::default)).await;
        let Err(error) = world.try_start(App::new("office").actor(Office::default)).await else { panic!("it started") };
        for part in ["parcels", "depot", "office", "domain release"] {
            assert!(error.to_string().contains(part), "{part:?} is missing in: {error}");
        }
        depot.bus().send_key("parcels.send", Payload::text("x")).await.unwrap();
        eventually_async("the first goes on", || async { depot.stats().handled == 1 }).await;
        let second = world.start(App::new("depot").actor(Depot::default)).await;
        assert!(second.health().ready, "another instance of the owner is welcome");
    }

    /// T10
    async fn two_handlers_for_one_command_are_refused_at_start_with_both_places(world: World) {
        let app = App::new("depot").actor(Depot::default).actor(Double::default);
        let Err(error) = world.try_start(app).await else { panic!("it started") };
        let text = error.to_string();
        assert!(text.contains("parcels.send") && text.matches("ownership.rs:").count() == 2, "{text}");
    }

    async fn two_services_for_one_domain_in_one_process_are_refused(world: World) {
        let app = App::new("both").actor(Depot::default).actor(Office::default);
        let Err(error) = world.try_start(app).await else { panic!("it started") };
        assert!(error.to_string().contains("only one can"), "{error}");
    }

    /// T9
    async fn an_event_of_somebody_elses_domain_is_refused_at_the_sender(world: World) {
        let client = world.client().await;
        let error = client.bus().publish_key("parcels.sent", Payload::text("x")).await.unwrap_err();
        let SendError::NotOwner { service, domain, .. } = &error else { panic!("{error:?}") };
        assert_eq!((service.as_str(), domain.as_str()), ("tester", "parcels"));
        client.bus().publish_key_with("parcels.sent", Payload::text("x"), |o| o.as_owner()).await.unwrap();
    }

    async fn a_promise_that_cannot_be_kept_is_refused_at_start(world: World) {
        let Err(error) = world.try_start(App::new("promising").actor(Promising::default)).await else { panic!("it started") };
        assert!(error.to_string().contains("effectively_once") && error.to_string().contains("store"), "{error}");
    }
}
