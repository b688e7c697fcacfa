use postrider::{Failure, distributed};

struct Invoicing<'a>(&'a str);

#[distributed(service = "invoice")]
impl<'a> Invoicing<'a> {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
