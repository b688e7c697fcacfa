use postrider::{Failure, distributed};

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(query = "invoice.issued", retry = "blocking")]
    async fn create(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
