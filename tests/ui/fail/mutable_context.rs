use postrider::{Context, Failure, distributed};

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: (), _: &mut Context) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
