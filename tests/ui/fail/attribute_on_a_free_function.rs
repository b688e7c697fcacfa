use postrider::{Failure, distributed};

#[distributed(command = "invoice.create")]
async fn create(_: ()) -> Result<(), Failure> {
    Ok(())
}

fn main() {}
