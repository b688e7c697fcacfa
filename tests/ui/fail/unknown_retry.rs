use postrider::{Failure, distributed};

struct Invoicing;

#[distributed(service = "invoice", retry = "forever")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
