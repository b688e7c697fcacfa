use postrider::{Command, Context, Failure, distributed};

#[derive(serde::Serialize, serde::Deserialize, Command)]
#[message(key = "loans.lend", reply = u64)]
struct Lend;

struct Lending;

#[distributed(service = "loans", workers = 4)]
impl Lending {
    #[distributed(command = "loans.borrow")]
    async fn lend(&self, _: Lend) -> Result<u64, Failure> {
        Ok(1)
    }

    #[distributed(query = "loans.open")]
    async fn open(&self, _: ()) -> u64 {
        1
    }

    #[distributed(command = "loans.end")]
    async fn end(&self, _: (), _: Context) -> Result<(), Failure> {
        Ok(())
    }

    #[distributed(command = "books.buy")]
    async fn buy(&self, _: ()) -> u64 {
        1
    }
}

fn main() {}
