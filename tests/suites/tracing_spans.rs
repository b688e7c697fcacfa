//! What the log says of a delivery, and what it never says.

use postrider::testing::TestApp;
use postrider::{App, Failure, Payload, Secret, distributed};
use postrider_tests::world::Lines;
use tracing_subscriber::fmt::format::FmtSpan;

#[derive(Default)]
struct Alpha;

#[distributed(service = "alpha")]
impl Alpha {
    #[distributed(command = "alpha.fail")]
    async fn fail(&self, _text: String) -> Result<(), Failure> {
        Err(Failure::permanent("the reason for the log"))
    }
}

#[test]
fn a_delivery_has_one_span_with_its_outcome_and_no_payload_or_secret() {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::CLOSE)
        .finish();
    // The app runs on this thread, so that the log of this thread has all of it.
    tracing::subscriber::with_default(log, || {
        postrider::testing::run(async {
            let test = TestApp::start(App::new("alpha").actor(|| Alpha)).await;
            let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
            let with =
                |o: postrider::Options| o.id("the-id").header("traceparent", trace).bearer(Secret::new("hunter2"));
            test.bus().send_key_with("alpha.fail", Payload::text("private payload"), with).await.unwrap();
            test.settled().await;
        });
    });
    let log = lines.text();
    let closed: Vec<&str> = log.lines().filter(|line| line.contains("handle{") && line.contains("close")).collect();
    assert_eq!(closed.len(), 1, "{log}");
    for part in [
        "service=\"alpha\"",
        "actor=\"Alpha\"",
        "handler=\"fail\"",
        "key=\"alpha.fail\"",
        "kind=\"command\"",
        "message_id=\"the-id\"",
        "attempt=1",
        "outcome=\"permanent\"",
        "0af7651916cd43dd8448eb211c80319c",
    ] {
        assert!(closed[0].contains(part), "{part} is missing in: {}", closed[0]);
    }
    assert!(log.lines().any(|line| line.contains("send{") && line.contains("close")), "one span per send: {log}");
    assert!(log.contains("the reason for the log"));
    assert!(!log.contains("private payload") && !log.contains("hunter2"), "{log}");
}
