use postrider::{Failure, distributed};

struct Invoicing;

#[distributed(service = "invoice", prefetch = 100, timeout = "1m")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&mut self, _: ()) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
