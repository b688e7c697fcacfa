//! A sender that waits for the answer: to a command, to a query, from a service that rejects, and to a command without a service.
//!
//! Run with: cargo run -p examples --example request-and-reply
//!
//! It prints:
//!
//! ```text
//! reserved 7 chairs, 3 are left
//! there are 3 chairs in stock
//! no: only 3 chairs are left (sold-out)
//! nobody answers "stock.burn"
//! ```

use std::error::Error;

use postrider::{App, Command, Failure, Payload, Query, RequestError, SendError, distributed, print_line};
use serde::{Deserialize, Serialize};

/// A command changes something. Its sender may wait for the answer, or not.
#[derive(Serialize, Deserialize, Command)]
#[message(key = "stock.reserve", reply = Reserved)]
struct Reserve {
    chairs: u32,
}

/// The answer to it.
#[derive(Serialize, Deserialize)]
struct Reserved {
    chairs: u32,
    left: u32,
}

/// A query changes nothing: it overtakes waiting commands, and is dropped when its sender has given up.
#[derive(Serialize, Deserialize, Query)]
#[message(key = "stock.level", reply = u32)]
struct Level;

/// The number of chairs.
struct Stock {
    chairs: u32,
}

#[distributed(service = "stock")]
impl Stock {
    #[distributed(command = "stock.reserve")]
    async fn reserve(&mut self, asked: Reserve) -> Result<Reserved, Failure> {
        let Some(left) = self.chairs.checked_sub(asked.chairs) else {
            return Err(Failure::rejected("sold-out", format!("only {} chairs are left", self.chairs)));
        };
        self.chairs = left;
        Ok(Reserved { chairs: asked.chairs, left })
    }

    #[distributed(query = "stock.level")]
    async fn level(&self, _: Level) -> Result<u32, Failure> {
        Ok(self.chairs)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // `start` runs the actors on threads of their own, beside the rest of the program.
    let running = App::new("request-and-reply").actor(|| Stock { chairs: 10 }).start().await?;
    let bus = running.bus();

    let Reserved { chairs, left } = bus.request(&Reserve { chairs: 7 }).await?;
    print_line(format_args!("reserved {chairs} chairs, {left} are left"));

    print_line(format_args!("there are {} chairs in stock", bus.request(&Level).await?));

    match bus.request(&Reserve { chairs: 7 }).await {
        Err(RequestError::Remote(error)) => print_line(format_args!("no: {}", error.problem)),
        other => return Err(format!("expected a refusal, not {:?}", other.map(|reserved| reserved.left)).into()),
    }

    match bus.request_key::<()>("stock.burn", Payload::json(&())).await {
        Err(RequestError::Send(SendError::Unroutable { key, .. })) => {
            print_line(format_args!("nobody answers {key:?}"))
        }
        other => return Err(format!("expected that nobody answers, not {other:?}").into()),
    }

    running.stop().await;
    Ok(())
}
