use postrider::distributed;

struct Auditing;

#[distributed(service = "audit")]
impl Auditing {
    #[distributed(command = "audit.report")]
    async fn report(&self, _: ()) {}

    #[distributed(query = "audit.report")]
    async fn reported(&self, _: ()) {}

    #[distributed(event = "audit.report")]
    async fn reporting(&self, _: ()) {}

    #[distributed(event = "audit.report", scope = "instance")]
    async fn reporting_everywhere(&self, _: ()) {}

    #[distributed(channel = "report")]
    async fn report_here(&self, _: ()) {}

    #[distributed(event = "payment.*")]
    async fn payment(&self, _: ()) {}

    #[distributed(event = "payment.*.late")]
    async fn late_payment(&self, _: ()) {}

    #[distributed(event = "shipping.#")]
    async fn shipping(&self, _: ()) {}
}

#[test]
fn one_key_may_be_a_command_a_query_an_event_and_a_channel() {
    assert_eq!(super::handlers::<Auditing>().len(), 8);
}
