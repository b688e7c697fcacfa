//! The program `postrider`: sends, listens and repairs from the shell.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde_json::json;
use tokio::time::Instant;

use crate::app::builder::BrokerChoice;
use crate::app::cli::{Common, duration};
use crate::app::config::Config;
use crate::app::connect::connect;
use crate::app::dead::{self, DeadCommand};
use crate::app::process::{failed, on_runtime, start_log};
use crate::app::{read_config, record};
use crate::broker::{Broker, BrokerError, Exchange, ExchangeKind, Names, Topology};
use crate::bus::{Address, Bus, Counters, Identity, Options, Outlet, Payload, TapFilter};
use crate::codec::{self, Codec};
use crate::message::{Envelope, Kind, MediaType, Name, Secret};

/// How long the operator's program tries to reach the broker.
const REACH: Duration = Duration::from_secs(5);

#[derive(Parser)]
#[command(name = "postrider", about = "Sends, listens and repairs from the shell", disable_help_subcommand = true, version = env!("CARGO_PKG_VERSION"))]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand)]
enum Command {
    /// Send a command to its owner, or to a service by name
    Send {
        /// The key
        key: String,
        /// The service, instead of the key's owner
        #[arg(long, value_name = "SERVICE")]
        to: Option<String>,
        #[command(flatten)]
        message: MessageArgs,
    },
    /// Publish an event
    Publish {
        /// The key
        key: String,
        #[command(flatten)]
        message: MessageArgs,
    },
    /// Send a command or query and print its answer
    Request {
        /// The key
        key: String,
        #[command(flatten)]
        message: MessageArgs,
    },
    /// Send a message to a channel of a service
    Channel {
        /// The service
        service: String,
        /// The channel
        channel: String,
        #[command(flatten)]
        message: MessageArgs,
    },
    /// Print copies of messages on their way, one JSON object a line
    Tap {
        /// Patterns with * and #; none for everything
        patterns: Vec<String>,
        /// Stop after this many
        #[arg(long, value_name = "N")]
        messages: Option<u64>,
    },
    /// Ask a service whether it is there
    Ping {
        /// The service
        service: String,
        /// How long to wait for the answer
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5s")]
        timeout: Duration,
    },
    /// See, replay, edit and delete the messages that services gave up
    #[command(subcommand)]
    Dead(DeadCommand),
    /// See and release claimed domains
    #[command(subcommand)]
    Domain(DomainCommand),
}

#[derive(Subcommand)]
enum DomainCommand {
    /// Print claimed domains and their owners
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Release a domain whose owner is gone for good
    Release {
        /// The domain
        domain: String,
    },
}

#[derive(Args)]
struct MessageArgs {
    /// The payload as JSON
    #[arg(long, group = "payload")]
    json: Option<String>,
    /// The payload as text
    #[arg(long, group = "payload")]
    text: Option<String>,
    /// The payload from a file
    #[arg(long, group = "payload")]
    file: Option<PathBuf>,
    /// The media type of the file
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    media_type: String,
    /// A header, name=value; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// The message's id
    #[arg(long)]
    id: Option<String>,
    /// How long to wait
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    timeout: Duration,
    /// How long the broker keeps it before it is routed
    #[arg(long, value_name = "TIME", value_parser = duration)]
    delay: Option<Duration>,
}

impl MessageArgs {
    fn payload(&self) -> Result<Payload, String> {
        if let Some(json) = &self.json {
            let value: serde_json::Value =
                serde_json::from_str(json).map_err(|error| format!("--json: not JSON: {error}"))?;
            return Ok(Payload::json(&value));
        }
        if let Some(text) = &self.text {
            return Ok(Payload::text(text.clone()));
        }
        if let Some(file) = &self.file {
            let bytes = std::fs::read(file).map_err(|error| format!("--file {}: {error}", file.display()))?;
            return Ok(Payload::bytes(bytes, MediaType::new(self.media_type.clone())));
        }
        Ok(Payload::json(&()))
    }

    fn options(&self) -> Result<Options, String> {
        let mut options = Options::default().timeout(self.timeout);
        for header in &self.headers {
            let (name, value) =
                header.split_once('=').ok_or_else(|| format!("--header {header:?}: write name=value"))?;
            options = options.header(name, value);
        }
        if let Some(id) = &self.id {
            options = options.id(id.as_str());
        }
        if let Some(delay) = self.delay {
            options = options.delay(delay);
        }
        Ok(options)
    }
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(&cli.common, "error,lapin=off");
    match on_runtime(run(cli)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(problem)) | Err(problem) => failed("postrider", &[problem]),
    }
}

async fn run(cli: Cli) -> Result<(), String> {
    let mut config = Config::default();
    let environment = read_config::environment();
    read_config::read(&mut config, cli.common.config.as_deref(), &environment)
        .map_err(|problems| problems.join("\n"))?;
    if let Some(broker) = cli.common.broker {
        config.broker = Some(Secret::new(broker));
    }
    if config.broker.is_none() {
        return Err("no broker: say --broker amqp://user:password@host/vhost or set POSTRIDER_BROKER".into());
    }
    let deadline = Instant::now() + REACH;
    let broker = connect(&config, &BrokerChoice::default(), "postrider", deadline, |_| {})
        .await
        .map_err(|error| error.to_string())?;
    let bus = open_bus(&config, &broker).await.map_err(|error| error.to_string());
    let result = match bus {
        Ok(bus) => obey(cli.command, &config, &bus, &*broker).await,
        Err(problem) => Err(problem),
    };
    broker.close().await;
    result
}

async fn open_bus(config: &Config, broker: &Arc<dyn Broker>) -> Result<Bus, BrokerError> {
    broker.declare(&crate::inbound::shared_exchanges(&config.names)).await?;
    let outlet =
        Outlet::open(broker, config.names.clone(), config.limits, config.publish, Arc::new(Counters::default()))
            .await?;
    let identity = Identity {
        names: config.names.clone(),
        media_type: MediaType::JSON,
        limits: config.limits,
        ..Identity::plain("operator", "operator")
    };
    Ok(Bus::new(outlet, Arc::new(identity), Arc::clone(broker)))
}

async fn obey(command: Command, config: &Config, bus: &Bus, broker: &dyn Broker) -> Result<(), String> {
    match command {
        Command::Send { key, to: Some(service), message } => {
            let options = message.options()?;
            printed(bus.send_to_with(&service, &key, message.payload()?, |_| options).await)
        }
        Command::Send { key, to: None, message } => {
            let options = message.options()?;
            printed(bus.send_key_with(&key, message.payload()?, |_| options).await)
        }
        // Whoever has the shell may speak for any service.
        Command::Publish { key, message } => {
            let options = message.options()?.as_owner();
            printed(bus.publish_key_with(&key, message.payload()?, |_| options).await)
        }
        Command::Channel { service, channel, message } => {
            let options = message.options()?;
            printed(bus.send_channel_with(&service, &channel, message.payload()?, |_| options).await)
        }
        Command::Request { key, message } => {
            let options = message.options()?;
            let reply = bus
                .request_raw(&key, message.payload()?, |_| options, None)
                .await
                .map_err(|error| error.to_string())?;
            println!("{}", shown(&reply));
            Ok(())
        }
        Command::Tap { patterns, messages } => tap(bus, patterns, messages).await,
        Command::Ping { service, timeout } => ping(bus, &service, timeout).await,
        Command::Dead(command) => dead::obey(command, bus).await,
        Command::Domain(DomainCommand::List { json }) => list_domains(broker, &config.names, json).await,
        Command::Domain(DomainCommand::Release { domain }) => release_domain(broker, &config.names, &domain).await,
    }
}

fn printed(sent: Result<crate::message::MessageId, crate::bus::SendError>) -> Result<(), String> {
    let id = sent.map_err(|error| error.to_string())?;
    println!("{id}");
    Ok(())
}

async fn ping(bus: &Bus, service: &str, timeout: Duration) -> Result<(), String> {
    let address = Address { kind: Kind::Query, key: "ping", service: Some(service) };
    let outgoing = bus.identity.keyed(&address, Payload::json(&()), Options::default().timeout(timeout), timeout);
    let outgoing = outgoing.map_err(|error| error.to_string())?;
    let reply = bus.await_reply(outgoing, None).await.map_err(|error| error.to_string())?;
    println!("{}", shown(&reply));
    Ok(())
}

async fn tap(bus: &Bus, patterns: Vec<String>, messages: Option<u64>) -> Result<(), String> {
    let filter = if patterns.is_empty() { TapFilter::everything() } else { TapFilter::patterns(patterns) };
    let mut tap = bus.tap(filter).await.map_err(|error| error.to_string())?;
    let mut seen = 0;
    while messages.is_none_or(|most| seen < most) {
        let Some(envelope) = tap.next().await else { return Err("the connection to the broker was lost".into()) };
        let line = json!({
            "kind": envelope.kind.as_str(),
            "key": envelope.key.as_str(),
            "to": envelope.target.as_ref().map(Name::as_str),
            "id": envelope.id.as_str(),
            "from": envelope.source.as_ref().map(Name::as_str),
            "media_type": envelope.media_type.as_str(),
            "payload": shown(&envelope),
        });
        println!("{line}");
        seen += 1;
    }
    Ok(())
}

/// A payload for people: JSON and MessagePack as JSON, text as it is, anything else by its size.
fn shown(envelope: &Envelope) -> String {
    let limits = codec::Limits::default();
    match Codec::for_media_type(&envelope.media_type) {
        Some(Codec::Json | Codec::Msgpack) => {
            codec::decode::<serde_json::Value>(&envelope.payload, &envelope.media_type, &limits)
                .map_or_else(|error| format!("({error})"), |value| value.to_string())
        }
        Some(Codec::Text) => String::from_utf8_lossy(&envelope.payload).into_owned(),
        _ => format!("({} bytes of {})", envelope.payload.len(), envelope.media_type),
    }
}

async fn list_domains(broker: &dyn Broker, names: &Names, as_json: bool) -> Result<(), String> {
    let claims = record::claims(broker, names).await.map_err(|error| error.to_string())?;
    let mut standing = Vec::new();
    for claim in claims {
        if !broker.exchange_stands(&names.domain(&claim.domain)).await.map_err(|error| error.to_string())? {
            continue;
        }
        // Declaring it as its owner would changes nothing if it is, and is refused if it is somebody else's.
        let exchange = Exchange::new(names.domain(&claim.domain), ExchangeKind::Fanout)
            .with("alternate-exchange", names.owner(&claim.service));
        match broker.declare(&Topology { exchanges: vec![exchange], ..Topology::default() }).await {
            Ok(()) => standing.push(claim),
            Err(BrokerError::DomainOwned { .. }) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    if as_json {
        println!("{}", json!(standing));
    } else {
        standing.iter().for_each(|claim| println!("{}  {}", claim.domain, claim.service));
    }
    Ok(())
}

async fn release_domain(broker: &dyn Broker, names: &Names, domain: &str) -> Result<(), String> {
    postrider_grammar::check_word("domain", domain).map_err(|error| error.to_string())?;
    let exchange = names.domain(domain);
    if !broker.exchange_stands(&exchange).await.map_err(|error| error.to_string())? {
        return Err(format!("nobody has claimed the domain {domain:?} in namespace {:?}", names.namespace()));
    }
    let topology = Topology { exchanges: vec![Exchange::new(exchange, ExchangeKind::Fanout)], ..Topology::default() };
    broker.remove(&topology).await.map_err(|error| error.to_string())?;
    println!("released {domain}");
    Ok(())
}

#[cfg(test)]
mod properties;
