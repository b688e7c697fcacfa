use postrider::Query;

#[derive(serde::Serialize, serde::Deserialize, Query)]
#[message(key = "invoice.issued")]
struct Issued;

fn main() {}
