use postrider::Query;

#[derive(Query)]
#[message(key = "invoice.issued", reply = u64, fire)]
struct Issued;

fn main() {}
