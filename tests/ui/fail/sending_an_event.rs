use postrider::{Bus, Event};

#[derive(serde::Serialize, serde::Deserialize, Event)]
#[message(key = "invoice.created")]
struct Created;

async fn send(bus: &Bus) {
    let _ = bus.send(&Created).await;
}

fn main() {}
