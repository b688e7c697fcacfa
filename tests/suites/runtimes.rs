//! Callers on runtimes of their own, which come and go.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use postrider::broker::{Addressed, Properties, Publication};
use postrider::{App, Bus, Failure, Kind, Payload, distributed};
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
        assert_eq!(channels(), before, "all publish on one");
        use_it(running.bus(), 1).await;
        running.stop().await;
    });
}

#[test]
fn a_call_that_began_on_a_runtime_that_has_ended_goes_on() {
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
        let begun = publisher.publish(message, there);
        let ended = std::thread::spawn(move || {
            let (runtime, mut begun) = (single(), begun);
            runtime.block_on(async {
                assert!(futures::poll!(&mut begun).is_pending(), "the broker is frozen");
            });
            say.send(begun).unwrap();
        });
        tokio::task::spawn_blocking(|| ended.join().unwrap()).await.unwrap();
        node.thaw().unwrap();
        assert_eq!(under_way.recv().unwrap().await, Ok(Publication::Confirmed));
        running.stop().await;
    });
}
