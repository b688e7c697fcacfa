use postrider::{Failure, distributed};

struct Order;

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: Order) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
