use postrider::distributed;

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    async fn create(&self, _order: String) {}
}

fn main() {}
