//! Handlers that subscribe to patterns of keys, and a wire tap that sees copies of the messages on their way.
//!
//! Run with: cargo run -p examples --example wildcards-and-tap
//!
//! `*` is exactly one word, `#` any number of words. It prints:
//!
//! ```text
//! archive (station.*.measured): station.wind.measured 31, station.rain.measured 4
//! journal (station.#): station.wind.measured 31, station.rain.measured 4, station.storm.wind.warned 31
//! tap: command station.measure
//! tap: event station.wind.measured
//! tap: event station.rain.measured
//! tap: event station.storm.wind.warned
//! ```

use std::error::Error;

use postrider::{App, Command, Context, Failure, Payload, TapFilter, distributed, print_line};
use serde::{Deserialize, Serialize};

/// Asks the weather station to measure.
#[derive(Serialize, Deserialize, Command)]
#[message(key = "station.measure")]
struct Measure {
    wind: u32,
    rain: u32,
}

/// Announces each value under a key of its own.
#[derive(Default)]
struct Station;

#[distributed(service = "station")]
impl Station {
    #[distributed(command = "station.measure")]
    async fn measure(&self, now: Measure, cx: &Context) -> Result<(), Failure> {
        cx.publish_key("station.wind.measured", Payload::json(&now.wind))?;
        cx.publish_key("station.rain.measured", Payload::json(&now.rain))?;
        if now.wind > 30 {
            cx.publish_key("station.storm.wind.warned", Payload::json(&now.wind))?;
        }
        Ok(())
    }
}

/// Keeps the measured values.
#[derive(Default)]
struct Archive {
    kept: Vec<String>,
}

#[distributed(service = "archive")]
impl Archive {
    #[distributed(event = "station.*.measured")]
    async fn measured(&mut self, value: u32, cx: &Context) {
        self.kept.push(format!("{} {value}", cx.key())); // the key that matched
    }

    #[distributed(command = "archive.show")]
    async fn show(&mut self, _: ()) -> Result<String, Failure> {
        Ok(self.kept.join(", "))
    }
}

/// Keeps all events of the station.
#[derive(Default)]
struct Journal {
    kept: Vec<String>,
}

#[distributed(service = "journal")]
impl Journal {
    #[distributed(event = "station.#")]
    async fn happened(&mut self, value: u32, cx: &Context) {
        self.kept.push(format!("{} {value}", cx.key()));
    }

    #[distributed(command = "journal.show")]
    async fn show(&mut self, _: ()) -> Result<String, Failure> {
        Ok(self.kept.join(", "))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let app = App::new("weather").actor(Station::default).actor(Archive::default).actor(Journal::default);
    let running = app.start().await?;
    let bus = running.bus();
    let mut tap = bus.tap(TapFilter::patterns(["station.#"])).await?;

    // The answer comes after the events have left, and a command waits behind the events in its service's queue.
    bus.request(&Measure { wind: 31, rain: 4 }).await?;
    let archive: String = bus.request_key("archive.show", Payload::json(&())).await?;
    print_line(format_args!("archive (station.*.measured): {archive}"));
    let journal: String = bus.request_key("journal.show", Payload::json(&())).await?;
    print_line(format_args!("journal (station.#): {journal}"));

    for _ in 0..4 {
        let Some(seen) = tap.next().await else { return Err("the tap lost its connection".into()) };
        print_line(format_args!("tap: {} {}", seen.kind, seen.key));
    }
    running.stop().await;
    Ok(())
}
