use postrider::{distributed};

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(query = "invoice.issued")]
    async fn issued(&self, _: ()) -> u64 {
        0
    }
}

fn main() {}
