//! `postrider store`: what stands in a service's database, and what cannot leave it.

use clap::Subcommand;
use serde_json::json;

use crate::app::config::Config;
use crate::app::stores::{StoreAddress, open_store};
use crate::operate::operator::message::shown as shown_payload;
use crate::operate::output;
use crate::operate::printable::{json_line, lines, one_line};
use crate::store::{ListedRow, Outbox, Store, StoreStatus, Tables};

/// The most rows that a list shows unless it is told otherwise.
const ROWS: usize = 1_000;

#[derive(Subcommand)]
pub(super) enum StoreCommand {
    /// Bring Postrider's tables to this release's version; services do it too when they start
    Migrate,
    /// Find settings of the database that break a promise; exit code 1 when there is one
    Check,
    /// Print what the store holds
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// See and repair messages that cannot leave
    #[command(subcommand)]
    Outbox(OutboxCommand),
}

#[derive(Subcommand)]
pub(super) enum OutboxCommand {
    /// Print the rows in their order, with the reason of those that were put aside
    List {
        /// Those that were sent and are kept (sent_retention), the newest first
        #[arg(long)]
        sent: bool,
        /// As JSON, one row a line
        #[arg(long)]
        json: bool,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = ROWS)]
        most: usize,
    },
    /// Print one row with its message
    Show {
        /// Its number
        number: i64,
    },
    /// Try a row again that was put aside, or all of them; those behind it follow
    Retry {
        /// Its number
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        number: Option<i64>,
        /// All that were put aside
        #[arg(long)]
        all: bool,
    },
    /// Remove a row: its message is never sent
    Drop {
        /// Its number
        number: i64,
    },
}

/// Runs a command on the store of the configuration, or of one service.
///
/// # Errors
/// One sentence.
pub(super) async fn obey(command: StoreCommand, config: &Config, service: Option<&str>) -> Result<(), String> {
    let own = service.and_then(|service| config.stores.get(service));
    let Some(address) = own.or(config.store.as_ref()) else {
        if let Some(service) = service {
            return Err(format!(
                "service {service:?} has no store in this configuration: set service.{service}.store or POSTRIDER_STORE, or say --store sqlite:path/to/file.db"
            ));
        }
        return Err("no store: say --store sqlite:path/to/file.db, or set POSTRIDER_STORE, or name the service whose store the file has with --service".into());
    };
    // Whoever only looks changes nothing.
    let tables = if matches!(command, StoreCommand::Migrate) { Tables::Migrate } else { Tables::AsTheyAre };
    // It needs no pooler.
    let address = StoreAddress { database: address, pooler: None };
    let store = open_store(config, address, tables).await.map_err(|error| error.to_string())?;
    let done = run(command, &*store).await;
    store.close().await;
    done
}

async fn run(command: StoreCommand, store: &dyn Store) -> Result<(), String> {
    let failed = |error: crate::store::StoreError| error.to_string();
    match command {
        StoreCommand::Migrate => {
            let status = store.status().await.map_err(failed)?;
            output::line(format_args!("{}: version {}", one_line(&status.store), status.version));
            Ok(())
        }
        StoreCommand::Check => {
            let problems = store.check().await.map_err(failed)?;
            if problems.is_empty() {
                output::line("ok");
                return Ok(());
            }
            Err(problems.join("\n"))
        }
        StoreCommand::Status { json: true } => {
            let status = store.status().await.map_err(failed)?;
            output::line(json_line(&json!(status)));
            Ok(())
        }
        StoreCommand::Status { json: false } => {
            print(&store.status().await.map_err(failed)?);
            Ok(())
        }
        StoreCommand::Outbox(command) => outbox(command, store.outbox().await.map_err(failed)?).await,
    }
}

fn print(status: &StoreStatus) {
    let StoreStatus { store, version, inbox, outbox, relay, longest_transaction } = status;
    let ago =
        |age: &Option<std::time::Duration>| age.map_or_else(|| "none".to_owned(), |age| format!("{} s", age.as_secs()));
    output::line(format_args!("store                {}", one_line(store)));
    output::line(format_args!("version              {version}"));
    output::line(format_args!(
        "inbox                {} messages, {} bytes, oldest {}",
        inbox.rows,
        inbox.bytes,
        ago(&inbox.oldest)
    ));
    output::line(format_args!(
        "outbox               {} waiting, oldest {}, {} put aside",
        outbox.waiting,
        ago(&outbox.oldest),
        outbox.parked
    ));
    output::line(format_args!("relay                {}", one_line(relay.as_deref().unwrap_or("none"))));
    if let Some(longest) = longest_transaction {
        output::line(format_args!("longest transaction  {} s", longest.as_secs()));
    }
}

async fn outbox(command: OutboxCommand, mut outbox: Box<dyn Outbox>) -> Result<(), String> {
    let failed = |error: crate::store::StoreError| error.to_string();
    let missing = |number: i64| {
        format!("there is no row {number} in the outbox of this namespace; `postrider store outbox list` prints them")
    };
    match command {
        OutboxCommand::List { sent, json, most } => {
            let rows = if sent { outbox.sent(most).await } else { outbox.list(most).await };
            for row in rows.map_err(failed)? {
                listed(&row, json);
            }
            Ok(())
        }
        OutboxCommand::Show { number } => {
            let waits = outbox.row(number).await.map_err(failed)?;
            let was_sent = waits.is_none();
            let sent = if was_sent { outbox.sent_row(number).await.map_err(failed)? } else { None };
            let row = waits.or(sent).ok_or_else(|| missing(number))?;
            let message = match row.message() {
                Ok(envelope) => json!({
                    "kind": envelope.kind.as_str(),
                    "key": envelope.key.as_str(),
                    "id": envelope.id.as_str(),
                    "media_type": envelope.media_type.as_str(),
                    "payload": shown_payload(&envelope),
                }),
                Err(error) => json!({ "unreadable": error.to_string(), "bytes": row.row.envelope }),
            };
            let shown = json!({ "number": number, "address": row.row.address, "sent": was_sent, "age_millis": row.age_millis, "message": message });
            output::line(lines(&serde_json::to_string_pretty(&shown).unwrap_or_default()));
            Ok(())
        }
        OutboxCommand::Retry { number, .. } => {
            let retried = outbox.retry(number).await.map_err(failed)?;
            if retried > 0 {
                outbox.tell_others().await.map_err(failed)?;
            }
            let Some(number) = number else {
                output::line(format_args!("rows that are tried again: {retried}"));
                return Ok(());
            };
            if retried > 0 {
                output::line(format_args!("row {number} is tried again"));
                return Ok(());
            }
            match outbox.row(number).await.map_err(failed)? {
                Some(_) => Err(format!("row {number} was not put aside; it is sent as soon as it can be")),
                None => Err(missing(number)),
            }
        }
        OutboxCommand::Drop { number } => {
            if outbox.row(number).await.map_err(failed)?.is_none() {
                return Err(missing(number));
            }
            outbox.remove(&[number]).await.map_err(failed)?;
            output::line(format_args!("row {number} is removed"));
            Ok(())
        }
    }
}

fn listed(row: &ListedRow, as_json: bool) {
    if as_json {
        return output::line(json_line(&json!(row)));
    }
    let ListedRow { number, address, age_seconds, bytes, parked_because } = row;
    let why = parked_because.as_deref().map_or_else(String::new, |why| format!("  put aside: {}", one_line(why)));
    output::line(format_args!("{number}  {}  {age_seconds} s  {bytes} bytes{why}", one_line(address)));
}
