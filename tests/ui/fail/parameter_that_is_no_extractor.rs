use postrider::{Failure, distributed};

struct Tenant;

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: (), _: Tenant) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
