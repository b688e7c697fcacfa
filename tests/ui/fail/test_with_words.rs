#[postrider::test(threads = 2)]
async fn orders_are_announced() {}

fn main() {}
