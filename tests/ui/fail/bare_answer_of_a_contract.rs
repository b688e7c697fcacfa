use postrider::{Command, distributed};

#[derive(serde::Serialize, serde::Deserialize)]
struct Lent;

#[derive(serde::Serialize, serde::Deserialize, Command)]
#[message(key = "loans.lend", reply = Lent)]
struct Lend;

struct Lending;

#[distributed(service = "loans")]
impl Lending {
    #[distributed(command = "loans.lend")]
    async fn lend(&self, _: Lend) -> Lent {
        Lent
    }
}

fn main() {}
