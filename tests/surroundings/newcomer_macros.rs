//! What somebody meets who writes a first actor: what the errors of handlers, runtimes, settings and keys say.

use std::fmt;

use postrider::testing::{FaultTest, Faults, TestApp};
use postrider::{App, Failure, HandlerError, Payload, RequestError, distributed};
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

    async fn a_prefetch_of_ones_own_that_does_not_fit_is_refused(world: World) {
        let app = App::new("writing").actor(|| Writing).configure(|config| {
            config.actors.entry("writing".into()).or_default().prefetch = Some(65);
        });
        let refused = world.try_start(app).await.err().unwrap().to_string();
        assert!(refused.contains("set prefetch to 60 or less"), "{refused}");
    }
}
