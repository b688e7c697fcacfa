use postrider::Command;

#[derive(serde::Serialize, serde::Deserialize, Command)]
#[message(key = "invoice.create", schema_version = 0)]
struct Create;

fn main() {}
