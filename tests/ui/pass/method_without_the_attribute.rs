use postrider::{Failure, distributed};

#[derive(Default)]
struct Invoicing {
    issued: u64,
}

#[distributed(service = "invoice")]
impl Invoicing {
    const FIRST: u64 = 1;

    fn next(&mut self) -> u64 {
        self.issued += Self::FIRST;
        self.issued
    }

    /// Could be a handler, but does not say so.
    async fn draft(&mut self, _: ()) -> Result<u64, Failure> {
        Ok(self.next())
    }

    #[distributed(command = "invoice.create")]
    async fn create(&mut self, _: ()) -> Result<u64, Failure> {
        self.draft(()).await
    }
}

#[test]
fn a_method_without_the_attribute_is_not_reachable() {
    assert_eq!(super::handlers::<Invoicing>(), ["create: command invoice.create"]);
}
