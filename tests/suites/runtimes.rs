//! Callers on runtimes of their own, which come and go.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures::future::LocalBoxFuture;
use postrider::broker::{Publication, To};
use postrider::message::{Key, ReplyTo};
use postrider::testing::ForeignMessage;
use postrider::{App, Bus, Envelope, Failure, Kind, MediaType, Payload, distributed};
use postrider_tests::node::Node;
use postrider_tests::world::{Seen, World, eventually, run};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

#[derive(Clone, Default)]
struct Sink {
    seen: Arc<AtomicUsize>,
    /// Thread and number of what came.
    came: Seen<(usize, u64)>,
}

#[distributed(service = "sink")]
impl Sink {
    #[distributed(command = "sink.put")]
    async fn put(&self, _number: u64) {
        self.seen.fetch_add(1, Ordering::SeqCst);
    }

    #[distributed(command = "sink.order")]
    async fn order(&mut self, (thread, number): (usize, u64)) {
        self.came.add((thread, number));
    }

    #[distributed(query = "sink.twice")]
    async fn twice(&self, number: u64) -> Result<u64, Failure> {
        Ok(2 * number)
    }
}

fn is_request(number: u64) -> bool {
    number.is_multiple_of(5)
}

/// A command whose sender waits for the answer.
fn request(what: (usize, u64)) -> Envelope {
    let payload = serde_json::to_vec(&what).unwrap();
    let mut envelope = Envelope::new(Kind::Command, Key::new("sink.order").unwrap(), MediaType::JSON, payload.into());
    envelope.reply_to = Some(ReplyTo::Caller);
    envelope
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

/// As many as find room in the queue to the channel; more may pass each other.
#[test]
fn what_a_thread_sends_keeps_its_order_beside_other_threads_and_when_the_connection_is_lost() {
    const THREADS: usize = 4;
    const MESSAGES: u64 = 250;
    run(async {
        let node = Node::start().unwrap();
        let (world, sink) = (World::on(node.url()), Sink::default());
        let came = sink.came.clone();
        let running = world.start(App::new("sink").actor(move || sink.clone())).await;
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let bus = running.bus().clone();
                std::thread::spawn(move || {
                    single().block_on(async {
                        let mut sending = Vec::new();
                        for number in 0..MESSAGES {
                            let bus = &bus;
                            // Requests take another way onto the channel. Those that are open when it ends fail.
                            let mut sent: LocalBoxFuture<'_, ()> = if is_request(number) {
                                Box::pin(async move { drop(bus.dispatch(request((thread, number))).await) })
                            } else {
                                Box::pin(async move {
                                    drop(bus.send_key("sink.order", Payload::json(&(thread, number))).await.unwrap());
                                })
                            };
                            if futures::poll!(&mut sent).is_pending() {
                                sending.push(sent);
                            }
                            // Now and then whoever waits gets on.
                            if number % 100 == 0 {
                                tokio::task::yield_now().await;
                            }
                        }
                        futures::future::join_all(sending).await;
                    });
                })
            })
            .collect();
        came.reach(200).await;
        // Only the one that publishes: what a consumer had comes again in any order.
        let connections = node.ctl(&["-q", "list_connections", "pid", "client_properties"]).unwrap();
        let publishing = connections.lines().find(|line| line.contains("(publishing)")).expect(&connections);
        let pid = publishing.split_whitespace().next().unwrap();
        node.ctl(&["close_connection", pid, "a test"]).unwrap();
        tokio::task::spawn_blocking(|| threads.into_iter().for_each(|thread| thread.join().unwrap())).await.unwrap();
        let of_thread = |thread: usize| {
            let mut known = std::collections::BTreeSet::new();
            let numbers = came.all().into_iter().filter(move |(of, _)| *of == thread).map(|(_, number)| number);
            // What came again was there before.
            numbers.filter(move |number| known.insert(*number)).collect::<Vec<_>>()
        };
        let sent: Vec<u64> = (0..MESSAGES).filter(|number| !is_request(*number)).collect();
        let came_of = |thread| of_thread(thread).into_iter().filter(|number| !is_request(*number)).count();
        eventually("all have come", || (0..THREADS).all(|thread| came_of(thread) == sent.len())).await;
        for thread in 0..THREADS {
            let came = of_thread(thread);
            assert!(came.is_sorted(), "of thread {thread}: {came:?}");
        }
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
        let foreign = ForeignMessage { content_type: Some("application/json".into()), ..ForeignMessage::default() };
        let message = foreign.addressed(To::key(Kind::Command, &"sink.put".into()), "1");
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

/// Whoever waits for the end may have nothing but one thread.
#[test]
fn waiting_for_the_end_of_an_app_blocks_nobody_while_blocking_work_goes_on() {
    let goes_on = Arc::new(AtomicBool::new(true));
    let blocking = Arc::clone(&goes_on);
    let (began, begins) = mpsc::channel();
    single().block_on(async {
        let app = App::new("sink").on_ready(async move |_| {
            let (blocking, began) = (Arc::clone(&blocking), began.clone());
            tokio::task::spawn_blocking(move || {
                began.send(()).unwrap();
                while blocking.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            Ok(())
        });
        let running = World::in_process().start(app).await;
        while begins.try_recv().is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (mut longest, mut last) = (Duration::ZERO, Instant::now());
        let beat = async {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
        };
        tokio::select! {
            report = running.stop() => assert_eq!(report.failure, None),
            () = beat => {}
        }
        assert!(longest < Duration::from_secs(2), "the thread of the caller was blocked for {longest:?}");
    });
    goes_on.store(false, Ordering::SeqCst);
}

#[test]
fn an_app_whose_own_work_panics_stops_and_says_so() {
    run(async {
        let app = App::new("sink").until(async |_| panic!("a bug of the program"));
        let running = World::in_process().start(app).await;
        let failure = running.ended().await.failure.unwrap();
        assert!(failure.contains("a bug of the program"), "{failure}");
    });
}
