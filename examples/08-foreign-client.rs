//! A service for clients without this framework: they need RabbitMQ, a routing key and a content type.
//!
//! Run with: cargo run -p examples --example foreign-client -- --broker amqp://127.0.0.1:5672
//!
//! When it says that the scales are ready, start the client in another terminal:
//! `python3 examples/foreign_client.py amqp://127.0.0.1:5672` (`pip install pika`). The service prints:
//!
//! ```text
//! the scales are ready
//! weighed parcel A-1: 700 g
//! asked for the heaviest
//! closed
//! ```
//!
//! Without `--broker` no client can reach it; it ends after a minute without
//! messages.

use std::time::Duration;

use postrider::{App, Bus, Command, Context, Event, Failure, Query, distributed, print_line};
use serde::{Deserialize, Serialize};

/// A command; the client writes `{"parcel": "A-1", "grams": 700}` to the exchange `postrider.command`.
#[derive(Serialize, Deserialize, Command)]
#[message(key = "scales.weigh")]
struct Weigh {
    parcel: String,
    grams: u32,
}

/// An event; the client binds a queue to the exchange `postrider.event`. Events are MessagePack by default.
#[derive(Clone, Serialize, Deserialize, Event)]
#[message(key = "scales.weighed", media_type = "application/json")]
struct Weighed {
    parcel: String,
    grams: u32,
}

/// A query; the client writes `null` to the exchange `postrider.query` and is answered in the encoding it used.
#[derive(Serialize, Deserialize, Query)]
#[message(key = "scales.heaviest", reply = Option<Weighed>)]
struct Heaviest;

/// The heaviest parcel so far.
#[derive(Default)]
struct Scales {
    heaviest: Option<Weighed>,
}

#[distributed(service = "scales")]
impl Scales {
    #[distributed(command = "scales.weigh")]
    async fn weigh(&mut self, asked: Weigh, cx: &Context) -> Result<(), Failure> {
        print_line(format_args!("weighed parcel {}: {} g", asked.parcel, asked.grams));
        let weighed = Weighed { parcel: asked.parcel, grams: asked.grams };
        cx.publish(&weighed)?;
        if self.heaviest.as_ref().is_none_or(|heaviest| heaviest.grams < weighed.grams) {
            self.heaviest = Some(weighed);
        }
        Ok(())
    }

    #[distributed(query = "scales.heaviest")]
    async fn heaviest(&self, _: Heaviest) -> Result<Option<Weighed>, Failure> {
        print_line("asked for the heaviest");
        Ok(self.heaviest.clone())
    }

    #[distributed(command = "scales.close")]
    async fn close(&mut self, _: (), cx: &Context) {
        print_line("closed");
        cx.stop_app();
    }
}

fn main() -> std::process::ExitCode {
    let app = App::new("scales").actor(Scales::default);
    let app = app.configure(|config| config.run.idle = Some(Duration::from_secs(60)));
    postrider::main(app.on_ready(async |_: &Bus| {
        print_line("the scales are ready");
        Ok(())
    }))
}
