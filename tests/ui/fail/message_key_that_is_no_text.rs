use postrider::Command;

#[derive(serde::Serialize, serde::Deserialize, Command)]
#[message(key = invoice)]
struct Create;

fn main() {}
