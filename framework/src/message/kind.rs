//! The kinds of messages: command, event, query, channel, reply.

use std::fmt;

/// The purpose of a message, which also decides how it is routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Asks its one owner to do something.
    Command,
    /// Tells any number of subscribers what happened.
    Event,
    /// Asks for an answer without an effect.
    Query,
    /// Goes to a named channel of a named service; none of the above.
    Channel,
    /// Answers a command or query whose sender waits.
    Reply,
}

impl Kind {
    /// All kinds, in their order.
    pub const ALL: [Self; 5] = [Self::Command, Self::Event, Self::Query, Self::Channel, Self::Reply];

    /// The word for this kind on the wire and in listings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Event => "event",
            Self::Query => "query",
            Self::Channel => "channel",
            Self::Reply => "reply",
        }
    }

    /// The kind that a word names; `None` for any other word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Command, Self::Event, Self::Query, Self::Channel, Self::Reply]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
