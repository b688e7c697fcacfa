use postrider::{Failure, distributed};

struct Invoicing;

#[distributed(service = "invoice", give_up = ["rejected"])]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
