use postrider::{Failure, distributed};

struct Invoicing;

#[distributed(service = "invoice", prefetch = 70_000)]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
