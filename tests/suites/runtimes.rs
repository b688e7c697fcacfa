//! Callers on runtimes of their own, which come and go: each has a confirm channel of its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use postrider::broker::{Addressed, BrokerError, Properties, Publication, ReplyEvent};
use postrider::{App, Bus, Failure, Headers, Kind, Payload, distributed};
use postrider_tests::node::Node;
use postrider_tests::world::{World, eventually, run};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

#[derive(Clone, Default)]
struct Sink {
    seen: Arc<AtomicUsize>,
}

#[distributed(service = "sink")]
impl Sink {
    #[distributed(command = "sink.put")]
    async fn put(&self, _number: u64) {
        self.seen.fetch_add(1, Ordering::SeqCst);
    }

    #[distributed(query = "sink.twice")]
    async fn twice(&self, number: u64) -> Result<u64, Failure> {
        Ok(2 * number)
    }
}

fn single() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

async fn use_it(bus: &Bus, number: u64) {
    bus.send_key("sink.put", Payload::json(&number)).await.unwrap();
    let answer: u64 = bus.request_key("sink.twice", Payload::json(&number)).await.unwrap();
    assert_eq!(answer, 2 * number);
}

/// More than the owners that a publisher has at most, some at a time.
#[test]
fn runtimes_that_come_and_go_publish_through_one_bus_and_leave_no_channel_behind() {
    run(async {
        const THREADS: u64 = 100;
        let node = Node::start().unwrap();
        let (world, sink) = (World::on(node.url()), Sink::default());
        let seen = Arc::clone(&sink.seen);
        let running = world.start(App::new("sink").actor(move || sink.clone())).await;
        use_it(running.bus(), 0).await;
        let channels = || node.ctl(&["-q", "list_channels", "pid"]).unwrap().lines().count();
        let before = channels();
        let (bus, all_there) = (running.bus().clone(), Arc::new(std::sync::Barrier::new(THREADS as usize)));
        let threads: Vec<_> = (1..=THREADS)
            .map(|number| {
                let (bus, all_there) = (bus.clone(), Arc::clone(&all_there));
                std::thread::spawn(move || {
                    let mut builder =
                        if number % 10 == 0 { Builder::new_multi_thread() } else { Builder::new_current_thread() };
                    let runtime = builder.worker_threads(1).enable_all().build().unwrap();
                    all_there.wait();
                    runtime.block_on(use_it(&bus, number));
                })
            })
            .collect();
        tokio::task::spawn_blocking(|| threads.into_iter().for_each(|thread| thread.join().unwrap())).await.unwrap();
        eventually("everything is handled", || seen.load(Ordering::SeqCst) as u64 == THREADS + 1).await;
        // One more is shared by those who have none of their own.
        eventually("the channels of runtimes that have ended are closed", || channels() <= before + 1).await;
        use_it(running.bus(), 1).await;
        running.stop().await;
    });
}

/// A call belongs to the runtime on which it began; nobody waits for one that has ended.
#[test]
fn what_is_under_way_on_a_runtime_that_ends_is_answered_and_others_go_on() {
    run(async {
        let mut node = Node::start().unwrap();
        let (world, sink) = (World::on(node.url()), Sink::default());
        let running = world.start(App::new("sink").actor(move || sink.clone())).await;
        let broker = world.broker().await;
        let publisher = broker.publisher(Arc::new(|_| {})).await.unwrap();
        let message = Addressed {
            exchange: world.names.exchange(Kind::Command),
            routing_key: "sink.put".into(),
            mandatory: true,
            awaits_reply: false,
            properties: Properties { content_type: Some("application/json".into()), ..Properties::default() },
            payload: "1".into(),
        };
        let there = Instant::now() + Duration::from_secs(60);
        let (say, under_way) = mpsc::channel();
        node.freeze().unwrap();
        let begun = publisher.publish(message.clone(), there);
        let ended = std::thread::spawn(move || {
            let (runtime, mut begun) = (single(), begun);
            runtime.block_on(async {
                // The channel cannot be opened: the broker is frozen.
                assert!(futures::poll!(&mut begun).is_pending());
                tokio::task::yield_now().await;
            });
            say.send(begun).unwrap();
        });
        tokio::task::spawn_blocking(|| ended.join().unwrap()).await.unwrap();
        let answered = under_way.recv().unwrap().await;
        assert_eq!(answered, Err(BrokerError::Stopped), "it was not sent");
        node.thaw().unwrap();
        assert_eq!(publisher.publish(message, there).await, Ok(Publication::Confirmed));
        running.stop().await;
    });
}

/// A message that costs one runtime its channel is nothing to the requests of another one.
#[test]
fn a_channel_that_is_closed_fails_no_request_of_another_runtime() {
    run(async {
        let world = World::rabbitmq();
        let sink = Sink::default();
        let running = world.start(App::new("sink").actor(move || sink.clone())).await;
        let broker = world.broker().await;
        let lost = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&lost);
        let publisher = broker.publisher(Arc::new(move |event| {
            if matches!(event, ReplyEvent::Lost) {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        }));
        let publisher = publisher.await.unwrap();
        let (names, there) = (world.names.clone(), Instant::now() + Duration::from_secs(60));
        let message = move |kind: Kind, key: &str, headers: Headers| Addressed {
            exchange: names.exchange(kind),
            routing_key: key.into(),
            mandatory: true,
            awaits_reply: kind == Kind::Query,
            properties: Properties { content_type: Some("application/json".into()), headers, ..Properties::default() },
            payload: "1".into(),
        };
        let asked = publisher.publish(message(Kind::Query, "sink.twice", Headers::new()), there).await;
        assert_eq!(asked, Ok(Publication::Confirmed));
        // RabbitMQ wants a list there, and closes the channel.
        let poison = publisher.publish(message(Kind::Command, "sink.put", [("CC", "x")].into_iter().collect()), there);
        let refused = tokio::task::spawn_blocking(|| single().block_on(poison)).await.unwrap();
        assert!(matches!(refused, Err(BrokerError::Protocol { .. })), "{refused:?}");
        assert_eq!(lost.load(Ordering::SeqCst), 0, "the channel of the request is open");
        running.stop().await;
    });
}
