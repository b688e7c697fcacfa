//! Content types.

use std::borrow::Cow;
use std::fmt;

/// The content type of a payload. It chooses the codec; of its parameters `charset` counts where the payload is text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MediaType(Cow<'static, str>);

impl MediaType {
    /// MessagePack with named fields, the default.
    pub const MSGPACK: Self = Self(Cow::Borrowed("application/msgpack"));
    /// JSON.
    pub const JSON: Self = Self(Cow::Borrowed("application/json"));
    /// UTF-8 text.
    pub const TEXT: Self = Self(Cow::Borrowed("text/plain"));
    /// Bytes that mean nothing to us.
    pub const BYTES: Self = Self(Cow::Borrowed("application/octet-stream"));

    /// Takes a media type as text.
    #[must_use]
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self(text.into())
    }

    /// Takes a media type as it came from the network.
    #[must_use]
    pub fn from_wire(text: &str) -> Self {
        let known = [Self::MSGPACK, Self::JSON, Self::TEXT, Self::BYTES];
        known.into_iter().find(|known| known.as_str() == text).unwrap_or_else(|| Self::new(text.to_owned()))
    }

    /// Takes a media type known at compile time.
    #[must_use]
    pub const fn from_static(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// The media type as text, parameters included.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parameter that names the encoding of characters, if there is one.
    #[must_use]
    pub fn charset(&self) -> Option<&str> {
        let parameters = self.0.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
        let charset = parameters.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
        charset.map(|(_, value)| value.trim().trim_matches('"'))
    }

    /// Type and subtype without parameters and white space around them.
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
