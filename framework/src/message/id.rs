//! Message ids.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;
use uuid::{Builder, Uuid};
use xxhash_rust::xxh3::xxh3_128;

/// Identifies a message. Ours are UUIDs of version 7; a foreign sender may use any text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Arc<str>);

impl MessageId {
    /// A new, unique id that sorts by its creation time.
    #[must_use]
    pub fn new() -> Self {
        let mut buffer = Uuid::encode_buffer();
        Self(Arc::from(&*Uuid::now_v7().hyphenated().encode_lower(&mut buffer)))
    }

    /// The id of the `ordinal`-th message that `handler` sends while it handles this one. It is the same at every
    /// attempt, so that a retried handler repeats its messages instead of sending new ones.
    #[must_use]
    pub fn derived(&self, handler: &str, ordinal: u32) -> Self {
        self.followed_by(&[handler], ordinal)
    }

    /// An id computed from this one and the arguments, the same in every process and version: a UUID of version 8.
    pub(crate) fn followed_by(&self, parts: &[&str], ordinal: u32) -> Self {
        let mut bytes = SmallVec::<[u8; 256]>::from_slice(self.0.as_bytes());
        for part in parts {
            // No UTF-8 text contains this byte, so that different parts give different bytes.
            bytes.push(0xff);
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes.push(0xff);
        bytes.extend_from_slice(&ordinal.to_le_bytes());
        let id = Builder::from_custom_bytes(xxh3_128(&bytes).to_be_bytes()).into_uuid();
        Self(Arc::from(&*id.hyphenated().encode_lower(&mut Uuid::encode_buffer())))
    }

    /// An id computed from this one, a key and a payload.
    pub(crate) fn of_content(&self, key: &str, payload: &[u8]) -> Self {
        self.followed_by(&[key, &format!("{:x}", xxh3_128(payload))], 0)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for MessageId {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Arc<str>> for MessageId {
    fn from(text: Arc<str>) -> Self {
        Self(text)
    }
}

impl From<&str> for MessageId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for MessageId {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
