use std::time::Duration;

use postrider::distributed;
use postrider::handler::{Actor, FailureClass, Guarantee};

struct Invoicing;

#[distributed(
    service = "invoice",
    queue = "archive",
    domains = ["invoice", "billing"],
    guarantee = at_least_once,
    ordered,
    prefetch = 16,
    concurrency = 4,
    timeout = "2m",
    retry = "none",
    give_up = ["panic"],
    discard = ["rejected", "timed_out"],
)]
impl Invoicing {
    #[distributed(command = "billing.close")]
    async fn close(&self, _: ()) {}
}

struct Metering;

#[distributed(service = "metering", guarantee = "at_most_once", ordered = false, retry = "blocking")]
impl Metering {
    #[distributed(event = "#")]
    async fn count(&mut self, _: ()) {}
}

/// Compiles; whether there is a store to keep the promise is only known at the start.
struct Booking;

#[distributed(service = "booking", guarantee = effectively_once)]
impl Booking {
    #[distributed(command = "booking.book")]
    async fn book(&mut self, _: ()) {}
}

#[test]
fn the_words_of_a_block_are_its_attributes() {
    let attributes = Invoicing::attributes();
    assert_eq!((attributes.actor, attributes.service, attributes.queue), ("Invoicing", "invoice", Some("archive")));
    assert_eq!((attributes.domains, attributes.ordered), (&["invoice", "billing"][..], true));
    assert_eq!((attributes.prefetch, attributes.concurrency), (Some(16), Some(4)));
    let policy = attributes.policy;
    assert_eq!((policy.retry, policy.give_up), (Some("none"), Some(&[FailureClass::Panic][..])));
    assert_eq!(policy.discard, Some(&[FailureClass::Rejected, FailureClass::TimedOut][..]));
    assert_eq!(attributes.timeout, Some(Duration::from_secs(120)));
    assert_eq!(attributes.guarantee, Guarantee::AtLeastOnce);
}

#[test]
fn what_a_block_does_not_say_is_left_to_the_app() {
    let attributes = Metering::attributes();
    assert_eq!((attributes.queue, attributes.prefetch, attributes.concurrency), (None, None, None));
    assert_eq!(
        (attributes.domains, attributes.ordered, attributes.policy.retry),
        (&["metering"][..], false, Some("blocking"))
    );
    assert_eq!((attributes.policy.give_up, attributes.policy.discard), (None, None));
    assert_eq!((attributes.guarantee, attributes.timeout), (Guarantee::AtMostOnce, None));
}

#[test]
fn effectively_once_compiles() {
    assert_eq!(Booking::attributes().guarantee, Guarantee::EffectivelyOnce);
}
