//! In one process and on one thread: each handler sends the next message.

use std::sync::Arc;

use clap::Args;
use postrider::{App, Context, Failure, Payload, distributed};
use postrider_benches::Failed;
use postrider_benches::signal;
use postrider_benches::tally::Tally;
use postrider_benches::work::Work;

#[derive(Debug, Args)]
pub(crate) struct Options {
    messages: u64,
    bytes: usize,
    /// How many are on their way at once
    #[arg(long, default_value_t = 64)]
    window: u64,
}

struct Link {
    tally: Arc<Tally>,
    left: u64,
}

#[distributed(service = "chain", prefetch = 256, timeout = "5s")]
impl Link {
    #[distributed(command = "chain.next")]
    async fn next(&mut self, work: Work, cx: &Context) -> Result<(), Failure> {
        if self.left > 0 {
            self.left -= 1;
            cx.send_key("chain.next", Payload::msgpack(&work))?;
        }
        self.tally.count(&work);
        Ok(())
    }
}

pub(crate) async fn run(options: &Options) -> Result<(), Failed> {
    let tally = Arc::new(Tally::new(options.messages, false));
    let (seen, left) = (Arc::clone(&tally), options.messages - options.window);
    let running = App::new("chain").actor(move || Link { tally: Arc::clone(&seen), left }).start().await?;
    signal::ready_and_wait().await?;
    let work = Work::of_bytes(options.bytes);
    for _ in 0..options.window {
        running.bus().send_key("chain.next", Payload::msgpack(&work)).await?;
    }
    signal::done(&tally.measured().await)?;
    running.stop().await;
    Ok(())
}
