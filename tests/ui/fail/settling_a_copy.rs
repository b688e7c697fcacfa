use postrider::broker::Receipt;

fn settle(receipt: Receipt) {
    let copy = receipt.clone();
    copy.ack();
    receipt.give_back();
}

fn main() {}
