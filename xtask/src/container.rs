//! RabbitMQ in a container, for machines where it is not installed.

use std::{
    process, thread,
    time::{Duration, Instant},
};

use crate::{
    node::answers,
    program::{command, output, run, succeeds},
};

/// The image that `docker-compose.yml` uses too.
const IMAGE: &str = "rabbitmq:4-management";
/// How long fetching the image may take.
const PULL_LIMIT: Duration = Duration::from_secs(600);
/// How long RabbitMQ in a container may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Pause between two attempts to reach it.
const TICK: Duration = Duration::from_millis(200);
/// User and password. The image's own guest is not meant for connections from outside.
const USER: &str = "postrider";

/// A container with RabbitMQ, removed when dropped.
#[derive(Debug)]
pub struct Container {
    engine: &'static str,
    name: String,
    port: u16,
}

/// The container engine of this machine, if one works.
pub fn engine() -> Option<&'static str> {
    // `info` fails when the program is there but its service is not.
    ["docker", "podman"].into_iter().find(|engine| succeeds(&[engine, "info"]))
}

impl Container {
    /// Starts a container on a port that the engine chooses and waits for RabbitMQ.
    pub fn start(engine: &'static str) -> Result<Container, String> {
        run(&mut command(&[engine, "pull", IMAGE]), PULL_LIMIT)?;
        let mut container = Container { engine, name: format!("postrider-test-{}", process::id()), port: 0 };
        let (user, password) = (format!("RABBITMQ_DEFAULT_USER={USER}"), format!("RABBITMQ_DEFAULT_PASS={USER}"));
        let name = container.name.as_str();
        output(&[
            engine,
            "run",
            "--detach",
            "--rm",
            "--name",
            name,
            "--publish",
            "127.0.0.1::5672",
            "--env",
            &user,
            "--env",
            &password,
            IMAGE,
        ])?;
        let mapping = output(&[engine, "port", name, "5672/tcp"])?;
        container.port = port_in(&mapping).ok_or_else(|| format!("{engine} port says {mapping:?}"))?;
        let begin = Instant::now();
        while !answers(container.port) {
            if begin.elapsed() > START_LIMIT {
                return Err(format!("RabbitMQ in {engine} gave no answer within {} s", START_LIMIT.as_secs()));
            }
            thread::sleep(TICK);
        }
        Ok(container)
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("amqp://{USER}:{USER}@127.0.0.1:{}", self.port)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Err(error) = output(&[self.engine, "rm", "--force", &self.name]) {
            eprintln!("the container {} is still there: {error}", self.name);
        }
    }
}

/// The host's port in `127.0.0.1:49153`, the answer of `docker port`.
fn port_in(mapping: &str) -> Option<u16> {
    mapping.lines().next()?.rsplit_once(':')?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::port_in;

    #[test]
    fn reads_the_port_of_a_mapping() {
        assert_eq!(port_in("127.0.0.1:49153"), Some(49153));
        assert_eq!(port_in("127.0.0.1:49153\n[::1]:49154"), Some(49153));
        assert_eq!(port_in(""), None);
    }
}
