use postrider::Command;

#[derive(serde::Serialize, serde::Deserialize, Command)]
#[message(key = "Invoice.create")]
struct Create;

fn main() {}
