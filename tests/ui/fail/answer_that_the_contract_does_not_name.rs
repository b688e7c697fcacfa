use postrider::{Command, Failure, distributed};

#[derive(serde::Serialize, serde::Deserialize, Command)]
#[message(key = "invoice.create")]
struct Create;

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: Create) -> Result<u64, Failure> {
        Ok(1)
    }
}

fn main() {}
