//! Where a setting was set: the variable, or the line of a file.

use std::collections::BTreeMap;

/// The origin of each setting, by its path, such as `actor.invoice.prefetch`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins(BTreeMap<String, String>);

impl Origins {
    /// Records a setting's origin. A later call replaces an earlier one.
    pub(crate) fn insert(&mut self, setting: &str, origin: String) {
        self.0.insert(setting.to_owned(), origin);
    }

    /// A setting with its origin in front: `POSTRIDER_PREFETCH (prefetch)`.
    pub(crate) fn shown(&self, setting: &str) -> String {
        self.0.get(setting).map_or_else(|| setting.to_owned(), |origin| format!("{origin} ({setting})"))
    }

    /// The setting's origin; `None` if it was set in code or is a default.
    pub(crate) fn origin(&self, setting: &str) -> Option<&str> {
        self.0.get(setting).map(String::as_str)
    }

    /// The variable that set it, if a variable did.
    pub(crate) fn variable(&self, setting: &str) -> Option<&str> {
        self.0.get(setting).map(String::as_str).filter(|origin| origin.starts_with(super::PREFIX))
    }

    /// Writes the name of `setting` in the style of `like`: as a variable if a variable set `like`, else as in the
    /// file.
    pub(crate) fn written(&self, like: &str, setting: &str) -> String {
        if self.variable(like).is_none() {
            return setting.to_owned();
        }
        format!("{}{}", super::PREFIX, setting.replace('.', "__").replace('-', "_").to_ascii_uppercase())
    }
}
