use postrider::{Failure, distributed};

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[cfg(all())]
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }

    #[distributed(command = "invoice.create")]
    async fn draft(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
