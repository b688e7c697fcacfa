//! The compression of a payload.

use std::fmt;
use std::sync::Arc;

/// How a payload was compressed after it was encoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ContentEncoding {
    /// Readable by almost every receiver.
    Gzip,
    /// Smaller and faster than gzip.
    Zstd,
    /// An unknown encoding, as the foreign sender wrote it.
    Other(Arc<str>),
}

impl ContentEncoding {
    /// Makes a content encoding from the wire; `None` for an empty text.
    #[must_use]
    pub fn from_wire(text: &Arc<str>) -> Option<Self> {
        match &**text {
            "" => None,
            "gzip" => Some(Self::Gzip),
            "zstd" => Some(Self::Zstd),
            _ => Some(Self::Other(Arc::clone(text))),
        }
    }

    /// The content encoding as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Other(text) => text,
        }
    }
}

impl fmt::Display for ContentEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
