use postrider::{Failure, distributed};

trait Issuing {
    async fn create(&self, order: String) -> Result<(), Failure>;
}

struct Invoicing;

#[distributed(service = "invoice")]
impl Issuing for Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _order: String) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
