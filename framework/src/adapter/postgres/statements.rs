//! The texts of a transaction. Several statements in one text take one round trip.

use std::fmt::Write as _;
use std::time::Duration;

use crate::adapter::postgres::text::bytes;
use crate::store::{InboxEntry, StoredAnswer, TransactionLimits};

/// How much later than the handler's own time limit the server ends a statement. Mostly we cancel it; the server's limit is for a
/// process that cannot.
const SERVER_LATER: Duration = Duration::from_millis(500);
/// Fails if the transaction that began with `postrider.open` is over: a setting of a transaction ends with it.
pub(super) const GUARD: &str = "SELECT 1 / (coalesce(current_setting('postrider.open', true), '') = 'on')::int;";
/// The longest time that a setting of the server takes, in milliseconds.
const LONGEST_MILLIS: u128 = i32::MAX as u128;
/// How many columns [`look_text`] asks for.
pub(super) const KNOWN_COLUMNS: usize = 3;

/// Lock, statement and idle time of the transaction, and the setting that [`GUARD`] looks for.
pub(super) fn limits_text(limits: TransactionLimits) -> String {
    // The server takes up to 24 days; zero would be no limit.
    let millis = |time: Duration| time.as_millis().clamp(1, LONGEST_MILLIS);
    let handler = limits.handler.saturating_add(SERVER_LATER);
    let (lock, idle, handler) = (millis(limits.lock), millis(handler.saturating_add(limits.lock)), millis(handler));
    format!(
        "SELECT set_config('lock_timeout', '{lock}', true), set_config('statement_timeout', '{handler}', true), set_config('idle_in_transaction_session_timeout', '{idle}', true), set_config('postrider.open', 'on', true);"
    )
}

/// Notes messages as handled.
pub(super) fn insert_entries<'a>(entries: impl IntoIterator<Item = (&'a InboxEntry, Option<Vec<u8>>)>) -> String {
    let mut text = String::new();
    for (entry, answer) in entries {
        text.push_str(match text.is_empty() {
            true => "INSERT INTO postrider_inbox (actor, id, content, answer) VALUES (",
            false => ", (",
        });
        let answer = answer.map_or_else(|| "NULL".to_owned(), |answer| bytes(&answer));
        let _ = write!(text, "{}, {}, {}, {answer})", entry.actor.0, bytes(&entry.id), entry.content);
    }
    if !text.is_empty() {
        text.push(';');
    }
    text
}

/// Adds the answer to a message that was noted when its transaction began.
pub(super) fn update_entry(entry: &InboxEntry, answer: &StoredAnswer) -> String {
    let Some(answer) = answer.encode() else { return String::new() };
    let (actor, id, answer) = (entry.actor.0, bytes(&entry.id), bytes(&answer));
    format!("UPDATE postrider_inbox SET answer = {answer} WHERE actor = {actor} AND id = {id};")
}

/// Forgets a message.
pub(super) fn forget_text(entry: &InboxEntry) -> String {
    let (actor, id) = (entry.actor.0, bytes(&entry.id));
    format!("BEGIN READ WRITE; DELETE FROM postrider_inbox WHERE actor = {actor} AND id = {id}; COMMIT")
}

/// Asks what the inbox knows of messages of one actor.
pub(super) fn look_text(entries: &[InboxEntry]) -> String {
    let Some(first) = entries.first() else { return String::new() };
    let ids = entries.iter().map(|entry| bytes(&entry.id)).collect::<Vec<_>>().join(", ");
    format!("SELECT id, content, answer FROM postrider_inbox WHERE actor = {} AND id IN ({ids})", first.actor.0)
}
