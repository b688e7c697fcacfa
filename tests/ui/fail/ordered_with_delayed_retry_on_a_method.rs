use postrider::{Failure, distributed};

struct Invoicing;

#[distributed(service = "invoice", ordered)]
impl Invoicing {
    #[distributed(command = "invoice.create", retry = "delayed")]
    async fn create(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
