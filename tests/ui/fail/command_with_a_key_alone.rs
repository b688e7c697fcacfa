use postrider::Command;

#[derive(serde::Serialize, serde::Deserialize, Command)]
#[message("invoice.create")]
struct Create;

fn main() {}
