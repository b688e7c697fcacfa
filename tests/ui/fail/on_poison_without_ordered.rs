use postrider::{Failure, distributed};

struct Invoicing;

#[distributed(service = "invoice", on_poison = "stop")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
