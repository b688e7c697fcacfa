use postrider::{Failure, distributed};

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(_: ()) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
