use postrider::{Failure, distributed};

struct Invoice;

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: ()) -> Result<Invoice, Failure> {
        Ok(Invoice)
    }
}

fn main() {}
