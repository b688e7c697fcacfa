use postrider::{Failure, distributed};

#[distributed(service = "invoice")]
trait Issuing {
    async fn create(&self, order: String) -> Result<(), Failure>;
}

fn main() {}
