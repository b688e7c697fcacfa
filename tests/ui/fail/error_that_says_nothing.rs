use postrider::{distributed};

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: ()) -> Result<(), std::io::Error> {
        Ok(())
    }
}

fn main() {}
