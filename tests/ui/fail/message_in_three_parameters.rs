use postrider::{Context, Failure, distributed};

struct Lending;

#[distributed(service = "loans")]
impl Lending {
    #[distributed(command = "loans.lend")]
    async fn lend(&self, book: u64, reader: String, days: Option<u8>, cx: &Context) -> Result<(), Failure> {
        cx.publish_key("loans.lent", postrider::Payload::json(&(book, reader, days)))?;
        Ok(())
    }
}

fn main() {}
