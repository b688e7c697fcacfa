//! A service for the tests of surroundings: it has settings of its own, and a start that can take long.

use std::process::ExitCode;
use std::time::Duration;

use postrider::{App, Failure, Setup, distributed};
use tracing_subscriber::prelude::*;

#[derive(serde::Deserialize)]
struct Settings {
    #[serde(default)]
    days: u32,
    /// Seconds that the start of the desk takes.
    #[serde(default)]
    start: u64,
    /// Whether it blocks its thread meanwhile.
    #[serde(default)]
    blocks: bool,
}

struct Desk {
    days: u32,
}

impl Desk {
    async fn from(setup: &Setup) -> Result<Self, Failure> {
        let settings: Settings = setup.config()?;
        let time = Duration::from_secs(settings.start);
        if settings.blocks {
            std::thread::sleep(time);
        } else {
            tokio::time::sleep(time).await;
        }
        Ok(Self { days: settings.days })
    }
}

#[distributed(service = "loans")]
impl Desk {
    #[distributed(query = "loans.days")]
    async fn days(&self, _: ()) -> Result<u32, Failure> {
        Ok(self.days)
    }
}

#[derive(Default)]
struct Shelf;

#[distributed(service = "loans", queue = "shelf")]
impl Shelf {
    #[distributed(command = "loans.lend")]
    async fn lend(&mut self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[distributed(command = "loans.lose", retry = "none")]
    async fn lose(&self, _: u64) -> Result<(), Failure> {
        Err(Failure::permanent("it is lost"))
    }
}

fn main() -> ExitCode {
    // A log of its own, with or without the layer that keeps secrets out of it.
    let log = tracing_subscriber::registry();
    match std::env::var("LOANS_LOG").as_deref() {
        Ok("careless") => log.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr)).init(),
        Ok("careful") => {
            let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
            log.with(postrider::operate::without_secrets()).with(lines).init();
        }
        _ => {}
    }
    postrider::main(App::new("loans").actor(Shelf::default).actor_with(Desk::from))
}
