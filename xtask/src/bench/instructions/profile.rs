//! What callgrind has written down, as far as it matters here: whose functions the instructions were in.

use std::collections::BTreeMap;

/// Parts of the names of functions that are the client library's, with what it reads and writes frames by.
const CLIENT: [&str; 5] = ["lapin", "amq_protocol", "async_rs", "cookie_factory", "nom"];

/// Instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Profile {
    pub(super) total: u64,
    /// In functions of the client library; what it calls in the allocator or the C library is not among them.
    pub(super) client: u64,
}

impl Profile {
    /// Reads a file of callgrind's. See "Callgrind Format Specification" in valgrind's manual: a line `fn=(number) name` begins a
    /// function, the name stands there once; a line of numbers has the cost in its last one; the line after `calls=` is the cost of
    /// the called function, which has lines of its own.
    pub(super) fn of(text: &str) -> Option<Self> {
        let mut names: BTreeMap<&str, bool> = BTreeMap::new();
        let (mut profile, mut is_client, mut is_of_call) = (Self::default(), false, false);
        for line in text.lines() {
            if let Some(function) = line.strip_prefix("fn=") {
                let (number, name) = function.split_once(' ').unwrap_or((function, ""));
                if !name.is_empty() {
                    names.insert(number, is_clients(name));
                }
                is_client = names.get(number).copied().unwrap_or(false);
            } else if let Some(function) = line.strip_prefix("cfn=") {
                if let Some((number, name)) = function.split_once(' ') {
                    names.insert(number, is_clients(name));
                }
            } else if line.starts_with("calls=") {
                is_of_call = true;
            } else if line.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '*')) {
                if std::mem::take(&mut is_of_call) {
                    continue;
                }
                // A line without a cost has none.
                let Some((_, cost)) = line.rsplit_once(' ') else { continue };
                let cost: u64 = cost.parse().ok()?;
                profile.total += cost;
                profile.client += if is_client { cost } else { 0 };
            }
        }
        (profile.total > 0).then_some(profile)
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self { total: self.total.saturating_sub(other.total), client: self.client.saturating_sub(other.client) }
    }

    pub(super) fn of_each(self, messages: u64) -> Self {
        Self { total: self.total / messages, client: self.client / messages }
    }
}

fn is_clients(name: &str) -> bool {
    CLIENT.iter().any(|part| name.starts_with(&format!("{part}::")) || name.contains(&format!("<{part}::")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_counted_once_and_by_whose_function_they_are() {
        let text = "events: Ir\n\nfl=(1) a.rs\nfn=(1) postrider::send\n16 100\n+2 20\ncfn=(2) lapin::channel::publish\ncalls=3 50\n* 900\n\nfn=(2)\n50 700\n-3 200\n\nfn=(3) <lapin::Frame as core::Clone>::clone\n7 5\n\ntotals: 1025\n";
        assert_eq!(Profile::of(text), Some(Profile { total: 1_025, client: 905 }));
        let (many, few) = (Profile { total: 110, client: 50 }, Profile { total: 10, client: 10 });
        assert_eq!(many.minus(few).of_each(10), Profile { total: 10, client: 4 });
    }
}
