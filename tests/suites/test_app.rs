//! `TestApp`: the way users test their services.

use std::time::Duration;

use postrider::testing::TestApp;
use postrider::{App, Context, Failure, distributed};

use crate::messages::{Note, Noted};

#[derive(Default)]
struct Alpha {
    noted: u64,
}

#[distributed(service = "alpha", timeout = "10s")]
impl Alpha {
    #[distributed(command = "alpha.note")]
    async fn note(&mut self, note: Note, cx: &Context) -> Result<String, Failure> {
        if note.text == "slow" {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
        }
        self.noted += 1;
        cx.publish(&Noted { text: note.text.clone() })?;
        Ok(note.text)
    }
}

#[derive(Default)]
struct Beta;

#[distributed(service = "beta")]
impl Beta {
    #[distributed(event = "alpha.noted")]
    async fn noted(&self, noted: Noted, cx: &Context) -> Result<(), Failure> {
        if noted.text.len() < 4 {
            cx.send(&Note { text: format!("{}!", noted.text) })?;
        }
        Ok(())
    }
}

#[postrider::test]
async fn a_cascade_of_two_services_is_waited_for() {
    let test =
        TestApp::start_all([App::new("alpha").actor(Alpha::default), App::new("beta").actor(Beta::default)]).await;
    test.send(&Note { text: "a".into() }).await.unwrap();
    test.settled().await;
    let texts: Vec<String> = test.published::<Noted>().into_iter().map(|noted| noted.text).collect();
    assert_eq!(texts, ["a", "a!", "a!!", "a!!!"]);
    assert_eq!(test.published::<Note>().len(), 4);
    test.stop().await;
}

#[postrider::test]
async fn a_paused_clock_makes_time_outs_and_retries_instant() {
    let test = TestApp::start(App::new("alpha").actor(Alpha::default)).await;
    test.pause_clock();
    test.send(&Note { text: "slow".into() }).await.unwrap();
    test.settled().await;
    assert_eq!(test.stats().timed_out, 3, "in place; what is put off is not waited for");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(test.stats().timed_out, 6);
    let dead = test.dead_letters();
    assert_eq!(dead[0].headers.text("postrider-dead-reason"), Some("timed_out"));
    assert_eq!(test.request(&Note { text: "next".into() }).await.unwrap(), "next");
}

#[postrider::test]
async fn a_handler_is_a_plain_function_in_a_unit_test() {
    let (mut alpha, cx) = (Alpha::default(), Context::for_test().answering("beta.ask", &7_u64));
    assert_eq!(alpha.note(Note::new("x"), &cx).await.unwrap(), "x");
    assert_eq!(cx.sent_of::<Noted>(), [Noted { text: "x".into() }]);
    assert_eq!(alpha.noted, 1);
    assert_eq!(cx.request_key::<u64>("beta.ask", postrider::Payload::msgpack(&())).await.unwrap(), 7);
}

#[postrider::test]
#[should_panic(expected = "the app under test does not start")]
async fn an_app_that_does_not_start_fails_the_test_with_its_problems() {
    TestApp::start(App::new("alpha").actor(Alpha::default).actor(Alpha::default)).await;
}
