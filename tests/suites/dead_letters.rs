//! Messages that were given up are seen, replayed, edited and deleted, and never lost on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postrider::broker::{Queue, Topology};
use postrider::operate::{DeadFilter, DeadLetters, Replay};
use postrider::{App, Context, Failure, Payload, Running, distributed};
use postrider_tests::program::{operator, operator_command};
use postrider_tests::world::{Seen, World, assert_same, eventually, eventually_async, run};

/// Fails until it is mended.
#[derive(Clone, Default)]
struct Alpha {
    seen: Seen<String>,
    mended: Arc<AtomicBool>,
}

impl Alpha {
    fn app(&self) -> App {
        let alpha = self.clone();
        App::new("alpha").actor(move || alpha.clone()).configure(|config| config.retry.pause = Duration::from_millis(5))
    }

    fn mend(&self) {
        self.mended.store(true, Ordering::SeqCst);
    }

    fn act(&self, what: &str, cx: &Context) -> Result<(), Failure> {
        if what == "bad" || !self.mended.load(Ordering::SeqCst) {
            return Err(Failure::permanent(format!("cannot do {what}")));
        }
        self.seen.add(format!("{what} {} {}", cx.envelope().id, cx.attempt()));
        Ok(())
    }
}

#[distributed(service = "alpha", retry = "2")]
impl Alpha {
    #[distributed(command = "alpha.do")]
    async fn act_on_command(&self, what: String, cx: &Context) -> Result<(), Failure> {
        self.act(&what, cx)
    }

    #[distributed(event = "beta.*")]
    async fn act_on_event(&self, what: String, cx: &Context) -> Result<(), Failure> {
        self.act(&what, cx)
    }

    #[distributed(command = "alpha.refuse")]
    async fn refuse(&self, _: String) -> Result<(), Failure> {
        Err(Failure::rejected("no", "not today"))
    }

    #[distributed(command = "alpha.structured")]
    async fn structured(&self, numbers: Vec<u32>) {
        self.seen.add(format!("{numbers:?}"));
    }
}

/// Sends messages that fail, with their texts as ids, and waits until they are given up.
async fn failed(running: &Running, texts: &[&str]) {
    let before = running.stats().dead_lettered;
    for &text in texts {
        running.bus().send_key_with("alpha.do", Payload::text(text), |o| o.id(text)).await.unwrap();
    }
    eventually("they are given up", || running.stats().dead_lettered == before + texts.len() as u64).await;
}

async fn ids(letters: &DeadLetters, filter: &DeadFilter) -> Vec<String> {
    letters.list(filter).await.unwrap().iter().map(|letter| letter.id().to_owned()).collect()
}

fn filter(change: impl FnOnce(&mut DeadFilter)) -> DeadFilter {
    let mut filter = DeadFilter::all();
    change(&mut filter);
    filter
}

on_both_brokers! {
    /// T59
    async fn dead_letters_are_listed_and_filtered_without_being_used_up(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        failed(&running, &["one", "two"]).await;
        let bus = running.bus();
        bus.publish_key_with("beta.event", Payload::text("three"), |o| o.id("three").as_owner()).await.unwrap();
        bus.send_key_with("alpha.refuse", Payload::text("four"), |o| o.id("four").header("authorization", "Bearer hunter2")).await.unwrap();
        eventually("four are given up", || running.stats().dead_lettered == 4).await;
        let letters = DeadLetters::new(bus);
        assert_same(["one", "two", "three", "four"].map(str::to_owned), ids(&letters, &DeadFilter::all()).await);
        assert_eq!(ids(&letters, &filter(|f| f.key = Some("beta.#".into()))).await, ["three"]);
        assert_eq!(ids(&letters, &filter(|f| f.reason = Some("rejected".into()))).await, ["four"]);
        assert_eq!(ids(&letters, &filter(|f| f.error = Some("do two".into()))).await, ["two"]);
        assert_eq!(ids(&letters, &DeadFilter::id("one")).await, ["one"]);
        assert_eq!(ids(&letters, &DeadFilter::service("alpha")).await.len(), 4);
        assert_eq!(ids(&letters, &DeadFilter::service("nobody")).await.len(), 0);
        assert_eq!(ids(&letters, &filter(|f| f.older_than = Some(Duration::from_secs(60)))).await.len(), 0);
        assert_eq!(ids(&letters, &filter(|f| f.newer_than = Some(Duration::from_secs(60)))).await.len(), 4);
        // More often than the broker would give one message back by default.
        for _ in 0..130 {
            assert_eq!(letters.list(&DeadFilter::service("alpha")).await.unwrap().len(), 4);
        }
        let letter = letters.list(&DeadFilter::id("four")).await.unwrap().remove(0);
        assert!(letter.deliveries() < 120, "it was looked at {} times", letter.deliveries());
        let json = letter.to_json();
        assert_eq!((json["handler"].as_str(), json["payload"].as_str(), json["code"].as_str()), (Some("refuse"), Some("four"), Some("no")));
        assert!(!json.to_string().contains("hunter2"), "{json}");
    }

    /// T63
    async fn a_replay_goes_to_the_actor_that_gave_up_with_the_same_id_as_a_first_attempt(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        failed(&running, &["one", "two", "three"]).await;
        alpha.mend();
        let letters = DeadLetters::new(running.bus());
        assert_eq!(letters.replay(&DeadFilter::id("two"), &Replay::default()).await.unwrap().replayed, 1);
        assert_eq!(alpha.seen.reach(1).await, ["two two 1"]);
        assert_eq!(ids(&letters, &DeadFilter::all()).await, ["one", "three"], "the others keep their order");
        assert_eq!(letters.replay(&DeadFilter::all(), &Replay::default()).await.unwrap().replayed, 2);
        assert_eq!(alpha.seen.reach(3).await[1..], ["one one 1", "three three 1"]);
        assert!(ids(&letters, &DeadFilter::all()).await.is_empty());
    }

    /// T61: what fails again during a replay is left for the next one.
    async fn a_replay_of_letters_that_fail_again_goes_round_once(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        failed(&running, &["one", "two"]).await;
        let letters = DeadLetters::new(running.bus());
        let mut how = Replay::default();
        how.rate = Some(5.0);
        assert_eq!(letters.replay(&DeadFilter::all(), &how).await.unwrap().replayed, 2);
        eventually("both fail again", || running.stats().dead_lettered == 4).await;
        assert_eq!(ids(&letters, &DeadFilter::all()).await, ["one", "two"]);
    }

    async fn a_canary_that_fails_again_stops_the_replay_and_nothing_moves(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        failed(&running, &["one", "two", "three"]).await;
        let letters = DeadLetters::new(running.bus());
        let mut how = Replay::default();
        how.canary = true;
        let done = letters.replay(&DeadFilter::all(), &how).await.unwrap();
        assert_eq!(done.replayed, 0);
        assert!(done.canary_failed.unwrap().contains("one failed again"));
        assert_same(["one", "two", "three"].map(str::to_owned), ids(&letters, &DeadFilter::all()).await);
        let attempts: Vec<i64> = letters.list(&DeadFilter::all()).await.unwrap().iter().map(|letter| letter.attempts()).collect();
        assert_eq!(attempts, [1; 3], "the originals stayed");
        // A rejection leaves no dead letter when somebody waits for the answer.
        running.bus().send_key_with("alpha.refuse", Payload::text("four"), |o| o.id("four")).await.unwrap();
        eventually("it is given up", || running.stats().dead_lettered == 5).await;
        let done = letters.replay(&DeadFilter::id("four"), &how).await.unwrap();
        assert!(done.canary_failed.unwrap().contains("not today"));
        assert_eq!(ids(&letters, &DeadFilter::id("four")).await, ["four"]);
        alpha.mend();
        let done = letters.replay(&filter(|f| f.key = Some("alpha.do".into())), &how).await.unwrap();
        assert_eq!((done.replayed, done.canary_failed), (3, None));
        assert_eq!(alpha.seen.reach(3).await.len(), 3);
        assert_eq!(ids(&letters, &DeadFilter::all()).await, ["four"]);
    }

    /// T66
    async fn an_edited_letter_is_replayed_and_its_original_kept(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        running.bus().send_key_with("alpha.structured", Payload::msgpack("no list"), |o| o.id("it")).await.unwrap();
        eventually("it is given up", || running.stats().dead_lettered == 1).await;
        let letters = DeadLetters::new(running.bus());
        let letter = letters.list(&DeadFilter::id("it")).await.unwrap().remove(0);
        assert_eq!((letter.reason(), letter.payload_as_json()), ("undecodable", serde_json::json!("no list")));
        // [1, 2] in MessagePack.
        letters.replace("it", vec![0x92, 1, 2].into()).await.unwrap();
        assert_eq!(letters.list(&DeadFilter::id("it")).await.unwrap()[0].payload_as_json(), serde_json::json!([1, 2]));
        letters.replay(&DeadFilter::id("it"), &Replay::default()).await.unwrap();
        assert_eq!(alpha.seen.reach(1).await, ["[1, 2]"]);
        let kept = world.take(Queue::replicated(format!("{}.kept", letter.queue)), 1).await.remove(0);
        assert_eq!((kept.id.as_str(), kept.payload), ("it", letter.envelope.payload));
        let missing = letters.replace("nobody", vec![].into()).await.unwrap_err();
        assert!(missing.to_string().contains("\"nobody\""), "{missing}");
    }

    async fn an_edited_letter_is_found_at_once(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        running.bus().send_key_with("alpha.structured", Payload::msgpack("no list"), |o| o.id("it")).await.unwrap();
        eventually("it is given up", || running.stats().dead_lettered == 1).await;
        let letters = DeadLetters::new(running.bus());
        let mut address = "it".to_owned();
        for number in 0..30_u8 {
            // [number] in MessagePack.
            address = letters.replace(&address, vec![0x91, number].into()).await.unwrap();
        }
        let letter = letters.list(&DeadFilter::id(&address)).await.unwrap().remove(0);
        assert_eq!(letter.payload_as_json(), serde_json::json!([29]));
    }

    async fn letters_are_deleted_by_filter(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        failed(&running, &["one", "two", "three"]).await;
        let letters = DeadLetters::new(running.bus());
        assert_eq!(letters.delete(&filter(|f| f.error = Some("do t".into()))).await.unwrap(), 2);
        assert_eq!(ids(&letters, &DeadFilter::all()).await, ["one"]);
    }

    /// T62
    async fn a_message_does_not_expire_as_a_dead_letter(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        running.bus().send_key_with("alpha.do", Payload::text("brief"), |o| o.id("brief").expiration(Duration::from_millis(300))).await.unwrap();
        eventually("it is given up", || running.stats().dead_lettered == 1).await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        let letters = DeadLetters::new(running.bus());
        assert_eq!(ids(&letters, &DeadFilter::all()).await, ["brief"]);
        alpha.mend();
        letters.replay(&DeadFilter::all(), &Replay::default()).await.unwrap();
        assert_eq!(alpha.seen.reach(1).await, ["brief brief 1"]);
    }

    async fn a_dead_letter_queue_that_somebody_removed_is_declared_again(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let dead = Queue::replicated(world.names.dead_queue(&world.names.queue("alpha", None)));
        let broker = world.broker().await;
        broker.remove(&Topology::of_queues([dead.clone()])).await.unwrap();
        broker.close().await;
        failed(&running, &["it"]).await;
        eventually_async("it is there", || async { world.ready(&dead.name).await == Some(1) }).await;
    }

    /// What the broker itself puts there says less, but enough for a replay.
    async fn a_letter_that_the_broker_made_is_replayed_as_what_it_was(world: World) {
        let alpha = Alpha::default();
        alpha.mend();
        world.start(alpha.app()).await.stop().await;
        let client = world.client().await;
        client.bus().send_key_with("alpha.do", Payload::text("late"), |o| o.id("late").expiration(Duration::from_millis(100))).await.unwrap();
        let dead = world.names.dead_queue(&world.names.queue("alpha", None));
        eventually_async("it expires", || async { world.ready(&dead).await == Some(1) }).await;
        let letters = DeadLetters::new(client.bus());
        let letter = letters.list(&DeadFilter::id("late")).await.unwrap().remove(0);
        assert_eq!((letter.kind(), letter.key(), letter.reason()), ("command", "alpha.do", "expired"));
        let running = world.start(alpha.app()).await;
        letters.replay(&DeadFilter::all(), &Replay::default()).await.unwrap();
        assert_eq!(alpha.seen.reach(1).await, ["late late 1"]);
        running.stop().await;
    }

    /// T65
    async fn two_replays_at_once_lose_nothing(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let texts: Vec<String> = (0..40).map(|number| number.to_string()).collect();
        failed(&running, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
        alpha.mend();
        let (one, two) = (DeadLetters::new(running.bus()), DeadLetters::new(running.bus()));
        let (filter, how) = (DeadFilter::all(), Replay::default());
        let (first, second) = tokio::join!(one.replay(&filter, &how), two.replay(&filter, &how));
        let left = one.replay(&filter, &how).await.unwrap().replayed;
        assert_eq!(first.unwrap().replayed + second.unwrap().replayed + left, 40);
        let seen = alpha.seen.reach(40).await;
        assert_same(texts, seen.iter().map(|seen| seen.split(' ').next().unwrap_or_default().to_owned()));
    }
}

/// Runs `postrider dead …`; whether it was content and what it printed.
async fn tool(world: &World, arguments: &[&str]) -> (bool, String, String) {
    operator(world, &[&["dead"], arguments].concat()).await
}

#[test]
fn the_operator_sees_edits_replays_exports_and_deletes_from_the_shell() {
    run(async {
        let (world, alpha) = (World::rabbitmq(), Alpha::default());
        let running = world.start(alpha.app()).await;
        failed(&running, &["one", "two", "three"]).await;
        running.bus().send_key_with("alpha.structured", Payload::msgpack("no list"), |o| o.id("four")).await.unwrap();
        eventually("four are given up", || running.stats().dead_lettered == 4).await;
        let (_, table, _) = tool(&world, &["list"]).await;
        assert!(table.contains("cannot do two") && table.contains("undecodable"), "{table}");
        let (_, counts, _) = tool(&world, &["list", "--count", "--key", "alpha.do"]).await;
        assert_eq!(counts.split_whitespace().next(), Some("3"), "{counts}");
        let (_, json, _) = tool(&world, &["list", "--json", "--error", "two"]).await;
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["id"], "two");
        let (_, shown, _) = tool(&world, &["show", "four"]).await;
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap()["payload"], "no list");
        let (fine, edited, problem) = tool(&world, &["edit", "four", "--json", "[4, 2]", "--replay"]).await;
        assert!(fine && edited.contains("replayed 1"), "{edited}{problem}");
        assert_eq!(alpha.seen.reach(1).await, ["[4, 2]"]);
        let (fine, _, problem) = tool(&world, &["replay", "--all", "--canary"]).await;
        assert!(!fine && problem.contains("failed again and stays"), "{problem}");
        alpha.mend();
        let (fine, replayed, problem) =
            tool(&world, &["replay", "--key", "alpha.do", "--error", "do t", "--rate", "50"]).await;
        assert!(fine && replayed.contains("replayed 2"), "{replayed}{problem}");
        alpha.seen.reach(3).await;
        let (_, exported, _) = tool(&world, &["export"]).await;
        assert_eq!(exported.lines().count(), 1);
        let (fine, deleted, _) = tool(&world, &["delete", "one"]).await;
        assert!(fine && deleted.contains("deleted 1"), "{deleted}");
        for (arguments, expected) in [
            (&["replay"][..], "--all"),
            (&["delete"], "--all"),
            (&["show", "nobody"], "\"nobody\""),
            (&["replay", "nobody"], "\"nobody\""),
            (&["list", "--key", "A b"], "--key"),
            (&["replay", "--all", "--rate", "0"], "--rate"),
        ] {
            let (fine, _, problem) = tool(&world, arguments).await;
            assert!(!fine && problem.contains(expected), "{arguments:?}: {problem}");
        }
    });
}

/// T64, with a real SIGKILL in the middle.
#[test]
fn a_replay_that_is_killed_leaves_every_letter_somewhere() {
    run(async {
        let (world, alpha) = (World::rabbitmq(), Alpha::default());
        let running = world.start(alpha.app()).await;
        let texts: Vec<String> = (0..150).map(|number| format!("letter-{number}")).collect();
        failed(&running, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
        alpha.mend();
        for _ in 0..3 {
            let before = alpha.seen.count();
            let mut replaying =
                operator_command(&world, &["dead", "replay", "--all", "--rate", "200"]).spawn().unwrap();
            eventually("some are replayed", || alpha.seen.count() > before + 10).await;
            replaying.kill().unwrap();
            replaying.wait().unwrap();
        }
        let handled = alpha.seen.count();
        assert!((30..150).contains(&handled), "the kills came at the wrong time: {handled} were handled");
        let letters = DeadLetters::new(running.bus());
        letters.replay(&DeadFilter::all(), &Replay::default()).await.unwrap();
        eventually("all are handled", || {
            let seen = alpha.seen.all();
            texts.iter().all(|text| seen.iter().any(|seen| seen.split(' ').next() == Some(text)))
        })
        .await;
        let handled = alpha.seen.count();
        assert!(handled <= 150 + 3, "{} were handled twice", handled - 150);
    });
}

/// T60: a dead-letter queue that takes no more.
#[test]
fn a_message_whose_dead_letter_is_refused_stays_in_its_queue() {
    run(async {
        let node = postrider_tests::node::Node::start().unwrap();
        let (world, alpha) = (World::on(node.url()), Alpha::default());
        let running = world.start(alpha.app()).await;
        let policy = "{\"max-length\":1,\"overflow\":\"reject-publish\"}";
        node.ctl(&["set_policy", "full", ".*dead$", policy, "--apply-to", "queues"]).unwrap();
        for number in 0..10 {
            running.bus().send_key("alpha.do", Payload::text(number.to_string())).await.unwrap();
        }
        eventually("some are held", || running.stats().in_flight >= 6).await;
        let written = running.stats().dead_lettered;
        assert!(written <= 4, "{written} dead letters were taken by a full queue");
        // Whoever makes room gets the rest.
        let letters = DeadLetters::new(running.bus());
        let mut found = std::collections::BTreeSet::new();
        let start = std::time::Instant::now();
        while found.len() < 10 {
            assert!(start.elapsed() < Duration::from_secs(90), "only {found:?} were kept");
            let listed = letters.list(&DeadFilter::all()).await.unwrap();
            // Only those that were seen: more may have come meanwhile.
            let seen: Vec<String> = listed.iter().map(|letter| letter.id().to_owned()).collect();
            found.extend(listed.into_iter().map(|letter| letter.envelope.payload));
            if !seen.is_empty() {
                letters.delete(&filter(|filter| filter.ids = seen)).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        running.stop().await;
    });
}
