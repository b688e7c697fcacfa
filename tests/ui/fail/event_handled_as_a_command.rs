use postrider::{Event, Failure, distributed};

#[derive(serde::Serialize, serde::Deserialize, Event)]
#[message(key = "invoice.create")]
struct Created;

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: Created) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
