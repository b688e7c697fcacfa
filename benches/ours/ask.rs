//! Queries, with a fixed number outstanding.

use clap::Args;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use postrider::{Bus, Payload};
use postrider_benches::Failed;
use postrider_benches::measured::{Latency, Meter};
use postrider_benches::signal;
use postrider_benches::work::{Work, now};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long)]
    messages: u64,
    #[arg(long, default_value_t = 1)]
    outstanding: u64,
    #[arg(long, default_value_t = 256)]
    bytes: usize,
}

pub(crate) async fn ask(bus: &Bus, options: &Options) -> Result<(), Failed> {
    signal::ready_and_wait().await?;
    let meter = Meter::start();
    let each = options.messages / options.outstanding;
    let mut asking: FuturesUnordered<_> = (0..options.outstanding)
        .map(|_| {
            let (bus, bytes) = (bus.clone(), options.bytes);
            actix_rt::spawn(async move {
                let (mut times, mut work) = (Vec::new(), Work::of_bytes(bytes));
                for number in 0..each {
                    let began = now();
                    (work.number, work.sent_at) = (number, began);
                    let answer: Work = bus.request_key("load.echo", Payload::msgpack(&work)).await?;
                    if answer.number != number {
                        return Err::<_, Failed>("an answer to something else".into());
                    }
                    times.push(now() - began);
                }
                Ok(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    while let Some(asked) = asking.next().await {
        times.extend(asked??);
    }
    signal::done(&meter.stop(each * options.outstanding, Latency::of(times)))
}
