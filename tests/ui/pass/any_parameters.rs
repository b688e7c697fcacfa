use std::borrow::Cow;

use postrider::{Bytes, Context, Failure, FromContext, distributed};

#[derive(serde::Deserialize)]
struct Order {
    number: u64,
}

#[derive(serde::Deserialize)]
struct Note<'a>(Cow<'a, str>);

struct Tenant(String);

impl FromContext for Tenant {
    async fn from_context(cx: &Context) -> Result<Self, Failure> {
        Ok(Self(cx.header_text("tenant").unwrap_or_default().to_owned()))
    }
}

/// Named like ours, and made from it.
mod other {
    pub struct Context(pub u32);

    impl postrider::FromContext for Context {
        async fn from_context(cx: &postrider::Context) -> Result<Self, postrider::Failure> {
            Ok(Self(cx.attempt()))
        }
    }
}

#[derive(Default)]
struct Invoicing {
    seen: Vec<String>,
}

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(command = "invoice.raw")]
    async fn raw(&mut self, message: Bytes) {
        self.seen.push(message.len().to_string());
    }

    #[distributed(command = "invoice.text")]
    async fn text(&mut self, message: String) {
        self.seen.push(message);
    }

    #[distributed(command = "invoice.typed")]
    async fn typed(&mut self, Order { number }: Order) {
        self.seen.push(number.to_string());
    }

    #[distributed(command = "invoice.standard")]
    async fn standard(&mut self, message: Vec<(u8, Option<String>)>) {
        self.seen.extend(message.into_iter().filter_map(|(_, text)| text));
    }

    #[distributed(command = "invoice.cow")]
    async fn cow(&mut self, message: Note<'static>) {
        self.seen.push(message.0.into_owned());
    }

    #[distributed(command = "invoice.nothing")]
    async fn nothing(&self, _: ()) {}

    #[distributed(command = "invoice.context")]
    async fn context<'a>(&'a self, _: (), cx: &'a Context) -> Result<usize, Failure> {
        Ok(cx.header_text("tenant").map_or(0, str::len))
    }

    #[distributed(command = "invoice.extractor")]
    async fn extractor(&self, _: (), tenant: Tenant) -> Result<String, Failure> {
        Ok(tenant.0)
    }

    #[distributed(command = "invoice.other")]
    async fn other(&self, _: (), other: other::Context) -> Result<u32, Failure> {
        Ok(other.0)
    }

    #[distributed(command = "invoice.both")]
    async fn both(&mut self, _: (), mut tenant: Tenant, cx: &postrider::Context, other: Tenant) -> Result<(), Failure> {
        tenant.0.push_str(&other.0);
        tenant.0.push_str(cx.header_text("tenant").unwrap_or_default());
        self.seen.push(tenant.0);
        Ok(())
    }
}

#[test]
fn a_handler_takes_a_message_and_what_can_be_made_from_its_context() {
    assert_eq!(super::handlers::<Invoicing>().len(), 10);
}
