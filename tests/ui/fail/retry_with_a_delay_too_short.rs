use postrider::{Failure, distributed};

struct Invoicing;

#[distributed(service = "invoice", retry = "3 then 10ms")]
impl Invoicing {
    #[distributed(event = "invoice.created")]
    async fn create(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
