use postrider::{Failure, distributed};

struct Invoicing;

#[distributed(service = "invoice", ordered, on_poison = "explode")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
