use std::fmt;

use postrider::HandlerError;

#[derive(HandlerError)]
enum Failed {
    #[transient]
    Busy,
    Closed,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed")
    }
}

fn main() {}
