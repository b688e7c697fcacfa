use postrider::{Bus, Command, Event, Failure, Query, RequestError, distributed};

#[derive(serde::Serialize, serde::Deserialize, Command)]
#[message(key = "invoice.Create", reply = u64)]
struct Create;

#[derive(serde::Serialize, serde::Deserialize, Event)]
struct Created;

#[derive(serde::Serialize, serde::Deserialize, Query)]
#[message(key = "invoice.issued", reply = u64, cached)]
struct Issued;

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: Create) -> Result<u64, Failure> {
        Ok(1)
    }

    #[distributed(event = "invoice.created")]
    async fn created(&self, _: Created) {}

    #[distributed(query = "invoice.issued")]
    async fn issued(&self, _: Issued) -> Result<u64, Failure> {
        Ok(1)
    }
}

async fn send(bus: &Bus) -> Result<u64, RequestError> {
    bus.send(&Create).await?;
    bus.publish(&Created).await?;
    bus.request(&Issued).await
}

fn main() {
    let _ = send;
}
