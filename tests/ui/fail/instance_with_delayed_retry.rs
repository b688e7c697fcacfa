use postrider::{Failure, distributed};

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(event = "invoice.created", scope = "instance", retry = "1 then 1s")]
    async fn create(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
