use postrider::{Failure, distributed};

struct Lending;

#[distributed(service = "loans")]
impl Lending {
    #[distributed(command = "lend")]
    async fn lend(&self, _: ()) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
