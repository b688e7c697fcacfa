//! List, replay, edit, delete and export dead letters.

mod command;
mod error;
mod filter;
mod letter;
mod letters;
mod print;
mod queues;
mod replay;
mod walk;

pub(super) use command::{DeadCommand, obey};
pub use error::DeadError;
pub use filter::DeadFilter;
pub use letter::DeadLetter;
pub(super) use print::age;
pub use queues::{DeadLetters, DeadProgress};
pub use replay::{Replay, Replayed};
