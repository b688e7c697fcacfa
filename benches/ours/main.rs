//! Postrider doing its full work: envelope, headers, permit, mailbox, typed decode, handler, settlement, confirms.

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use postrider::{App, Running, Secret};
use postrider_benches::Failed;
use postrider_benches::signal;
use postrider_benches::tally::Tally;

mod ask;
mod chain;
mod publish;
mod wide;
mod worker;

use worker::{Answering, Subscribing, Working};

#[derive(Debug, Parser)]
struct Arguments {
    /// Where RabbitMQ is; without it everything stays in this process
    #[arg(long)]
    broker: Option<String>,
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Publishes and awaits confirms
    Publish(publish::Options),
    /// Handles commands
    Consume(Consume),
    /// Handles events, as a service of its own
    Subscribe(Consume),
    /// Answers queries until it is told to end
    Serve,
    /// Sends queries and awaits replies
    Ask(ask::Options),
    /// Each handler sends the next message, all on one thread
    Chain(chain::Options),
    /// An app of many handlers and actors
    Wide(wide::Options),
}

#[derive(Debug, clap::Args)]
struct Consume {
    /// The service; for a subscriber one of several
    #[arg(long, default_value = "load")]
    service: String,
    /// Ends after so many; with 0 it only declares what it needs
    #[arg(long)]
    messages: u64,
    /// Note how long each message took
    #[arg(long)]
    timed: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match actix_rt::System::new().block_on(run(arguments.broker, arguments.role)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(broker: Option<String>, role: Role) -> Result<(), Failed> {
    match role {
        Role::Publish(options) => {
            let running = start(App::new("publisher"), broker).await?;
            publish::publish(running.bus(), &options).await?;
            running.stop().await;
        }
        Role::Consume(options) => {
            let tally = Arc::new(Tally::new(options.messages, options.timed));
            let seen = Arc::clone(&tally);
            let app = App::new("load").actor(move || Working { tally: Arc::clone(&seen) });
            consume(app, broker, &options, &tally).await?;
        }
        Role::Subscribe(options) => {
            let tally = Arc::new(Tally::new(options.messages, options.timed));
            let app = Subscribing::app(&options.service, &tally)?;
            consume(app, broker, &options, &tally).await?;
        }
        Role::Serve => {
            let running = start(App::new("load").actor(Answering::default), broker).await?;
            signal::ready_and_wait().await?;
            running.stop().await;
        }
        Role::Ask(options) => {
            let running = start(App::new("asker"), broker).await?;
            ask::ask(running.bus(), &options).await?;
            running.stop().await;
        }
        Role::Chain(options) => chain::run(&options).await?,
        Role::Wide(options) => wide::run(broker, &options).await?,
    }
    Ok(())
}

async fn start(app: App, broker: Option<String>) -> Result<Running, Failed> {
    Ok(app.configure(|config| config.broker = broker.map(Secret::new)).start_as_configured().await?)
}

async fn consume(app: App, broker: Option<String>, options: &Consume, tally: &Tally) -> Result<(), Failed> {
    let running = start(app, broker).await?;
    signal::ready()?;
    if options.messages > 0 {
        signal::done(&tally.measured().await)?;
    }
    running.stop().await;
    Ok(())
}
