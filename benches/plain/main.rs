//! The same work on the bare client, written as its users write it: what Postrider is measured against.
//!
//! It follows the client's documentation, with the window and the prefetch of the Postrider side, the same
//! codec and a queue of the same type. Each role says where it does better than the simplest way.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lapin::{Connection, ConnectionProperties};
use postrider_benches::Failed;

mod actor;
mod books;
mod consume;
mod promises;
mod publish;
mod rpc;

#[derive(Debug, Parser)]
struct Arguments {
    /// Where RabbitMQ is
    #[arg(long, default_value = "amqp://127.0.0.1")]
    broker: String,
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Declares a quorum queue, for the event if asked
    Declare {
        queue: String,
        #[arg(long)]
        event: bool,
    },
    /// Empties a queue
    Purge { queue: String },
    /// Publishes and awaits confirms
    Publish(publish::Options),
    /// Consumes, decodes and acknowledges
    Consume(consume::Options),
    /// Consumes, and keeps books in a database
    Books(books::Options),
    /// Answers requests until it is told to end
    Serve {
        queue: String,
        /// With the properties that Postrider sends; writes are polled once
        #[arg(long)]
        promises: bool,
    },
    /// Asks and awaits replies, on direct reply-to
    Ask(rpc::Options),
    /// One actor asks another one, with the message encoded and decoded
    Actor { messages: u64, bytes: usize },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.role {
        Role::Actor { messages, bytes } => actor::ask(messages, bytes),
        role => with_broker(&arguments.broker, role),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn with_broker(broker: &str, role: Role) -> Result<(), Failed> {
    let connection = Connection::connect(broker, ConnectionProperties::default()).await?;
    match role {
        Role::Declare { queue, event } => consume::declare(&connection, &queue, event).await,
        Role::Purge { queue } => consume::purge(&connection, &queue).await,
        Role::Publish(options) => publish::publish(&connection, &options).await,
        Role::Consume(options) => consume::consume(&connection, &options).await,
        Role::Books(options) => books::keep(&connection, &options).await,
        Role::Serve { queue, promises } => rpc::serve(&connection, &queue, promises).await,
        Role::Ask(options) => rpc::ask(&connection, &options).await,
        Role::Actor { .. } => Ok(()),
    }
}
