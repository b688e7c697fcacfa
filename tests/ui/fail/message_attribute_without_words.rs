use postrider::Command;

#[derive(serde::Serialize, serde::Deserialize, Command)]
#[message]
struct Create;

fn main() {}
