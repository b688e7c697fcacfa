//! Brokers that allow larger or smaller frames than usual, and addresses that a name resolver does not know.

use postrider::{App, Failure, Payload, Running, distributed};
use postrider_tests::node::Node;
use postrider_tests::raw::{RawClient, RawMessage, text_header};
use postrider_tests::world::{Seen, World, amqp_url, assert_same, eventually, run};

#[derive(Clone, Default)]
struct Sizes {
    seen: Seen<u64>,
}

impl Sizes {
    fn app(&self) -> App {
        let sizes = self.clone();
        App::new("sizes").actor(move || sizes.clone())
    }
}

#[distributed(service = "sizes", retry = "none")]
impl Sizes {
    #[distributed(command = "sizes.take")]
    async fn take(&self, number: u64) -> Result<u64, Failure> {
        self.seen.add(number);
        if number >= FAILS { Err(Failure::permanent("as was asked for")) } else { Ok(number) }
    }
}

/// From this number on the handler fails.
const FAILS: u64 = 1_000;

/// Messages with headers of so many bytes, numbered from `first`, and as many without.
async fn are_done_with(world: &World, sizes: &Sizes, running: &Running, first: u64, bytes: &[usize]) {
    let (dead, opened) = (running.stats().dead_lettered, running.stats().consumers_opened);
    sizes.seen.reach(sizes.seen.count()).await;
    let before = sizes.seen.count();
    let mut stranger = RawClient::connect(world.url().unwrap());
    let take = |number: u64| {
        RawMessage::to_exchange(&world.names.exchange(postrider::Kind::Command), "sizes.take", number.to_string())
            .property("content_type", b"application/json")
    };
    for (number, bytes) in (first..).zip(bytes) {
        let headers = [text_header(b"large", &vec![b'x'; *bytes]), text_header(b"small", b"here")].concat();
        stranger.publish(&take(number).headers(&headers));
        stranger.publish(&take(0));
    }
    stranger.confirmed();
    let handled = || sizes.seen.all().split_off(before);
    let done = || {
        let lost_properties = (running.stats().dead_lettered - dead) as usize;
        handled().iter().filter(|number| **number < FAILS).count() + lost_properties
    };
    eventually("every message is done with", || done() >= 2 * bytes.len()).await;
    assert_same(vec![0; bytes.len()], handled().into_iter().filter(|number| *number == 0));
    assert_eq!(running.stats().consumers_opened, opened, "no consumer was lost");
}

/// What this process has reserved, in bytes.
fn reserved() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn whatever_frames_a_broker_allows_messages_are_handled_and_memory_is_as_always() {
    run(async {
        let mut node = Node::start().unwrap();
        for (frame_max, headers) in [
            (0, &[100, 100_000, 120_000, 300_000, 3_000_000][..]),
            (16_777_216, &[100, 100_000, 120_000, 300_000, 3_000_000][..]),
            (8_192, &[100, 4_000, 7_000, 7_900][..]),
        ] {
            node.restart_with(&[], &format!("frame_max = {frame_max}")).unwrap();
            let (world, sizes, before) = (World::on(node.url()), Sizes::default(), reserved());
            let running = world.start(sizes.app()).await;
            assert!(
                reserved() - before.min(reserved()) < 1 << 30,
                "frame_max {frame_max}: {} bytes",
                reserved() - before
            );
            are_done_with(&world, &sizes, &running, 1, headers).await;
            are_done_with(&world, &sizes, &running, FAILS, headers).await;
            running.stop().await;
            let letters = world.dead_letters("sizes", headers.len()).await;
            let cut: Vec<&str> =
                letters.iter().filter_map(|letter| letter.headers.text("postrider-cut-headers")).collect();
            assert!(!cut.is_empty() && cut.iter().all(|names| names.contains("large")), "{cut:?}");
        }
    });
}

#[test]
fn an_address_with_a_smaller_frame_costs_nobody_a_connection() {
    run(async {
        let world = World::on(format!("{}/?frame_max=8192", amqp_url().trim_end_matches('/')));
        let sizes = Sizes::default();
        let running = world.start(sizes.app()).await;
        are_done_with(&world, &sizes, &running, 1, &[100, 50_000]).await;
        let epoch = running.connection().borrow().epoch;
        let large = running
            .bus()
            .send_key_with("sizes.take", Payload::json(&5_u64), |o| o.header("large", "x".repeat(9_000)))
            .await
            .unwrap_err()
            .to_string();
        assert!(large.contains("9") && large.contains("7936"), "{large}");
        assert_eq!(running.bus().request_key::<u64>("sizes.take", Payload::json(&6_u64)).await.unwrap(), 6);
        assert_eq!(running.connection().borrow().epoch, epoch);
        running.stop().await;
    });
}

#[test]
fn an_ipv6_address_is_connected_to_also_in_a_list() {
    run(async {
        let listener = tokio::net::TcpListener::bind("[::1]:0").await.expect("this machine has IPv6");
        let port = listener.local_addr().unwrap().port();
        let url = amqp_url();
        let target = url.rsplit('@').next().unwrap().split('/').next().unwrap().to_owned();
        let relay = tokio::spawn(async move {
            loop {
                let (mut from, _) = listener.accept().await.unwrap();
                let mut to = tokio::net::TcpStream::connect(&target).await.unwrap();
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
            }
        });
        for address in [format!("amqp://guest:guest@[::1]:{port}"), format!("amqp://guest:guest@[::1]:1,[::1]:{port}/")]
        {
            let (world, sizes) = (World::on(address), Sizes::default());
            let running = world.start(sizes.app()).await;
            assert_eq!(running.bus().request_key::<u64>("sizes.take", Payload::json(&6_u64)).await.unwrap(), 6);
            running.stop().await;
        }
        relay.abort();
    });
}
