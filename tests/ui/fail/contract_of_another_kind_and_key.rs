use postrider::{Command, distributed};

#[derive(serde::Serialize, serde::Deserialize, Command)]
#[message(key = "loans.lend", reply = u64)]
struct Lend;

struct Lending;

#[distributed(service = "loans")]
impl Lending {
    #[distributed(event = "loans.lent")]
    async fn lent(&self, _: Lend) {}
}

fn main() {}
