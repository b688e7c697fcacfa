//! Finding a RabbitMQ for the tests, or starting one.

use std::env;

use crate::{
    apt,
    container::{Container, engine},
    node::{Node, server_script},
};

/// The environment variable that tells the tests where RabbitMQ is, and that a caller may set.
pub const URL_VARIABLE: &str = "AMQP_URL";

/// The RabbitMQ that the tests use. A node or container that we started ends when this is dropped.
#[derive(Debug)]
pub enum Broker {
    /// One that the environment names.
    Given(String),
    /// A node of our own.
    Private(Node),
    /// A container of our own.
    Contained(Container),
}

/// Makes sure that a RabbitMQ server is installed, to start nodes of it.
pub fn installed() -> Result<(), String> {
    if server_script().is_none() && apt::usable() {
        apt::install("rabbitmq-server")?;
    }
    match server_script() {
        Some(_) => Ok(()),
        None => Err("no rabbitmq-server: install it, or run this as root on Debian".into()),
    }
}

impl Broker {
    /// Takes the first that is possible: the given one, an installed one, one that can be installed, a container.
    pub fn find() -> Result<Broker, String> {
        if let Some(url) = env::var(URL_VARIABLE).ok().filter(|url| !url.is_empty()) {
            println!("RabbitMQ: the one that {URL_VARIABLE} names");
            say_if_no_server();
            return Ok(Broker::Given(url));
        }
        let mut refusals = Vec::new();
        if server_script().is_none() && apt::usable() {
            refusals.extend(apt::install("rabbitmq-server").err());
        }
        if server_script().is_some() {
            match Node::start() {
                Ok(node) => {
                    println!("RabbitMQ: a private node on port {}", node.port());
                    return Ok(Broker::Private(node));
                }
                Err(error) => refusals.push(error),
            }
        }
        if let Some(engine) = engine() {
            match Container::start(engine) {
                Ok(container) => {
                    println!("RabbitMQ: a container of {engine}");
                    say_if_no_server();
                    return Ok(Broker::Contained(container));
                }
                Err(error) => refusals.push(error),
            }
        }
        refusals.push(format!(
            "no RabbitMQ: set {URL_VARIABLE}=amqp://user:password@host, install rabbitmq-server, run this as root on Debian, or start docker or podman"
        ));
        Err(refusals.join("\n"))
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        match self {
            Broker::Given(url) => url.clone(),
            Broker::Private(node) => node.url(),
            Broker::Contained(container) => container.url(),
        }
    }
}

/// Fault tests kill and freeze RabbitMQ, so they need nodes that they start themselves.
fn say_if_no_server() {
    if server_script().is_none() {
        println!("rabbitmq-server is not installed: tests that start nodes of their own will fail");
    }
}
