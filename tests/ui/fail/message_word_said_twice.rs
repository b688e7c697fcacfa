use postrider::Command;

#[derive(serde::Serialize, serde::Deserialize, Command)]
#[message(key = "invoice.create", key = "invoice.draft")]
struct Create;

fn main() {}
