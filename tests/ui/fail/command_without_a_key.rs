use postrider::Command;

#[derive(serde::Serialize, serde::Deserialize, Command)]
struct Create;

fn main() {}
