use postrider::{Failure, distributed};

struct Invoicing;

#[distributed(service = "invoice", ordered, retry = "3 then 1s")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
