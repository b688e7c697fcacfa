//! What somebody meets who writes a first actor: what the errors of handlers, runtimes, settings and keys say.

use std::fmt;

use postrider::testing::{FaultTest, Faults, TestApp};
use postrider::{App, Context, Failure, HandlerError, Payload, RequestError, SendError, distributed};
use postrider_tests::on_both_brokers;

#[derive(HandlerError)]
enum Closed {
    #[permanent(code = "account-gone")]
    Gone,
    #[permanent]
    Broken,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the account 7 of Smith")
    }
}

struct Accounts;

#[distributed(service = "accounts")]
impl Accounts {
    #[distributed(command = "accounts.close")]
    async fn close(&self, gone: bool) -> Result<(), Closed> {
        Err(if gone { Closed::Gone } else { Closed::Broken })
    }

    #[distributed(command = "accounts.open")]
    async fn open(&self, _: ()) -> Result<(), Failure> {
        Err(Failure::permanent_code("no-branch", "Smith lives nowhere"))
    }

    #[distributed(query = "accounts.balance")]
    async fn balance(&self, _: ()) -> Result<u64, Failure> {
        Err(Failure::permanent_code("no-branch", "Smith lives nowhere"))
    }
}

fn remote_code(failed: RequestError) -> String {
    let RequestError::Remote(remote) = failed else { panic!("{failed}") };
    assert!(!remote.problem.text.contains("Smith"), "the text is for the log only: {}", remote.problem.text);
    remote.problem.code
}

/// What a panic says.
fn panic_text(test: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let panic = std::panic::catch_unwind(test).unwrap_err();
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
        .unwrap()
}

/// As `#[tokio::test]` does it.
fn as_tokio_test(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn a_test_app_in_another_runtime_names_the_attribute_to_write() {
    let app = || App::new("accounts").actor(|| Accounts);
    let told = panic_text(move || as_tokio_test(async move { drop(TestApp::start(app()).await) }));
    assert!(
        told.contains("write `#[postrider::test]` instead of `#[tokio::test]`") && told.lines().count() == 2,
        "{told}"
    );
    let told = panic_text(|| as_tokio_test(async { drop(FaultTest::start(Faults::seeded(1), []).await) }));
    assert!(told.contains("write `#[postrider::test]` instead of `#[tokio::test]`"), "{told}");
    let told = panic_text(|| as_tokio_test(async { postrider::testing::run(async {}) }));
    assert!(told.contains("write `#[postrider::test]` instead of `#[tokio::test]`"), "{told}");
}

#[tokio::test]
async fn an_app_starts_in_any_runtime() {
    let world = postrider_tests::world::World::in_process();
    let running = world.start(App::new("accounts").actor(|| Accounts)).await;
    let failed = running.bus().request_key::<u64>("accounts.open", Payload::json(&())).await.unwrap_err();
    assert_eq!(remote_code(failed), "no-branch");
    running.stop().await;
}

/// Counts its questions.
#[derive(Default)]
struct Lending {
    asked: u64,
}

#[distributed(service = "lending")]
impl Lending {
    #[distributed(query = "lending.open")]
    async fn open(&mut self, _: ()) -> Result<u64, Failure> {
        self.asked += 1;
        Ok(self.asked)
    }

    #[distributed(command = "lending.count")]
    async fn count(&self, _: (), cx: &Context) -> Result<(), Failure> {
        cx.send_key("lending.open", Payload::json(&()))?;
        Ok(())
    }
}

#[postrider::test]
async fn what_was_sent_in_a_test_has_no_question_about_an_owner() {
    let test = TestApp::start(App::new("lending").actor(Lending::default)).await;
    test.bus().send_key("lending.open", Payload::json(&())).await.unwrap_err();
    assert_eq!(test.log().keys(), ["lending.open"], "the command alone");
}

struct Writing;

/// The defaults, written down.
#[distributed(service = "writing", prefetch = 64, concurrency = 16, timeout = "30s")]
impl Writing {
    #[distributed(command = "writing.write")]
    async fn write(&mut self, text: String) -> Result<usize, Failure> {
        Ok(text.len())
    }
}

on_both_brokers! {
    async fn the_code_of_a_permanent_failure_reaches_the_caller_and_the_dead_letter(world: World) {
        let running = world.start(App::new("accounts").actor(|| Accounts)).await;
        let bus = running.bus();
        let mut codes = Vec::new();
        for (key, payload) in [
            ("accounts.close", Payload::json(&true)),
            ("accounts.close", Payload::json(&false)),
            ("accounts.open", Payload::json(&())),
            ("accounts.balance", Payload::json(&())),
        ] {
            codes.push(remote_code(bus.request_key::<u64>(key, payload).await.unwrap_err()));
        }
        assert_eq!(codes, ["account-gone", "failed", "no-branch", "no-branch"]);
        let dead = world.dead_letters("accounts", 3).await;
        let code = |key: &str| dead.iter().filter(|letter| letter.key.as_str() == key).filter_map(|letter| letter.headers.text("postrider-dead-code")).collect::<Vec<_>>();
        assert_eq!((code("accounts.close"), code("accounts.open")), (vec!["account-gone", "failed"], vec!["no-branch"]));
        running.stop().await;
    }

    async fn defaults_can_be_written_down_in_the_attribute_and_in_the_configuration(world: World) {
        let app = App::new("writing").actor(|| Writing).configure(|config| {
            config.actors.entry("writing".into()).or_default().prefetch = Some(64);
        });
        let running = world.start(app).await;
        let length: usize = running.bus().request_key("writing.write", Payload::text("seven")).await.unwrap();
        assert_eq!(length, 5);
        running.stop().await;
    }

    async fn a_query_that_is_sent_as_a_command_is_called_a_query(world: World) {
        let running = world.start(App::new("lending").actor(Lending::default)).await;
        let (other, bus) = (world.client().await, running.bus());
        for bus in [bus, other.bus()] {
            let told = bus.send_key("lending.open", Payload::json(&())).await.unwrap_err();
            assert!(matches!(told, SendError::WrongKind { .. }), "{told:?}");
            assert!(told.to_string().contains("\"lending.open\" is a query and was sent as a command") && told.to_string().contains("`request_key`"), "{told}");
            for told in [
                bus.send_to("lending", "lending.open", Payload::json(&())).await.unwrap_err(),
                bus.send_channel("lending", "lending.open", Payload::json(&())).await.unwrap_err(),
            ] {
                assert!(told.to_string().contains("\"lending:lending.open\" is a query"), "{told}");
            }
            let told = bus.send_key("lending.lost", Payload::json(&())).await.unwrap_err();
            assert!(told.to_string().contains("reached nobody") && told.to_string().contains("`publish`"), "{told}");
        }
        // In a handler it is no reason to try again.
        bus.send_key("lending.count", Payload::json(&())).await.unwrap();
        let dead = world.dead_letters("lending", 1).await;
        assert_eq!(dead[0].headers.text("postrider-dead-reason"), Some("permanent"));
        assert!(dead[0].headers.text("postrider-dead-error").unwrap().contains("is a query"));
        // Nobody was asked for an answer; those who are, still answer.
        assert_eq!(bus.request_key::<u64>("lending.open", Payload::json(&())).await.unwrap(), 1, "how often it was asked");
        running.stop().await;
        other.stop().await;
    }

    async fn a_prefetch_of_ones_own_that_does_not_fit_is_refused(world: World) {
        let app = App::new("writing").actor(|| Writing).configure(|config| {
            config.actors.entry("writing".into()).or_default().prefetch = Some(65);
        });
        let refused = world.try_start(app).await.err().unwrap().to_string();
        assert!(refused.contains("set prefetch to 60 or less"), "{refused}");
    }
}
