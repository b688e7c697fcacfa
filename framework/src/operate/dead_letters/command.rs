//! `postrider dead list|show|replay|edit|delete|export`.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use postrider_grammar::check_pattern;

use crate::bus::Bus;
use crate::codec::{self, Codec};
use crate::operate::cli::duration;
use crate::operate::dead_letters::filter::DeadFilter;
use crate::operate::dead_letters::letter::DeadLetter;
use crate::operate::dead_letters::print;
use crate::operate::dead_letters::queues::DeadLetters;
use crate::operate::dead_letters::queues::DeadProgress;
use crate::operate::dead_letters::replay::Replay;
use crate::operate::output;
use crate::operate::printable::{json_lines, one_line};

#[derive(Subcommand)]
pub(in crate::operate) enum DeadCommand {
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
        /// The letter, as LETTER of a list names it, or the message's id
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
        /// The letter, as LETTER of a list names it, or the message's id
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
pub(in crate::operate) struct Which {
    /// Letters, as LETTER of a list names them, or ids of messages
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

/// The reasons for dead letters: ours, and the broker's (<https://www.rabbitmq.com/docs/dlx>).
const REASONS: [&str; 12] = [
    "rejected",
    "permanent",
    "transient",
    "panic",
    "timed_out",
    "infrastructure",
    "undecodable",
    "no_handler",
    "crash_suspected",
    "expired",
    "maxlen",
    "delivery_limit",
];

impl Which {
    fn filter(self) -> Result<DeadFilter, String> {
        if let Some(pattern) = &self.key {
            check_pattern(pattern).map_err(|error| format!("--key: {error}"))?;
        }
        self.ids.iter().try_for_each(|id| check_id(id))?;
        if let Some(reason) = self.reason.as_deref().filter(|reason| !REASONS.contains(reason)) {
            let known = REASONS.join(", ");
            return Err(format!("--reason: no letter is given up as {reason:?}; there are: {known}"));
        }
        if let Some(queue) = self.queue.as_deref().filter(|queue| !queue.contains(".dead")) {
            return Err(format!(
                "--queue: {queue:?} is no dead-letter queue; is \"<namespace>.<service>.dead\" meant? `postrider dead list --count` shows them"
            ));
        }
        let Self { ids, service, queue, key, error, reason, newer_than, older_than } = self;
        Ok(DeadFilter { ids, service, queue, key, error, reason, newer_than, older_than })
    }

    /// The filter of a command that changes something. It needs an id, a filter option or `--all`.
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

/// Runs a command.
///
/// # Errors
/// One sentence.
pub(in crate::operate) async fn obey(command: DeadCommand, bus: &Bus) -> Result<(), String> {
    let letters = DeadLetters::new(bus);
    match command {
        DeadCommand::List { which, count, json } => {
            let filter = found(&letters, which.filter()?).await?;
            if count { print::count(&letters, &filter, json).await } else { print::list(&letters, &filter, json).await }
        }
        DeadCommand::Show { id, payload } => show(&letters, &id, payload).await,
        DeadCommand::Replay { which, all, rate, canary } => {
            if rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
                return Err("--rate: say how many per second, a number above zero".into());
            }
            let how = Replay { rate, canary, ..Replay::default() };
            let filter = found(&letters, which.meant(all)?).await?;
            replay(letters.on_progress(|progress| tell(progress, "replayed")), &filter, &how).await
        }
        DeadCommand::Edit { id, json, text, file, replay: then_replay } => {
            let letter = one(&letters, &id).await?;
            let payload = edited(&letter, json, text, file)?;
            let address = letters.replace(letter.address(), payload).await.map_err(|error| error.to_string())?;
            let edited = format!(
                "edited {}; it is letter {address}, and the original is in {}.kept",
                one_line(&id),
                letter.queue
            );
            // Printed last: the program ends when nobody reads what it prints.
            let replayed = match then_replay {
                true => replay(letters, &DeadFilter::id(address), &Replay::default()).await,
                false => Ok(()),
            };
            output::line(edited);
            replayed
        }
        DeadCommand::Delete { which, all } => {
            let filter = found(&letters, which.meant(all)?).await?;
            let letters = letters.on_progress(|progress| tell(progress, "deleted"));
            let deleted = letters.delete(&filter).await.map_err(|error| error.to_string())?;
            output::line(format_args!("deleted {deleted}"));
            Ok(())
        }
        DeadCommand::Export { which, file } => {
            let filter = found(&letters, which.filter()?).await?;
            print::export(&letters, &filter, file).await
        }
    }
}

/// The filter, if what it names exists. An unknown name is an error, not an empty list.
async fn found(letters: &DeadLetters, filter: DeadFilter) -> Result<DeadFilter, String> {
    letters.check_ids(&filter).await.map_err(|error| error.to_string())?;
    let queues = letters.queues_for(&filter).await.map_err(|error| error.to_string())?;
    if filter.queue.is_none() {
        for service in letters.unrecorded().await.map_err(|error| error.to_string())? {
            tracing::warn!(
                service,
                "the queues of this service are not recorded, so only its first dead-letter queue is looked at; name others with --queue"
            );
        }
    }
    match (&filter.queue, &filter.service) {
        (Some(queue), Some(service)) if queues.is_empty() => {
            Err(format!("there is no dead-letter queue {queue:?} of a service {service:?}; leave one of both out"))
        }
        (Some(queue), None) if queues.is_empty() => Err(format!("there is no queue {queue:?}")),
        (None, Some(service)) if queues.is_empty() => Err(format!(
            "there is no dead-letter queue of a service {service:?}; `postrider domain list` shows services"
        )),
        _ => Ok(filter),
    }
}

fn tell(progress: &DeadProgress, what: &str) {
    let DeadProgress { queue, looked_at, of, done } = progress;
    output::problem(format_args!("{what} {done}; looked at {looked_at} of {of} letters in {}", one_line(queue)));
}

async fn one(letters: &DeadLetters, id: &str) -> Result<DeadLetter, String> {
    check_id(id)?;
    letters.one(id).await.map_err(|error| error.to_string())
}

fn check_id(id: &str) -> Result<(), String> {
    if id.is_empty() {
        return Err("an empty id names no letter; `postrider dead list` shows in LETTER what to call each".into());
    }
    Ok(())
}

async fn show(letters: &DeadLetters, id: &str, payload: bool) -> Result<(), String> {
    let letter = one(letters, id).await?;
    if payload {
        output::bytes(&letter.envelope.payload);
        return Ok(());
    }
    output::line(json_lines(&letter.to_json()));
    Ok(())
}

async fn replay(letters: DeadLetters, filter: &DeadFilter, how: &Replay) -> Result<(), String> {
    let done = letters.replay(filter, how).await.map_err(|error| error.to_string())?;
    output::line(format_args!("replayed {}", done.replayed));
    let mut problems = Vec::new();
    if done.taken_back > 0 {
        problems.push(format!("{} were held for too long and stay; replay them again, or faster", done.taken_back));
    }
    if done.not_reached > 0 {
        problems.push(format!(
            "{} letters were not reached, because somebody else took them or has them now; do it again for the rest",
            done.not_reached
        ));
    }
    problems.extend(done.canary_failed.map(|problem| format!("stopped after the first one: {problem}")));
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
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
            if !matches!(Codec::for_media_type(media_type), Some(Codec::Json | Codec::Msgpack)) {
                return Err(format!(
                    "the letter is {media_type}, which JSON cannot be encoded as; use --text or --file"
                ));
            }
            codec::encode(&value, media_type, &codec::Limits::default()).map_err(|error| error.to_string())
        }
        (None, Some(text), _) => Ok(text.into()),
        (None, None, Some(file)) => {
            std::fs::read(&file).map(Bytes::from).map_err(|error| format!("--file {}: {error}", file.display()))
        }
        (None, None, None) => Err("say the new payload: --json, --text or --file".into()),
    }
}

#[cfg(test)]
mod property_tests;
