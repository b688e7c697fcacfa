//! `postrider dead list|show|replay|edit|delete|export`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use clap::{Args, Subcommand};
use postrider_grammar::check_pattern;

use crate::app::cli::duration;
use crate::app::dead::letter::{DeadFilter, DeadLetter};
use crate::app::dead::letters::{DeadError, DeadLetters};
use crate::app::dead::replay::Replay;
use crate::bus::Bus;
use crate::codec::{self, Codec};

/// The most characters of an error in a table.
const SHOWN_ERROR: usize = 70;

#[derive(Subcommand)]
pub(in crate::app) enum DeadCommand {
    /// Print dead letters
    List {
        #[command(flatten)]
        which: Which,
        /// Only how many there are, by queue, key and reason
        #[arg(long)]
        count: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print everything about one dead letter
    Show {
        /// The message's id
        id: String,
        /// Its payload alone, as it is
        #[arg(long)]
        payload: bool,
    },
    /// Send dead letters back to the queues of the actors that gave them up
    Replay {
        #[command(flatten)]
        which: Which,
        /// All of them
        #[arg(long)]
        all: bool,
        /// The most per second
        #[arg(long, value_name = "N")]
        rate: Option<f64>,
        /// Replay one first, and stop if it fails again
        #[arg(long)]
        canary: bool,
    },
    /// Give a dead letter another payload; the original is kept in the queue ….dead.kept
    Edit {
        /// The message's id
        id: String,
        /// The payload as JSON; it is encoded as the letter's media type says
        #[arg(long, group = "edited")]
        json: Option<String>,
        /// The payload as text
        #[arg(long, group = "edited")]
        text: Option<String>,
        /// The payload from a file, as it is
        #[arg(long, group = "edited")]
        file: Option<PathBuf>,
        /// Replay it then
        #[arg(long)]
        replay: bool,
    },
    /// Remove dead letters
    Delete {
        #[command(flatten)]
        which: Which,
        /// All of them
        #[arg(long)]
        all: bool,
    },
    /// Print dead letters as JSON, one a line, or write them into a file
    Export {
        #[command(flatten)]
        which: Which,
        /// The file
        #[arg(long)]
        file: Option<PathBuf>,
    },
}

#[derive(Args)]
pub(in crate::app) struct Which {
    /// Ids of messages
    ids: Vec<String>,
    /// Those of a service
    #[arg(long)]
    service: Option<String>,
    /// Those in a dead-letter queue
    #[arg(long)]
    queue: Option<String>,
    /// Those whose key matches a pattern with * and #
    #[arg(long, value_name = "PATTERN")]
    key: Option<String>,
    /// Those whose error has this text
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Those with this reason, such as transient
    #[arg(long)]
    reason: Option<String>,
    /// Those given up within this time
    #[arg(long, value_name = "TIME", value_parser = duration)]
    newer_than: Option<Duration>,
    /// Those given up longer ago
    #[arg(long, value_name = "TIME", value_parser = duration)]
    older_than: Option<Duration>,
}

impl Which {
    fn filter(self) -> Result<DeadFilter, String> {
        if let Some(pattern) = &self.key {
            check_pattern(pattern).map_err(|error| format!("--key: {error}"))?;
        }
        let Self { ids, service, queue, key, error, reason, newer_than, older_than } = self;
        Ok(DeadFilter { ids, service, queue, key, error, reason, newer_than, older_than })
    }

    /// The filter of a command that changes something: it must say what it means.
    fn meant(self, all: bool) -> Result<DeadFilter, String> {
        let texts = [&self.service, &self.queue, &self.key, &self.error, &self.reason];
        let times = [self.newer_than, self.older_than];
        let said = !self.ids.is_empty() || texts.iter().any(|text| text.is_some()) || times.iter().any(Option::is_some);
        match (said, all) {
            (false, false) => Err("which ones? Name ids or a filter such as --service, or say --all".into()),
            (true, true) => Err("--all and a filter contradict each other; leave one of them out".into()),
            _ => self.filter(),
        }
    }
}

/// Carries out a command.
///
/// # Errors
/// One sentence.
pub(in crate::app) async fn obey(command: DeadCommand, bus: &Bus) -> Result<(), String> {
    let letters = DeadLetters::new(bus);
    let text = |error: DeadError| error.to_string();
    match command {
        DeadCommand::List { which, count, json } => {
            let found = letters.list(&which.filter()?).await.map_err(text)?;
            if count { print_counts(&found, json) } else { print_list(&found, json) }
        }
        DeadCommand::Show { id, payload } => {
            let letter = one(&letters, &id).await?;
            if payload {
                return std::io::stdout().write_all(&letter.payload).map_err(|error| error.to_string());
            }
            println!("{:#}", letter.to_json());
        }
        DeadCommand::Replay { which, all, rate, canary } => {
            if rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
                return Err("--rate: say how many per second, a number above zero".into());
            }
            let how = Replay { rate, canary, ..Replay::default() };
            return replay(&letters, &which.meant(all)?, &how).await;
        }
        DeadCommand::Edit { id, json, text, file, replay: then_replay } => {
            let letter = one(&letters, &id).await?;
            let payload = edited(&letter, json, text, file)?;
            letters.replace(&id, payload).await.map_err(|error| error.to_string())?;
            println!("edited {id}; the original is in {}.kept", letter.queue);
            if then_replay {
                return replay(&letters, &DeadFilter::id(id), &Replay::default()).await;
            }
        }
        DeadCommand::Delete { which, all } => {
            let deleted = letters.delete(&which.meant(all)?).await.map_err(text)?;
            println!("deleted {deleted}");
        }
        DeadCommand::Export { which, file } => {
            let found = letters.list(&which.filter()?).await.map_err(text)?;
            return export(&found, file);
        }
    }
    Ok(())
}

async fn one(letters: &DeadLetters, id: &str) -> Result<DeadLetter, String> {
    let mut found = letters.list(&DeadFilter::id(id)).await.map_err(|error| error.to_string())?;
    if found.is_empty() {
        return Err(DeadError::NotFound { id: id.to_owned() }.to_string());
    }
    Ok(found.remove(0))
}

async fn replay(letters: &DeadLetters, filter: &DeadFilter, how: &Replay) -> Result<(), String> {
    let done = letters.replay(filter, how).await.map_err(|error| error.to_string())?;
    if let Some(id) = filter.ids.first().filter(|_| done.replayed == 0 && done.canary_failed.is_none()) {
        return Err(DeadError::NotFound { id: id.clone() }.to_string());
    }
    println!("replayed {}", done.replayed);
    if done.taken_back > 0 {
        eprintln!("{} were held for too long and stay; replay them again, or faster", done.taken_back);
    }
    match done.canary_failed {
        Some(problem) => Err(format!("stopped after the first one: {problem}")),
        None => Ok(()),
    }
}

fn edited(
    letter: &DeadLetter,
    json: Option<String>,
    text: Option<String>,
    file: Option<PathBuf>,
) -> Result<Bytes, String> {
    match (json, text, file) {
        (Some(json), _, _) => {
            let value: serde_json::Value =
                serde_json::from_str(&json).map_err(|error| format!("--json: not JSON: {error}"))?;
            let media_type = letter.media_type();
            if !matches!(Codec::for_media_type(&media_type), Some(Codec::Json | Codec::Msgpack)) {
                return Err(format!(
                    "the letter is {media_type}, which JSON cannot be encoded as; use --text or --file"
                ));
            }
            codec::encode(&value, &media_type, &codec::Limits::default()).map_err(|error| error.to_string())
        }
        (None, Some(text), _) => Ok(text.into()),
        (None, None, Some(file)) => {
            std::fs::read(&file).map(Bytes::from).map_err(|error| format!("--file {}: {error}", file.display()))
        }
        (None, None, None) => Err("say the new payload: --json, --text or --file".into()),
    }
}

fn export(letters: &[DeadLetter], file: Option<PathBuf>) -> Result<(), String> {
    let lines: String = letters.iter().map(|letter| format!("{}\n", letter.to_json())).collect();
    match file {
        Some(file) => {
            std::fs::write(&file, lines).map_err(|error| format!("--file {}: {error}", file.display()))?;
            println!("exported {}", letters.len());
        }
        None => print!("{lines}"),
    }
    Ok(())
}

fn print_counts(letters: &[DeadLetter], as_json: bool) {
    let mut counts: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
    for letter in letters {
        *counts.entry((&letter.queue, letter.key(), letter.reason())).or_default() += 1;
    }
    for ((queue, key, reason), count) in counts {
        if as_json {
            println!("{}", serde_json::json!({ "count": count, "queue": queue, "key": key, "reason": reason }));
        } else {
            println!("{count:>8}  {queue}  {key}  {reason}");
        }
    }
}

fn print_list(letters: &[DeadLetter], as_json: bool) {
    if as_json {
        letters.iter().for_each(|letter| println!("{}", letter.to_json()));
        return;
    }
    if letters.is_empty() {
        return println!("no dead letters");
    }
    println!("{:<36}  {:>5}  {:<24} {:<12} {:>3}  ERROR", "ID", "AGE", "KEY", "REASON", "TRY");
    for letter in letters {
        let error: String = letter.error().chars().take(SHOWN_ERROR).collect();
        let age = letter.at().and_then(|at| SystemTime::now().duration_since(at).ok()).map_or("?".into(), age);
        println!(
            "{:<36}  {age:>5}  {:<24} {:<12} {:>3}  {error}",
            letter.id(),
            letter.key(),
            letter.reason(),
            letter.attempts()
        );
    }
}

/// An age in its largest unit.
pub(in crate::app) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod properties;
