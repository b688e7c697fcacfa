use postrider::{Failure, distributed};

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(query = "invoice.issued", discard = ["rejected"])]
    async fn create(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
