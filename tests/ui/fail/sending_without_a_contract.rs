use postrider::Bus;

#[derive(serde::Serialize)]
struct Create;

async fn send(bus: &Bus) {
    let _ = bus.send(&Create).await;
}

fn main() {}
