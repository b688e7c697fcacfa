//! What callgrind has written down, as far as it matters here: whose functions the instructions were in, and how often memory was
//! allocated.

use std::collections::BTreeMap;

/// Parts of the names of the client library's functions, its frame parser and writer included.
const CLIENT: [&str; 5] = ["lapin", "amq_protocol", "async_rs", "cookie_factory", "nom"];

/// The functions that allocate memory.
const ALLOCATES: [&str; 5] = ["malloc", "calloc", "realloc", "aligned_alloc", "posix_memalign"];

/// Instructions, and allocations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Profile {
    pub(super) total: u64,
    /// In functions of the client library, without its calls into the allocator or the C library.
    pub(super) client: u64,
    /// How often memory was allocated, the client library's allocations included.
    pub(super) allocations: u64,
}

/// What the file says about a function.
#[derive(Clone, Copy, Default)]
struct Function {
    is_clients: bool,
    allocates: bool,
}

impl Function {
    fn named(name: &str) -> Self {
        Self { is_clients: is_clients(name), allocates: ALLOCATES.contains(&name) }
    }
}

impl Profile {
    /// Reads a file of callgrind's. See "Callgrind Format Specification" in valgrind's manual: a line `fn=(number) name` begins a
    /// function, the name stands there once; a line of numbers has the cost in its last one; the line after `calls=` is the cost of
    /// the called function, which has lines of its own.
    pub(super) fn of(text: &str) -> Option<Self> {
        let mut functions: BTreeMap<&str, Function> = BTreeMap::new();
        let (mut profile, mut is_client, mut is_of_call) = (Self::default(), false, false);
        let mut called = Function::default();
        for line in text.lines() {
            if let Some(function) = line.strip_prefix("fn=") {
                let (number, name) = function.split_once(' ').unwrap_or((function, ""));
                if !name.is_empty() {
                    functions.insert(number, Function::named(name));
                }
                is_client = functions.get(number).is_some_and(|function| function.is_clients);
            } else if let Some(function) = line.strip_prefix("cfn=") {
                let (number, name) = function.split_once(' ').unwrap_or((function, ""));
                if !name.is_empty() {
                    functions.insert(number, Function::named(name));
                }
                called = functions.get(number).copied().unwrap_or_default();
            } else if let Some(calls) = line.strip_prefix("calls=") {
                is_of_call = true;
                let calls: u64 = calls.split(' ').next()?.parse().ok()?;
                profile.allocations += if called.allocates { calls } else { 0 };
            } else if line.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '*')) {
                if std::mem::take(&mut is_of_call) {
                    continue;
                }
                // A line without a cost counts as zero.
                let Some((_, cost)) = line.rsplit_once(' ') else { continue };
                let cost: u64 = cost.parse().ok()?;
                profile.total += cost;
                profile.client += if is_client { cost } else { 0 };
            }
        }
        (profile.total > 0).then_some(profile)
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            total: self.total.saturating_sub(other.total),
            client: self.client.saturating_sub(other.client),
            allocations: self.allocations.saturating_sub(other.allocations),
        }
    }

    pub(super) fn of_each(self, messages: u64) -> Self {
        Self {
            total: self.total / messages,
            client: self.client / messages,
            // Few enough that rounding matters.
            allocations: (self.allocations + messages / 2) / messages,
        }
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
        let text = "events: Ir\n\nfl=(1) a.rs\nfn=(1) postrider::send\n16 100\n+2 20\ncfn=(2) lapin::channel::publish\ncalls=3 50\n* 900\ncfn=(9) malloc\ncalls=4 0\n* 80\ncfn=(9)\ncalls=2 0\n* 40\n\nfn=(2)\n50 700\n-3 200\n\nfn=(3) <lapin::Frame as core::Clone>::clone\n7 5\n\ntotals: 1025\n";
        assert_eq!(Profile::of(text), Some(Profile { total: 1_025, client: 905, allocations: 6 }));
        let profile = |total, client, allocations| Profile { total, client, allocations };
        assert_eq!(profile(110, 50, 36).minus(profile(10, 10, 1)).of_each(10), profile(10, 4, 4));
    }
}
