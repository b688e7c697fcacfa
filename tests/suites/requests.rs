//! Requests and their replies.

use std::time::Duration;

use postrider::testing::ForeignMessage;
use postrider::{App, CancellationToken, Context, Failure, Options, Payload, RequestError, SendError, distributed};
use postrider_tests::world::{Seen, eventually};
use tokio::sync::Semaphore;

use crate::messages::{Count, Echo, Note};

/// Handlers wait for this where a test says so.
#[derive(Clone)]
struct Gate(std::sync::Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self(std::sync::Arc::new(Semaphore::new(0)))
    }
}

impl Gate {
    async fn pass(&self) {
        self.0.acquire().await.unwrap().forget();
    }

    fn open(&self, times: usize) {
        self.0.add_permits(times);
    }
}

#[derive(Clone, Default)]
struct Alpha {
    seen: Seen<String>,
    gate: Gate,
}

impl Alpha {
    fn app(&self) -> App {
        let alpha = self.clone();
        App::new("alpha").actor(move || alpha.clone())
    }
}

// With this time-out 64 exclusive messages may be held.
#[distributed(service = "alpha", timeout = "20s")]
impl Alpha {
    #[distributed(command = "alpha.note")]
    async fn note(&self, note: Note) -> Result<String, Failure> {
        self.seen.add(note.text.clone());
        match note.text.as_str() {
            "rejected" => Err(Failure::rejected("no", "not today").with_detail("day", "Sunday")),
            "transient" => Err(Failure::transient("the database is away")),
            "permanent" => Err(Failure::permanent("the disk is gone")),
            _ => Ok(note.text),
        }
    }

    #[distributed(query = "alpha.echo")]
    async fn echo(&self, echo: Echo) -> Result<String, Failure> {
        match echo.text.as_str() {
            "slow" => self.gate.pass().await,
            "failing" => return Err(Failure::transient("the cache is cold")),
            _ => {}
        }
        self.seen.add(echo.text.clone());
        Ok(echo.text)
    }

    #[distributed(query = "alpha.count")]
    async fn count(&mut self, _: Count) -> Result<u64, Failure> {
        self.gate.pass().await;
        Ok(self.seen.count() as u64)
    }

    #[distributed(command = "alpha.work")]
    async fn work(&mut self, text: String) {
        self.gate.pass().await;
        self.seen.add(text);
    }

    #[distributed(query = "alpha.itself")]
    async fn itself(&self, _: (), cx: &Context) -> Result<String, Failure> {
        Ok(cx.request(&Echo { text: "x".into() }).await?)
    }

    #[distributed(query = "alpha.circle")]
    async fn circle(&mut self, _: (), cx: &Context) -> Result<String, Failure> {
        Ok(cx.request_key::<String>("beta.back", Payload::msgpack(&())).await?)
    }
}

#[derive(Default)]
struct Beta;

#[distributed(service = "beta")]
impl Beta {
    #[distributed(query = "beta.back")]
    async fn back(&self, _: (), cx: &Context) -> Result<String, Failure> {
        let error = cx.request(&Echo { text: "x".into() }).await.expect_err("alpha waits for us");
        Ok(format!("{}: {error}", matches!(error, RequestError::WouldWaitForItself { .. })))
    }

    #[distributed(query = "beta.through")]
    async fn through(&self, text: String, cx: &Context) -> Result<String, Failure> {
        Ok(cx.request(&Echo { text }).await?)
    }
}

/// Its handlers ask this very actor: each holds up its lane while it waits.
#[derive(Default)]
struct Circles;

#[distributed(service = "circles", concurrency = 1)]
impl Circles {
    #[distributed(command = "circles.command")]
    async fn command(&mut self, key: String, cx: &Context) -> Result<String, Failure> {
        told(cx, &key).await
    }

    #[distributed(query = "circles.query")]
    async fn query(&mut self, key: String, cx: &Context) -> Result<String, Failure> {
        told(cx, &key).await
    }

    #[distributed(command = "circles.shared-command")]
    async fn shared_command(&self, key: String, cx: &Context) -> Result<String, Failure> {
        told(cx, &key).await
    }

    #[distributed(query = "circles.shared-query")]
    async fn shared_query(&self, key: String, cx: &Context) -> Result<String, Failure> {
        told(cx, &key).await
    }

    #[distributed(command = "circles.write")]
    async fn write(&mut self, _: String) {}
}

/// Whether it has the state to itself.
fn is_exclusive(key: &str) -> bool {
    !key.contains("shared")
}

/// One message at a time, whatever its handlers take.
#[derive(Default)]
struct Strict;

#[distributed(service = "strict", ordered, prefetch = 1)]
impl Strict {
    #[distributed(command = "strict.command")]
    async fn command(&self, key: String, cx: &Context) -> Result<String, Failure> {
        told(cx, &key).await
    }

    #[distributed(query = "strict.query")]
    async fn query(&self, key: String, cx: &Context) -> Result<String, Failure> {
        told(cx, &key).await
    }
}

/// Asks on, over another service if the key says so, and tells what came of it.
async fn told(cx: &Context, key: &str) -> Result<String, Failure> {
    if key == "end" {
        return Ok("answered".to_owned());
    }
    if let Some(key) = key.strip_prefix("detour to ") {
        return Ok(cx.request_key::<String>("detour.over", Payload::msgpack(key)).await?);
    }
    Ok(match cx.request_key::<String>(key, Payload::msgpack("end")).await {
        Err(RequestError::WouldWaitForItself { .. }) => "told".to_owned(),
        other => format!("{other:?}"),
    })
}

/// Passes the question on, and the answer back.
#[derive(Default)]
struct Detour;

#[distributed(service = "detour")]
impl Detour {
    #[distributed(query = "detour.over")]
    async fn over(&self, key: String, cx: &Context) -> Result<String, Failure> {
        told(cx, &key).await
    }
}

fn echo(text: &str) -> Echo {
    Echo { text: text.into() }
}

on_both_brokers! {
    /// T110
    async fn a_request_times_out_and_its_late_reply_is_counted(world: World) {
        let alpha = Alpha::default();
        let _running = world.start(alpha.app()).await;
        let client = world.client().await;
        // A command is handled even when its caller has given up.
        let bus = client.bus().clone();
        let options = |o: Options| o.timeout(Duration::from_millis(200));
        let error = bus.request_key_with::<()>("alpha.work", Payload::msgpack("late"), options).await.unwrap_err();
        assert!(matches!(error, RequestError::TimedOut { .. }), "{error:?}");
        assert!(error.to_string().contains("alpha.work"), "{error}");
        alpha.gate.open(1);
        eventually("the late reply is counted", || client.stats().late_replies == 1).await;
        assert_eq!(alpha.seen.all(), ["late"]);
    }

    async fn a_time_out_of_zero_is_refused(world: World) {
        let client = world.client().await;
        let error = client.bus().request_with(&Count, |o| o.timeout(Duration::ZERO)).await.unwrap_err();
        assert!(matches!(error, RequestError::Send(SendError::Option { option: "timeout", .. })), "{error:?}");
    }

    /// T111
    async fn a_failing_handler_answers_with_a_typed_error(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let client = world.client().await;
        let RequestError::Remote(error) = client.bus().request(&Note::new("rejected")).await.unwrap_err() else { panic!("no remote error") };
        assert_eq!((error.service.as_str(), error.problem.code.as_str(), error.problem.text.as_str()), ("alpha", "no", "not today"));
        assert_eq!(error.problem.details["day"], "Sunday");
        let RequestError::Remote(error) = client.bus().request(&echo("failing")).await.unwrap_err() else { panic!("no remote error") };
        assert_eq!(error.problem.code, "failed");
        assert!(!error.to_string().contains("cache"), "what is for the log stays in the log: {error}");
        let RequestError::Remote(error) = client.bus().request(&Note::new("transient")).await.unwrap_err() else { panic!("no remote error") };
        assert_eq!(error.problem.code, "failed");
        assert_eq!(alpha.seen.all(), ["rejected", "transient", "transient", "transient"], "queries are not repeated, commands three times");
        assert_eq!((running.stats().rejected, running.stats().failed_transient), (1, 4));
    }

    /// T112
    async fn a_thousand_concurrent_requests_never_swap_replies(world: World) {
        let alpha = Alpha::default();
        let _running = world.start(alpha.app()).await;
        let client = world.client().await;
        let requests = (0..1_000).map(|number| {
            let bus = client.bus().clone();
            async move { (number, bus.request(&echo(&number.to_string())).await.unwrap()) }
        });
        for (number, reply) in futures::future::join_all(requests).await {
            assert_eq!(reply, number.to_string());
        }
    }

    /// T114 and T163
    async fn a_query_whose_caller_has_given_up_is_not_run(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let client = world.client().await;
        let blocked = tokio::spawn({ let bus = client.bus().clone(); async move { bus.request(&Count).await } });
        eventually("the first query runs", || running.stats().in_flight == 1).await;
        let error = client.bus().request_with(&echo("expired"), |o| o.timeout(Duration::from_secs(1))).await.unwrap_err();
        assert!(matches!(error, RequestError::TimedOut { .. }), "{error:?}");
        // The service counts from the receipt, which was later than the sending: time itself is waited for.
        tokio::time::sleep(Duration::from_millis(500)).await;
        alpha.gate.open(1);
        blocked.await.unwrap().unwrap();
        eventually("it is dropped and counted", || running.stats().expired == 1).await;
        assert_eq!(alpha.seen.count(), 0);
    }

    /// T171
    async fn queries_wait_for_at_most_the_running_command(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let client = world.client().await;
        for number in 0..256 {
            client.bus().send_key("alpha.work", Payload::msgpack(&number.to_string())).await.unwrap();
        }
        eventually("the commands wait", || running.stats().in_flight == 64).await;
        let queries = (0..64).map(|number| {
            let bus = client.bus().clone();
            tokio::spawn(async move { bus.request(&echo(&format!("query {number}"))).await })
        });
        let queries: Vec<_> = queries.collect();
        eventually("the queries have arrived", || running.stats().in_flight == 64 + 64).await;
        // One command ends; then all queries are answered although 255 commands wait.
        alpha.gate.open(1);
        for query in queries {
            query.await.unwrap().unwrap();
        }
        let commands = alpha.seen.all().iter().filter(|text| !text.starts_with("query")).count();
        assert!(commands <= 2, "{commands} commands ran before the queries");
        alpha.gate.open(255);
        eventually("all commands are handled", || running.stats().handled == 256 + 64).await;
    }

    /// T172
    async fn a_circle_of_requests_is_refused_at_once(world: World) {
        let alpha = Alpha::default();
        let _alpha = world.start(alpha.app()).await;
        let _beta = world.start(App::new("beta").actor(Beta::default)).await;
        let client = world.client().await;
        let itself: String = client.bus().request_key("alpha.itself", Payload::msgpack(&())).await.unwrap();
        assert_eq!(itself, "x", "it is answered beside the handler that asks");
        let circle: String = client.bus().request_key("alpha.circle", Payload::msgpack(&())).await.unwrap();
        assert!(circle.starts_with("true") && circle.contains("alpha.Alpha@") && circle.contains("beta.Beta@"), "{circle}");
        let through: String = client.bus().request_key("beta.through", Payload::msgpack("y")).await.unwrap();
        assert_eq!(through, "y", "a line is no circle");
    }

    /// Among messages of others that wait as well, and with one place in each lane.
    async fn whoever_waits_for_itself_is_told_at_once_and_whoever_can_be_answered_is_answered(world: World) {
        let running = world.start(App::new("circles").actor(Circles::default)).await;
        let _detour = world.start(App::new("detour").actor(Detour::default)).await;
        let client = world.client().await;
        let keys = ["circles.command", "circles.query", "circles.shared-command", "circles.shared-query"];
        for asked in keys {
            for next in keys {
                let stuck = is_exclusive(asked) || is_exclusive(next);
                for way in ["", "detour to "] {
                    let question = Payload::msgpack(&format!("{way}{next}"));
                    let options = |o: Options| o.timeout(Duration::from_secs(10));
                    let answer: Result<String, _> = client.bus().request_key_with(asked, question, options).await;
                    let told = answer.unwrap_or_else(|error| panic!("{asked} to {way}{next}: {error}"));
                    let expected = if stuck { "told" } else { "Ok(\"answered\")" };
                    assert_eq!(told, expected, "{asked} to {way}{next}");
                }
            }
        }
        eventually("nothing is left", || running.stats().in_flight == 0).await;
    }

    /// A prefetch of one shows the lane nothing of what is behind the message that it handles.
    async fn whoever_waits_for_itself_is_told_at_once_although_its_lane_holds_no_more(world: World) {
        let narrow = || App::new("circles").actor(Circles::default).configure(|config| config.prefetch = 1);
        let running = world.start(narrow()).await;
        let _strict = world.start(App::new("strict").actor(Strict::default)).await;
        let client = world.client().await;
        let ask = async |asked: &str, next: &str| -> String {
            let options = |o: Options| o.timeout(Duration::from_secs(10));
            client.bus().request_key_with(asked, Payload::msgpack(next), options).await.unwrap_or_else(|error| panic!("{asked} to {next}: {error}"))
        };
        for (asked, next) in [
            ("circles.command", "circles.command"), ("circles.command", "circles.shared-command"), ("circles.shared-command", "circles.shared-command"),
            ("circles.shared-command", "circles.command"), ("circles.query", "circles.query"), ("circles.shared-query", "circles.shared-query"),
            ("strict.command", "strict.command"),
        ] {
            assert_eq!(ask(asked, next).await, "told", "{asked} to {next}");
        }
        for (asked, next) in [
            ("circles.shared-command", "circles.shared-query"), ("circles.shared-query", "circles.shared-command"),
            ("strict.command", "strict.query"), ("strict.query", "strict.command"),
        ] {
            assert_eq!(ask(asked, next).await, "Ok(\"answered\")", "{asked} to {next}");
        }
        // With another instance beside it there is somebody who answers.
        let _second = world.start(narrow()).await;
        for (asked, next) in [("circles.command", "circles.command"), ("circles.query", "circles.query"), ("circles.shared-command", "circles.command")] {
            assert_eq!(ask(asked, next).await, "Ok(\"answered\")", "{asked} to {next}");
        }
        eventually("nothing is left", || running.stats().in_flight == 0).await;
    }

    /// A writer that waits for the state comes after the answer, not before it.
    async fn an_answer_that_shares_the_state_does_not_wait_for_a_writer_behind_the_one_who_asks(world: World) {
        let running = world.start(App::new("circles").actor(Circles::default)).await;
        let _detour = world.start(App::new("detour").actor(Detour::default)).await;
        let client = world.client().await;
        let questions = (0..20).map(|number| {
            let bus = client.bus().clone();
            async move {
                bus.send_key("circles.write", Payload::msgpack("x")).await.unwrap();
                let next = if number % 2 == 0 { "circles.shared-command" } else { "detour to circles.shared-query" };
                let options = |o: Options| o.timeout(Duration::from_secs(20));
                bus.request_key_with::<String>("circles.shared-query", Payload::msgpack(next), options).await
            }
        });
        for answer in futures::future::join_all(questions).await {
            assert_eq!(answer.unwrap(), "Ok(\"answered\")");
        }
        eventually("nothing is left", || running.stats().in_flight == 0).await;
    }

    /// Beside replies that keep coming, by which confirms are looked at.
    async fn a_request_that_nobody_takes_is_returned_while_others_are_answered(world: World) {
        let alpha = Alpha::default();
        let _running = world.start(alpha.app()).await;
        let client = world.client().await;
        let asking = async {
            for number in 0..300 {
                let text = number.to_string();
                assert_eq!(client.bus().request(&echo(&text)).await.unwrap(), text);
            }
        };
        let nobody = async {
            for _ in 0..50 {
                let asked = client.bus().request_key::<String>("alpha.nobody", Payload::msgpack(&())).await;
                let error = asked.expect_err("nobody answers that");
                assert!(matches!(error, RequestError::Send(SendError::Unroutable { .. })), "{error}");
            }
        };
        let sending = async {
            for _ in 0..50 {
                client.bus().send(&Note::new("beside")).await.unwrap();
            }
        };
        tokio::join!(asking, nobody, sending);
    }

    async fn a_cancelled_request_stops_waiting(world: World) {
        let alpha = Alpha::default();
        let _running = world.start(alpha.app()).await;
        let client = world.client().await;
        let token = CancellationToken::new();
        let slow = echo("slow");
        let cancelled = client.bus().request_with(&slow, |o| o.cancellation(token.clone()));
        let (result, ()) = tokio::join!(cancelled, async { token.cancel() });
        assert!(matches!(result, Err(RequestError::Cancelled)), "{result:?}");
        let error = client.bus().send_with(&Note::new("never"), |o| o.cancellation(token)).await.unwrap_err();
        assert_eq!(error, SendError::Cancelled);
        alpha.gate.open(1);
        client.bus().request(&Note::new("after")).await.unwrap();
        assert!(!alpha.seen.all().contains(&"never".to_owned()));
    }

    /// A foreign client sets routing key, content type and its own reply queue; no header of ours.
    async fn a_foreign_client_gets_its_reply(world: World) {
        let alpha = Alpha::default();
        let _running = world.start(alpha.app()).await;
        let queue = postrider::broker::Queue::on_one_node(format!("{}.foreign", world.names.namespace()));
        let broker = world.broker().await;
        let declared = postrider::broker::Topology::of_queues([queue.clone()]);
        broker.declare(&declared).await.unwrap();
        let properties = ForeignMessage {
            content_type: Some("application/json".into()),
            reply_to: Some(queue.name.as_str().into()),
            message_id: Some("my-id".into()),
            ..ForeignMessage::default()
        };
        let exchange = world.names.exchange(postrider::Kind::Command);
        world.publish_foreign(&exchange, "alpha.note", properties.clone(), "{\"text\":\"hello\"}").await;
        let with_correlation = ForeignMessage { correlation_id: Some("mine".into()), ..properties };
        world.publish_foreign(&exchange, "alpha.note", with_correlation, "{\"text\":\"rejected\"}").await;
        let replies = world.take(queue, 2).await;
        let find = |id: &str| replies.iter().find(|reply| reply.correlation_id.as_ref().is_some_and(|c| c.as_str() == id)).unwrap();
        assert_eq!(&find("my-id").payload[..], b"\"hello\"");
        assert_eq!(find("mine").status, Some(postrider::message::Status::Error));
        assert!(String::from_utf8_lossy(&find("mine").payload).contains("not today"));
    }

    async fn dispatch_waits_when_the_envelope_asks_for_a_reply(world: World) {
        let alpha = Alpha::default();
        let _running = world.start(alpha.app()).await;
        let client = world.client().await;
        let key = postrider::message::Key::new("alpha.note").unwrap();
        let payload = "{\"text\":\"by hand\"}";
        let mut envelope = postrider::Envelope::new(postrider::Kind::Command, key, postrider::MediaType::JSON, payload.into());
        assert!(client.bus().dispatch(envelope.clone()).await.unwrap().is_none());
        envelope.reply_to = Some(postrider::message::ReplyTo::Caller);
        envelope.id = postrider::MessageId::new();
        let reply = client.bus().dispatch(envelope.clone()).await.unwrap().unwrap();
        assert_eq!(&reply.payload[..], b"\"by hand\"");
        envelope.kind = postrider::Kind::Event;
        let error = client.bus().dispatch(envelope).await.unwrap_err();
        assert!(matches!(error, RequestError::Send(SendError::WrongKind { .. })), "{error:?}");
    }
}
