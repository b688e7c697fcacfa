#[postrider::test]
fn orders_are_announced() {}

fn main() {}
