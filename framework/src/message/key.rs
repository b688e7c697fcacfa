//! Routing keys, and names of services.

use std::fmt;
use std::sync::Arc;

use crate::message::recent::Recent;
use postrider_grammar::{NameError, check_key, check_service, domain};

thread_local! {
    static KEYS: Recent = const { Recent::new() };
}

/// A routing key: words joined by dots. Its first word is the domain that one service owns.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// Makes a key from a valid text.
    ///
    /// # Errors
    /// When the text is not words `[a-z][a-z0-9-]*` joined by dots, or has more than 200 bytes.
    pub fn new(text: &str) -> Result<Self, NameError> {
        // A service sends to few keys, but often, so recent keys are cached.
        Recent::of(&KEYS, text, check_key).map(Self)
    }

    /// Makes a key from the wire without checking it; a foreign sender may use other characters.
    #[must_use]
    pub fn from_wire(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The key as shared text, without a copy.
    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first word.
    #[must_use]
    pub fn domain(&self) -> &str {
        domain(&self.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a service or of one running instance of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// Makes a name from a valid text.
    ///
    /// # Errors
    /// When the text is not one word `[a-z][a-z0-9-]*` of at most 60 bytes.
    pub fn new(text: &str) -> Result<Self, NameError> {
        check_service(text)?;
        Ok(Self(text.into()))
    }

    /// Makes a name from the wire, or from our own code, without checking it.
    #[must_use]
    pub fn from_wire(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The name as shared text, without a copy.
    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
