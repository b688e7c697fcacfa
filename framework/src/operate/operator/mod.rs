//! The program `postrider`: sends, listens and repairs from the shell.

mod domain;
pub(super) mod message;
mod topology;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use postrider_grammar::check_pattern;
use serde_json::json;
use tokio::time::Instant;

use crate::app::builder::BrokerChoice;
use crate::app::config::Config;
use crate::app::connect::{connect, with_origin};
use crate::app::read_config;
use crate::broker::{Broker, BrokerError};
use crate::bus::{Address, Bus, Counters, Identity, Options, Outlet, Payload, TapFilter};
use crate::message::{Kind, MediaType, Name, Secret};
use crate::operate::actors::{self, ActorCommand};
use crate::operate::cli::{Common, duration, parse};
use crate::operate::dead_letters::{self, DeadCommand};
use crate::operate::doctor::{self, DoctorArgs};
use crate::operate::log::start_log;
use crate::operate::operator::domain::DomainCommand;
use crate::operate::operator::message::{MessageArgs, shown};
use crate::operate::operator::topology::TopologyCommand;
use crate::operate::output::{self, failed};
use crate::operate::printable;
use crate::operate::service::process::{on_runtime, or_signal};
use crate::operate::store::{self, StoreCommand};

/// How long the program tries to reach the broker; less if `start_timeout` says so.
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
    /// See and repair what stands in a service's database
    Store {
        #[command(subcommand)]
        command: StoreCommand,
        /// The store's address; else that of the configuration
        #[arg(long, value_name = "ADDRESS", global = true)]
        store: Option<String>,
        /// The service whose store it is, where the configuration has one for it
        #[arg(long, value_name = "SERVICE", global = true)]
        service: Option<String>,
    },
    #[command(flatten)]
    AtBroker(AtBroker),
}

/// What is done at a broker.
#[derive(Subcommand)]
enum AtBroker {
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
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
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
    /// Wait until services are there: each has a process all of whose actors consume
    Wait {
        /// The services
        #[arg(required = true)]
        services: Vec<String>,
        /// How long to wait for all of them
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
        timeout: Duration,
    },
    /// See, pause, resume and restart running actors
    #[command(subcommand)]
    Actor(ActorCommand),
    /// See, replay, edit and delete the messages that services gave up
    #[command(subcommand)]
    Dead(DeadCommand),
    /// Compare what runs, and the broker, with what the actors promise; exit code 1 when a promise is broken
    Doctor(DoctorArgs),
    /// Change queues that stand
    #[command(subcommand)]
    Topology(TopologyCommand),
    /// See and release claimed domains
    #[command(subcommand)]
    Domain(DomainCommand),
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli: Cli = parse();
    if let Err(problem) = start_log(&cli.common, "error,lapin=off") {
        return failed("postrider", &[problem]);
    }
    match on_runtime(or_signal(run(cli))) {
        Ok(Ok(Ok(()))) => ExitCode::SUCCESS,
        Ok(Ok(Err(problem))) | Err(problem) => failed("postrider", &[problem]),
        Ok(Err(code)) => code,
    }
}

async fn run(cli: Cli) -> Result<(), String> {
    let mut config = Config::default();
    let environment = read_config::environment();
    read_config::read(&mut config, cli.common.config.as_deref(), &environment)
        .map_err(|problems| problems.join("\n"))?;
    if let Some(broker) = cli.common.broker {
        config.broker = Some(Secret::new(broker));
        config.origins.insert("broker", "--broker".into());
    }
    // A database is asked without a broker.
    let command = match cli.command {
        Command::Store { command, store, service } => {
            if let Some(address) = store {
                config.store = Some(Secret::new(address));
                config.stores.clear();
                config.origins.insert("store", "--store".into());
            }
            return store::obey(command, &config, service.as_deref()).await;
        }
        Command::AtBroker(command) => command,
    };
    if config.broker.is_none() {
        return Err("no broker: say --broker amqp://user:password@host/vhost or set POSTRIDER_BROKER".into());
    }
    let deadline = Instant::now() + REACH.min(config.start_timeout);
    let broker = connect(&config, &BrokerChoice::default(), "postrider", deadline, |_| {})
        .await
        .map_err(|error| with_origin(&config, &error))?;
    // The doctor must see the broker unrepaired, so declare nothing before it runs.
    let declares = !matches!(command, AtBroker::Doctor(_));
    let bus = open_bus(&config, &broker, declares).await.map_err(|error| error.to_string());
    let result = match bus {
        Ok(bus) => obey(command, &config, &bus, &*broker).await,
        Err(problem) => Err(problem),
    };
    broker.close().await;
    result
}

async fn open_bus(config: &Config, broker: &Arc<dyn Broker>, declares: bool) -> Result<Bus, BrokerError> {
    if declares {
        match broker.declare(&crate::inbound::shared_sources()).await {
            // Services have declared the topology. If the user lacks a permission, the operation that needs it reports
            // so.
            Ok(()) | Err(BrokerError::Forbidden { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let outlet = Outlet::open(broker, config.limits, config.publish, Arc::new(Counters::default())).await?;
    let identity = Identity {
        names: config.namespace.clone(),
        media_type: MediaType::JSON,
        limits: config.limits,
        delays: broker.capabilities().delays,
        ..Identity::plain("operator", "operator")
    };
    Ok(Bus::new(outlet, Arc::new(identity), Arc::clone(broker)))
}

async fn obey(command: AtBroker, config: &Config, bus: &Bus, broker: &dyn Broker) -> Result<(), String> {
    match command {
        AtBroker::Send { key, to: Some(service), message } => {
            let options = message.options()?;
            printed(bus.send_to_with(&service, &key, message.payload()?, |_| options).await)
        }
        AtBroker::Send { key, to: None, message } => {
            let options = message.options()?;
            printed(bus.send_key_with(&key, message.payload()?, |_| options).await)
        }
        // The operator may publish for any service.
        AtBroker::Publish { key, message } => {
            let options = message.options()?.as_owner();
            printed(bus.publish_key_with(&key, message.payload()?, |_| options).await)
        }
        AtBroker::Channel { service, channel, message } => {
            let options = message.options()?;
            printed(bus.send_channel_with(&service, &channel, message.payload()?, |_| options).await)
        }
        AtBroker::Request { key, message } => {
            let options = message.options()?;
            let reply = bus
                .request_raw(&key, message.payload()?, |_| options, None)
                .await
                .map_err(|error| error.to_string())?;
            output::line(printable::lines(&shown(&reply)));
            Ok(())
        }
        AtBroker::Tap { patterns, messages } => tap(bus, patterns, messages).await,
        AtBroker::Ping { service, timeout } => ping(bus, &service, timeout).await,
        AtBroker::Wait { services, timeout } => {
            bus.wait_for_services(services, timeout).await.map_err(|error| error.to_string())
        }
        AtBroker::Actor(command) => actors::obey(command, bus).await,
        AtBroker::Dead(command) => dead_letters::obey(command, bus).await,
        AtBroker::Topology(command) => topology::obey(command, bus, config).await,
        AtBroker::Doctor(args) => doctor::obey(args, bus).await,
        AtBroker::Domain(command) => domain::obey(command, broker, &config.namespace).await,
    }
}

fn printed(sent: Result<crate::message::MessageId, crate::bus::SendError>) -> Result<(), String> {
    let id = sent.map_err(|error| error.to_string())?;
    output::line(id);
    Ok(())
}

async fn tap(bus: &Bus, patterns: Vec<String>, messages: Option<u64>) -> Result<(), String> {
    for pattern in &patterns {
        check_pattern(pattern).map_err(|error| format!("tap: {error}"))?;
    }
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
        output::line(printable::json_line(&line));
        seen += 1;
    }
    Ok(())
}

async fn ping(bus: &Bus, service: &str, timeout: Duration) -> Result<(), String> {
    let address = Address { kind: Kind::Query, key: "ping", service: Some(service) };
    let outgoing = bus.identity.keyed(&address, Payload::json(&()), Options::default().timeout(timeout), timeout);
    let outgoing = outgoing.map_err(|error| error.to_string())?;
    let reply = bus.await_reply(outgoing, None).await.map_err(|error| error.to_string())?;
    output::line(printable::lines(&shown(&reply)));
    Ok(())
}

#[cfg(test)]
mod property_tests;
