//! How long a message is sent again that is refused.

use std::sync::atomic::Ordering;

use tokio::time::timeout;

use super::*;
use crate::broker::Broker;
use crate::broker::any::command;
use crate::broker::double::Double;
use crate::bus::PublishSettings;
use crate::codec::Limits;

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_sent_again_for_five_minutes_and_then_an_error() {
    let double = Double::new();
    double.refuses.store(true, Ordering::Release);
    let (broker, counters) = (Arc::clone(&double) as Arc<dyn Broker>, Arc::new(Counters::default()));
    let settings = PublishSettings::default();
    let outlet = Outlet::open(&broker, Limits::default(), settings, Arc::clone(&counters)).await.unwrap();
    let (stopping, unsent) = (CancellationToken::new(), Unsent::default());
    let resend = Resend { actor: "Alpha", stopping, unsent: unsent.clone() };
    let began = Instant::now();
    let mut sending = Box::pin(outlet.publish_held(Box::new(command("it")), Duration::from_secs(30), Some(resend)));
    assert!(timeout(RESEND_FOR / 2, &mut sending).await.is_err(), "it is sent again");
    assert!(unsent.shown().is_some_and(|why| why.starts_with("1 message")), "people see it");
    let sent = sending.await;
    assert!(matches!(sent, Err(SendError::Rejected { .. })), "{sent:?}");
    let took = began.elapsed();
    assert!(took <= RESEND_FOR && took + LAST_PAUSE >= RESEND_FOR, "{took:?}");
    assert_eq!(unsent.shown(), None);
    let resent = counters.snapshot().resent;
    // 100 ms, doubled up to 5 s each.
    assert!((RESEND_FOR.as_secs() / LAST_PAUSE.as_secs()..100).contains(&resent), "{resent}");
}
