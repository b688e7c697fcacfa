use postrider::{Bus, Command};

#[derive(serde::Serialize, serde::Deserialize, Command)]
#[message(key = "invoice.create")]
struct Create;

async fn send(bus: &Bus) {
    let _ = bus.publish(&Create).await;
}

fn main() {}
