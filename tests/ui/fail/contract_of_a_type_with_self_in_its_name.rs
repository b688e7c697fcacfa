use postrider::{Command, Failure, distributed};

#[derive(serde::Serialize, serde::Deserialize, Command)]
#[message(key = "invoice.draft")]
struct SelfCheckout;

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: SelfCheckout) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
