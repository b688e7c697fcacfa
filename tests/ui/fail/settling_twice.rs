use postrider::broker::Receipt;

fn settle(receipt: Receipt) {
    receipt.ack();
    receipt.ack();
}

fn main() {}
