use postrider::Command;

#[derive(serde::Serialize, serde::Deserialize, Command)]
#[message(key = "invoice.create", priority = 3)]
struct Create;

fn main() {}
