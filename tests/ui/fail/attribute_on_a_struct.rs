use postrider::distributed;

#[distributed(service = "invoice")]
struct Invoicing;

fn main() {}
