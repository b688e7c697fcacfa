//! The conversation with RabbitMQ, as it was recorded: other versions, and other people's programs, rely on every byte of it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use postrider::operate::{DeadFilter, DeadLetters, Replay};
use postrider::{App, Context, Failure, MediaType, Payload, RequestError, Secret, SendError, distributed};
use postrider_tests::node::Node;
use postrider_tests::recording::Recorder;
use postrider_tests::world::{World, eventually, run};

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/recordings/wire.txt");

#[derive(Clone)]
struct Orders;

#[distributed(service = "orders", retry = "2 then 200ms")]
impl Orders {
    #[distributed(command = "orders.place")]
    async fn place(&self, order: u64, cx: &Context) -> Result<u64, Failure> {
        cx.publish_key("orders.placed", Payload::json(&order))?;
        cx.send_key("orders.pack", Payload::msgpack(&order))?;
        Ok(order)
    }

    #[distributed(command = "orders.pack")]
    async fn pack(&self, _: u64) {}

    #[distributed(event = "orders.*")]
    async fn placed(&self, _: u64) {}

    #[distributed(query = "orders.open")]
    async fn open(&self, least: u64) -> Result<Vec<u64>, Failure> {
        Ok(vec![least, least + 1])
    }

    #[distributed(query = "orders.count")]
    async fn count(&self, _: ()) -> Result<u64, Failure> {
        Err(Failure::rejected("closed", "nobody counts at night").with_detail("until", "6:00"))
    }

    #[distributed(channel = "hints")]
    async fn hint(&self, _: String) {}

    #[distributed(command = "orders.fail")]
    async fn fail(&self, _: ()) -> Result<(), Failure> {
        Err(Failure::permanent("the warehouse is gone"))
    }

    #[distributed(command = "orders.retry")]
    async fn retry(&self, _: (), cx: &Context) -> Result<(), Failure> {
        if cx.attempt() < 3 { Err(Failure::transient("not yet")) } else { Ok(()) }
    }
}

#[derive(Clone)]
struct Ledger;

#[distributed(service = "ledger", ordered)]
impl Ledger {
    #[distributed(event = "orders.placed")]
    async fn placed(&mut self, _: u64) {}
}

#[test]
fn what_is_said_to_rabbitmq_is_what_was_recorded() {
    let node = Node::start().unwrap_or_else(|error| panic!("this test needs a RabbitMQ of its own: {error}"));
    run(async {
        let recorder = Recorder::start(node.port()).await;
        let world = World::on(recorder.url());
        let orders = App::new("orders").actor(|| Orders).configure(|config| {
            config.retry.pause = Duration::from_millis(5);
        });
        let orders = world.start(orders).await;
        let ledger = world.start(App::new("ledger").actor(|| Ledger)).await;
        let client = world.client().await;
        let bus = client.bus();
        let json = |number: u64| Payload::json(&number);

        bus.send_key_with("orders.place", json(1), |o| o.id("one").header("tenant", "acme").header("weight", 1.5))
            .await
            .unwrap();
        bus.send_to_with("orders", "orders.pack", Payload::msgpack(&2_u64), |o| {
            o.id("two").priority(3).transient(true)
        })
        .await
        .unwrap();
        bus.publish_key_with("orders.shipped", json(3), |o| {
            o.id("three").as_owner().recipients(["orders"]).skip("ledger")
        })
        .await
        .unwrap();
        bus.send_channel_with("orders", "hints", Payload::text("soon"), |o| {
            o.id("four").expiration(Duration::from_secs(90))
        })
        .await
        .unwrap();
        let placed: u64 = bus
            .request_key_with("orders.place", json(5), |o| o.id("five").timeout(Duration::from_secs(20)))
            .await
            .unwrap();
        let open: Vec<u64> = bus
            .request_key_with("orders.open", Payload::msgpack(&6_u64), |o| {
                o.id("six").timeout(Duration::from_secs(20)).bearer(Secret::new("token"))
            })
            .await
            .unwrap();
        assert_eq!((placed, open), (5, vec![6, 7]));
        let counted = bus.request_key_with::<u64>("orders.count", Payload::json(&()), |o| o.id("seven")).await;
        assert!(matches!(counted, Err(RequestError::Remote { .. })), "{counted:?}");
        let nobody = bus.send_key_with("billing.pay", json(8), |o| o.id("eight")).await;
        assert!(matches!(nobody, Err(SendError::Unroutable { .. })), "{nobody:?}");
        bus.send_key_with("orders.pack", json(9), |o| o.id("nine").delay(Duration::from_millis(300))).await.unwrap();
        bus.send_key_with("orders.retry", Payload::json(&()), |o| o.id("ten")).await.unwrap();
        bus.send_key_with("orders.fail", Payload::json(&()), |o| o.id("eleven")).await.unwrap();
        let undecodable = Payload::bytes(&b"\xff\x00no number"[..], MediaType::JSON);
        bus.send_key_with("orders.pack", undecodable, |o| o.id("twelve")).await.unwrap();

        bus.send_key_with("orders.pack", json(13), |o| o.id("thirteen").fire()).await.unwrap();

        eventually("the delayed attempt is done", || orders.stats().handled >= 12 && ledger.stats().handled >= 2).await;
        eventually("two are dead letters", || orders.stats().dead_lettered >= 2).await;
        let dead = DeadLetters::new(bus);
        let (which, how) = (DeadFilter::id("eleven"), Replay::default());
        assert_eq!(dead.replay(&which, &how).await.unwrap().replayed, 1);
        eventually("it has failed again", || orders.stats().dead_lettered >= 3).await;
        client.stop().await;
        ledger.stop().await;
        orders.stop().await;

        compare_with_recording(&recorder.text(world.names.namespace()));
    });
}

fn compare_with_recording(said: &str) {
    if std::env::var_os("POSTRIDER_RECORD").is_some() {
        fs::create_dir_all(Path::new(RECORDING).parent().unwrap()).unwrap();
        fs::write(RECORDING, said).unwrap();
    }
    let recorded = fs::read_to_string(RECORDING).unwrap();
    let only_in = |one: &str, other: &str| -> String {
        let lines = one.lines().filter(|line| !other.lines().any(|known| known == *line));
        lines.collect::<Vec<_>>().join("\n")
    };
    let (missing, extra) = (only_in(&recorded, said), only_in(said, &recorded));
    assert!(missing.is_empty() && extra.is_empty(), "missing:\n{missing}\n\nextra:\n{extra}");
    assert_eq!(said.lines().count(), recorded.lines().count(), "some lines came more or less often");
}
