use postrider::{App, Failure, distributed};

struct Invoicing;

#[distributed(service = "invoice", queue = "dead", timeout = "30", workers = 4)]
impl Invoicing {
    #[distributed(command = "invoice.Create")]
    async fn create(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }

    #[distributed(command = "payment.take")]
    async fn take(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }

    #[distributed(event = "payment.taken", scope = "everywhere")]
    fn settle(&mut self) {}
}

fn main() {
    App::new("invoice").actor(|| Invoicing);
}
