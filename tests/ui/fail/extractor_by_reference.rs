use postrider::{Context, Failure, FromContext, distributed};

struct Tenant;

impl FromContext for Tenant {
    async fn from_context(_: &Context) -> Result<Self, Failure> {
        Ok(Self)
    }
}

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, _: (), _: &Tenant) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
