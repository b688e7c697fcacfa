//! By `&mut` a handler takes its transaction, one of them, and nothing else.

use postrider::{Failure, Sqlite, Tx, distributed};

struct Basket;
struct Bank;

#[distributed(service = "bank", once_by = "order")]
impl Bank {
    #[distributed(command = "bank.fill")]
    async fn fill(&mut self, _: String, basket: &mut Basket) -> Result<(), Failure> {
        drop(basket);
        Ok(())
    }

    #[distributed(command = "bank.twice")]
    async fn twice(&mut self, _: String, one: &mut Tx<Sqlite>, two: &mut Tx<Sqlite>) -> Result<(), Failure> {
        drop((one, two));
        Ok(())
    }
}

fn main() {}
