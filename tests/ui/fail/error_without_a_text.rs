use postrider::HandlerError;

#[derive(HandlerError)]
#[permanent]
struct Failed;

fn main() {}
