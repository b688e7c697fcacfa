use postrider::{Failure, distributed};

struct Invoicing;

#[distributed(service = "invoice", guarantee = at_most_once, ordered)]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
