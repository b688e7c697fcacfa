use postrider::{Failure, distributed};

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(command = "invoice.create", discard = ["everything"])]
    async fn create(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
