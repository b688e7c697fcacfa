use postrider::{Context, Event, Failure, distributed};

#[derive(serde::Serialize, serde::Deserialize, Event)]
#[message(key = "invoice.created")]
struct Created;

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: (), cx: &Context) -> Result<(), Failure> {
        cx.send(&Created)?;
        Ok(())
    }
}

fn main() {}
