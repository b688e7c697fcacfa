//! The connection comes back, and so does everything that was on it. On private nodes, which may be killed.

use postrider::{App, CancellationToken, Payload, RequestError, SendError, distributed};
use postrider_tests::node::Node;
use postrider_tests::world::{Seen, World, assert_same, eventually, run};

#[derive(Clone, Default)]
struct Alpha {
    seen: Seen<String>,
}

#[distributed(service = "alpha")]
impl Alpha {
    #[distributed(command = "alpha.note")]
    async fn note(&self, text: String) {
        self.seen.add(text);
    }

    #[distributed(query = "alpha.hang")]
    async fn hang(&self, _: ()) -> Result<(), postrider::Failure> {
        std::future::pending().await
    }

    #[distributed(event = "alpha.everywhere", scope = "instance")]
    async fn everywhere(&self, text: String) {
        self.seen.add(format!("everywhere {text}"));
    }
}

fn node() -> Node {
    Node::start().unwrap_or_else(|error| {
        panic!("this test needs a RabbitMQ of its own (`cargo xtask test` installs one): {error}")
    })
}

async fn start(world: &World, seen: &Seen<String>) -> postrider::Running {
    let actor = Alpha { seen: seen.clone() };
    world.start(App::new("alpha").actor(move || actor.clone())).await
}

/// T40, T158: killed connections.
#[test]
fn killed_connections_come_back_and_everything_consumes_again() {
    let node = node();
    run(async {
        let (world, seen) = (World::on(node.url()), Seen::default());
        let running = start(&world, &seen).await;
        let (one, two) = (running.connection(), running.connection());
        let opened = running.stats().consumers_opened;
        for round in 1..=3_u64 {
            node.ctl(&["close_all_connections", "test"]).unwrap();
            eventually("both observers see the new connection", || {
                [&one, &two].iter().all(|state| state.borrow().up && state.borrow().epoch > round)
            })
            .await;
            running.bus().send_key("alpha.note", Payload::text(format!("round {round}"))).await.unwrap();
            seen.reach(usize::try_from(round).unwrap()).await;
            eventually("all three lanes consume again", || {
                running.health().ready && running.stats().consumers_opened >= opened + 3 * round
            })
            .await;
        }
        running.bus().publish_key("alpha.everywhere", Payload::text("x")).await.unwrap();
        seen.reach(4).await;
    });
}

#[test]
fn messages_sent_while_the_broker_restarts_are_handled_afterwards() {
    let node = node();
    run(async {
        let (world, seen) = (World::on(node.url()), Seen::default());
        let running = start(&world, &seen).await;
        let bus = running.bus().clone();
        let sending = tokio::spawn(async move {
            let mut accepted = Vec::new();
            for number in 0..300 {
                let text = number.to_string();
                if bus.send_key("alpha.note", Payload::text(text.clone())).await.is_ok() {
                    accepted.push(text);
                }
            }
            accepted
        });
        seen.reach(50).await;
        let mut node = node;
        node.stop().unwrap();
        node.restart().unwrap();
        let accepted = sending.await.unwrap();
        assert!(accepted.len() > 100, "{} were accepted", accepted.len());
        eventually("all that was accepted is handled", || {
            let handled: std::collections::BTreeSet<_> = seen.all().into_iter().collect();
            accepted.iter().all(|text| handled.contains(text))
        })
        .await;
        eventually("ready again", || running.health().ready).await;
        let unique: std::collections::BTreeSet<_> = seen.all().into_iter().collect();
        assert_same(accepted, unique);
    });
}

/// T113
#[test]
fn open_requests_fail_at_once_when_the_connection_is_lost_and_new_ones_work() {
    let node = node();
    run(async {
        let (world, seen) = (World::on(node.url()), Seen::default());
        let running = start(&world, &seen).await;
        let client = world.client().await;
        let bus = client.bus().clone();
        let open = tokio::spawn(async move { bus.request_key::<()>("alpha.hang", Payload::msgpack(&())).await });
        eventually("the request is being handled", || running.stats().in_flight == 1).await;
        node.ctl(&["close_all_connections", "test"]).unwrap();
        let error = open.await.unwrap().unwrap_err();
        assert!(matches!(error, RequestError::ConnectionLost { .. }), "{error:?}");
        eventually("ready again", || running.health().ready).await;
        client.bus().request_key::<()>("alpha.note", Payload::text("again")).await.unwrap();
    });
}

#[test]
fn two_queues_do_not_disturb_each_other_when_one_is_deleted() {
    let node = node();
    run(async {
        let (world, seen) = (World::on(node.url()), Seen::default());
        let running = start(&world, &seen).await;
        let broker = world.broker().await;
        let queue = postrider::broker::Queue::replicated(world.names.query_queue(&world.names.queue("alpha", None)));
        broker.remove(&postrider::broker::Topology::of_queues([queue])).await.unwrap();
        running.bus().send_key("alpha.note", Payload::text("meanwhile")).await.unwrap();
        seen.reach(1).await;
        eventually("the deleted queue is declared and consumed again", || {
            running.stats().consumers_opened == 4 && running.health().ready
        })
        .await;
    });
}

/// Handlers run for whatever was sent before the sender of the mark, as one sender's messages keep their order.
async fn handled_before_a_mark(running: &postrider::Running, seen: &Seen<String>) -> Vec<String> {
    running.bus().send_key("alpha.note", Payload::text("mark")).await.unwrap();
    eventually("the mark is handled", || seen.all().contains(&"mark".to_owned())).await;
    seen.all()
}

#[test]
fn what_was_cancelled_or_dropped_while_the_broker_was_away_never_leaves() {
    let mut node = node();
    run(async {
        let (world, seen) = (World::on(node.url()), Seen::default());
        let running = start(&world, &seen).await;
        let mut connection = running.connection();
        node.stop().unwrap();
        connection.wait_for(|state| !state.up).await.unwrap();
        let token = CancellationToken::new();
        let bus = running.bus();
        let send = |text: &str| {
            let token = token.clone();
            bus.send_key_with("alpha.note", Payload::text(text.to_owned()), |o| o.cancellation(token))
        };
        let request = bus.request_key_with::<()>("alpha.note", Payload::text("cancelled request"), |o| {
            o.cancellation(token.clone())
        });
        let (sent, requested, ()) = tokio::join!(send("cancelled"), request, async {
            // Each has been polled by now, and waits for a channel.
            tokio::task::yield_now().await;
            token.cancel();
        });
        assert!(matches!(sent, Err(SendError::Cancelled)), "{sent:?}");
        assert!(matches!(requested, Err(RequestError::Cancelled)), "{requested:?}");
        let mut dropped = Box::pin(bus.send_key("alpha.note", Payload::text("dropped")));
        assert!(futures::poll!(&mut dropped).is_pending());
        drop(dropped);
        let (kept, ()) = tokio::join!(bus.send_key("alpha.note", Payload::text("kept")), async {
            node.restart().unwrap();
        });
        kept.unwrap();
        assert_eq!(handled_before_a_mark(&running, &seen).await, ["kept", "mark"]);
    });
}

#[test]
fn a_request_whose_caller_was_told_of_the_loss_is_not_sent_again_and_one_that_waits_goes_out_on_the_next_channel() {
    let mut node = node();
    run(async {
        let (world, seen) = (World::on(node.url()), Seen::default());
        let running = start(&world, &seen).await;
        let client = world.client().await;
        let bus = client.bus();
        // From now on the outlet listens to replies.
        bus.request_key::<()>("alpha.note", Payload::text("first")).await.unwrap();
        let mut connection = client.connection();
        node.freeze().unwrap();
        let on_channel = bus.request_key::<()>("alpha.note", Payload::text("on the channel"));
        tokio::pin!(on_channel);
        assert!(futures::poll!(&mut on_channel).is_pending());
        // More than the channel takes, so that the next request has to wait.
        let crowd = (0..1_500).map(|_| bus.send_key("alpha.note", Payload::text("crowd")));
        let mut crowd = Box::pin(futures::future::join_all(crowd));
        assert!(futures::poll!(&mut crowd).is_pending());
        let mut waits = Box::pin(bus.request_key::<()>("alpha.note", Payload::text("waits")));
        assert!(futures::poll!(&mut waits).is_pending());
        node.kill().unwrap();
        let error = on_channel.await.unwrap_err();
        assert!(matches!(error, RequestError::ConnectionLost { .. }), "{error:?}");
        connection.wait_for(|state| !state.up).await.unwrap();
        let (answered, sent, ()) = tokio::join!(waits, crowd, async { node.restart().unwrap() });
        answered.unwrap();
        assert!(sent.iter().all(Result::is_ok), "all others go out on the next channel too");
        eventually("ready again", || running.health().ready).await;
        let mut handled = handled_before_a_mark(&client, &seen).await;
        handled.retain(|text| text != "crowd");
        assert_eq!(handled, ["first", "waits", "mark"]);
    });
}
