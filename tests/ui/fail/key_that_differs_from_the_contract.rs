use postrider::{Command, Failure, distributed};

#[derive(serde::Serialize, serde::Deserialize, Command)]
#[message(key = "invoice.draft")]
struct Draft;

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: Draft) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
