use postrider::{Failure, distributed};

struct Invoicing;

#[cfg_attr(all(), distributed(service = "invoice"))]
#[allow(clippy::unnecessary_wraps, reason = "attributes of the block stay")]
impl Invoicing {
    /// Documentation stays where it is.
    #[cfg_attr(all(), doc = "So does what only looks like `distributed`.")]
    #[distributed(command = "invoice.create")]
    #[must_use = "attributes of the method stay"]
    async fn create(&self, #[allow(unused_variables)] order: String) -> Result<(), Failure> {
        Ok(())
    }
}

#[test]
fn other_attributes_are_left_alone() {
    assert_eq!(super::handlers::<Invoicing>(), ["create: command invoice.create"]);
}
