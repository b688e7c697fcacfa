use postrider::{Bus, Event};

#[derive(serde::Serialize, serde::Deserialize, Event)]
#[message(key = "invoice.created")]
struct Created;

async fn send(bus: &Bus) {
    let _ = bus.request(&Created).await;
}

fn main() {}
