use std::fmt;

use postrider::{HandlerError, SendError};

#[derive(HandlerError)]
enum Failed {
    #[transient(from)]
    Send { error: SendError },
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed")
    }
}

fn main() {}
