use postrider::distributed;

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[cfg(any())]
    #[distributed(command = "invoice.create")]
    async fn never(&self, _: String) {}

    #[cfg(not(any()))]
    #[distributed(command = "invoice.create")]
    async fn always(&self, _: ()) {}

    #[distributed(event = "payment.*")]
    #[cfg(any())]
    async fn never_paid(&self, _: NotThere) {}

    #[distributed(event = "payment.#")]
    async fn paid(&self, _: ()) {}
}

#[test]
fn only_what_is_compiled_in_is_compared() {
    assert_eq!(super::handlers::<Invoicing>(), ["always: command invoice.create", "paid: event payment.#"]);
}
