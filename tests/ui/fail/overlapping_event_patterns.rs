use postrider::{Failure, distributed};

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(event = "payment.*")]
    async fn create(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }

    #[distributed(event = "*.taken")]
    async fn draft(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
