use postrider::{Failure, distributed};

#[derive(serde::Deserialize)]
struct Order<'a>(&'a str);

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: Order<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
