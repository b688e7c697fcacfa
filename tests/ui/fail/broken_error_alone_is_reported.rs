use std::fmt;

use postrider::{Context, HandlerError, SendError, distributed};

#[derive(HandlerError)]
enum Failed {
    #[transient(from)]
    Send(SendError),
    Closed,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed")
    }
}

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, order: String, cx: &Context) -> Result<(), Failed> {
        cx.publish_key("invoice.created", postrider::Payload::json(&order))?;
        Ok(())
    }
}

fn main() {}
