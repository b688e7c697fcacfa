//! Dead letters: seen, replayed, edited, deleted, exported.

mod command;
mod letter;
mod letters;
mod replay;

pub(super) use command::{DeadCommand, age, obey};
pub use letter::{DeadFilter, DeadLetter};
pub use letters::{DeadError, DeadLetters};
pub use replay::{Replay, Replayed};
