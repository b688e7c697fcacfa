use postrider::{Failure, distributed};

struct Invoicing;

#[distributed(service = "invoice", concurrency = "8")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
