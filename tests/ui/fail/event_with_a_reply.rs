use postrider::Event;

#[derive(serde::Serialize, serde::Deserialize, Event)]
#[message(key = "invoice.created", reply = u64)]
struct Create;

fn main() {}
