//! Content types of payloads.

use std::borrow::Cow;
use std::fmt;

/// The content type of a payload. It chooses the codec. Of its parameters only `charset` matters, where the payload is
/// text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MediaType(Cow<'static, str>);

impl MediaType {
    /// MessagePack with named fields, the default.
    pub const MSGPACK: Self = Self(Cow::Borrowed("application/msgpack"));
    /// JSON.
    pub const JSON: Self = Self(Cow::Borrowed("application/json"));
    /// UTF-8 text.
    pub const TEXT: Self = Self(Cow::Borrowed("text/plain"));
    /// Uninterpreted bytes.
    pub const BYTES: Self = Self(Cow::Borrowed("application/octet-stream"));

    /// Makes a media type from text.
    #[must_use]
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self(text.into())
    }

    /// Makes a media type from the wire.
    #[must_use]
    pub fn from_wire(text: &str) -> Self {
        let known = [Self::MSGPACK, Self::JSON, Self::TEXT, Self::BYTES];
        known.into_iter().find(|known| known.as_str() == text).unwrap_or_else(|| Self::new(text.to_owned()))
    }

    /// Makes a media type from a text known at compile time.
    #[must_use]
    pub const fn from_static(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// The media type as text, parameters included.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The `charset` parameter, if there is one.
    #[must_use]
    pub fn charset(&self) -> Option<&str> {
        let parameters = self.0.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
        let charset = parameters.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
        charset.map(|(_, value)| value.trim().trim_matches('"'))
    }

    /// Type and subtype, trimmed and without parameters.
    #[must_use]
    pub fn essence(&self) -> &str {
        self.0.split(';').next().unwrap_or_default().trim()
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
