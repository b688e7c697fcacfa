use std::fmt;

use postrider::HandlerError;

#[derive(HandlerError)]
union Failed {
    small: u8,
    large: u64,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed")
    }
}

fn main() {}
