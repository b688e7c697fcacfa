//! Who has set a value: which variable, or which line of which file.

use std::collections::BTreeMap;

/// The origin of each setting, by its path, such as `actor.invoice.prefetch`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins(BTreeMap<String, String>);

impl Origins {
    /// The last one to set it counts.
    pub(crate) fn insert(&mut self, setting: &str, origin: String) {
        self.0.insert(setting.to_owned(), origin);
    }

    /// A setting with its origin in front: `POSTRIDER_PREFETCH (prefetch)`.
    pub(crate) fn shown(&self, setting: &str) -> String {
        self.0.get(setting).map_or_else(|| setting.to_owned(), |origin| format!("{origin} ({setting})"))
    }

    /// Who has set it, if not the code.
    pub(crate) fn origin(&self, setting: &str) -> Option<&str> {
        self.0.get(setting).map(String::as_str)
    }

    /// The variable that set it, if one did.
    pub(crate) fn variable(&self, setting: &str) -> Option<&str> {
        self.0.get(setting).map(String::as_str).filter(|origin| origin.starts_with(super::PREFIX))
    }

    /// How another setting would be written where this one was: as a variable, or as in the file.
    pub(crate) fn written(&self, like: &str, setting: &str) -> String {
        if self.variable(like).is_none() {
            return setting.to_owned();
        }
        format!("{}{}", super::PREFIX, setting.replace('.', "__").replace('-', "_").to_ascii_uppercase())
    }
}
