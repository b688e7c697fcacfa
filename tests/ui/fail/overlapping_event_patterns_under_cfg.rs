use postrider::{Failure, distributed};

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[cfg(all())]
    #[distributed(event = "payment.*")]
    async fn create(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }

    #[cfg(all())]
    #[distributed(event = "payment.#")]
    async fn draft(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
