//! What opening a store does to its tables.

use crate::store::StoreError;

/// What opening a store does to Postrider's tables in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// They are brought to this release's version. A SQLite file that is not there is made.
    Migrate,
    /// They stay as they are, and so does everything else.
    AsTheyAre,
}

impl Tables {
    /// Judges tables of this version, where this release needs the other one.
    ///
    /// # Errors
    /// When they are newer, or missing or older and are to stay as they are.
    pub fn judge(self, store: &str, version: i64, needed: i64) -> Result<(), StoreError> {
        let reason = match version {
            _ if version > needed => format!(
                "its tables have version {version} and this release knows up to {needed}: a newer release uses them; start that one, or restore a copy"
            ),
            _ if self == Self::Migrate || version == needed => return Ok(()),
            0 => "it has no tables of Postrider's; a service that starts makes them, and so does `postrider store migrate`"
                .to_owned(),
            _ => format!(
                "its tables have version {version} and this release needs {needed}; a service of this release brings them there when it starts, and so does `postrider store migrate`"
            ),
        };
        Err(StoreError::Refused { store: store.to_owned(), reason })
    }
}
