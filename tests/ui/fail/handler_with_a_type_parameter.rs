use postrider::{Failure, distributed};

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create<T: ToString>(&self, _: T) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
