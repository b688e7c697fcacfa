//! What only a real RabbitMQ can show.

use std::time::Duration;

use postrider::{App, Failure, Payload, SendError, distributed};
use postrider_tests::world::{Lines, Seen, World, amqp_url, eventually, run};

#[derive(Default)]
struct Blocking;

#[distributed(service = "blocking")]
impl Blocking {
    #[distributed(command = "blocking.work")]
    async fn work(&self, millis: u64) -> Result<(), Failure> {
        std::thread::sleep(Duration::from_millis(millis));
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Lively {
    seen: Seen<u64>,
}

#[distributed(service = "lively")]
impl Lively {
    #[distributed(query = "lively.ask")]
    async fn ask(&self, number: u64) -> Result<u64, Failure> {
        self.seen.add(number);
        Ok(number)
    }
}

/// T148
#[test]
fn of_200_pipelined_commands_exactly_the_20_unroutable_ones_fail() {
    run(async {
        let world = World::rabbitmq();
        let lively = world.start(App::new("blocking").actor(Blocking::default)).await;
        let sends = (0..200_u64).map(|number| {
            let key = if number % 10 == 7 { "nobody.there" } else { "blocking.work" };
            let bus = lively.bus().clone();
            async move { (number, bus.send_key(key, Payload::msgpack(&0_u64)).await) }
        });
        for (number, result) in futures::future::join_all(sends).await {
            match result {
                Ok(_) => assert_ne!(number % 10, 7, "message {number}"),
                Err(SendError::Unroutable { key, .. }) => assert_eq!((number % 10, key.as_str()), (7, "nobody.there")),
                Err(error) => panic!("message {number}: {error}"),
            }
        }
    });
}

/// T159, with two missed heartbeats instead of 90 s.
#[test]
fn a_blocked_arbiter_is_named_and_neither_connection_nor_neighbours_suffer() {
    let lines = Lines::default();
    let writer = lines.clone();
    tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .with_max_level(tracing::Level::WARN)
        .try_init()
        .unwrap();
    run(async {
        let world = World::on(format!("{}?heartbeat=1", with_path(&amqp_url())));
        let lively = Lively::default();
        let app = App::new("both").actor(Blocking::default).arbiter("one").actor(move || lively.clone()).arbiter("two");
        let running = world.start(app).await;
        let epoch = running.connection().borrow().epoch;
        running.bus().send_key("blocking.work", Payload::msgpack(&4_000_u64)).await.unwrap();
        let log = || lines.text();
        let mut asked = 0_u64;
        while !log().contains("an arbiter is blocked") {
            assert_eq!(running.bus().request_key::<u64>("lively.ask", Payload::msgpack(&asked)).await.unwrap(), asked);
            asked += 1;
        }
        assert!(asked > 0);
        let line = log().lines().find(|line| line.contains("an arbiter is blocked")).unwrap().to_owned();
        assert!(line.contains("work (") && line.contains("one"), "{line}");
        eventually("the blocking handler ends", || running.stats().handled == asked + 1).await;
        assert_eq!(running.connection().borrow().epoch, epoch, "the connection was never lost");
    });
}

fn with_path(url: &str) -> String {
    let after_scheme = url.split("://").nth(1).unwrap_or_default();
    if after_scheme.contains('/') { url.to_owned() } else { format!("{url}/") }
}

#[test]
fn a_broker_that_refuses_us_or_does_not_exist_is_named_without_a_password() {
    run(async {
        let good = amqp_url();
        let host = good.rsplit('@').next().unwrap().trim_start_matches("amqp://").split('/').next().unwrap().to_owned();
        for (url, part) in [
            (format!("amqp://nobody:hunter2@{host}"), "user, password"),
            (format!("{}/no-such-vhost", good.trim_end_matches('/')), "virtual host"),
            ("amqp://u:hunter2@127.0.0.1:1".to_owned(), "127.0.0.1:1"),
            ("http://u:hunter2@localhost".to_owned(), "amqp://"),
        ] {
            let world = World::on(url.clone());
            let app = App::new("blocking")
                .actor(Blocking::default)
                .configure(|config| config.start_timeout = Duration::from_secs(2));
            let Err(error) = world.try_start(app).await else { panic!("{url} was accepted") };
            let text = error.to_string();
            assert!(text.contains(part) && !text.contains("hunter2"), "{text}");
        }
    });
}
