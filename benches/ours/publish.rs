//! Publishing from many tasks, each of which awaits its confirm.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use postrider::{Bus, Payload, SendError};
use postrider_benches::Failed;
use postrider_benches::measured::Meter;
use postrider_benches::signal;
use postrider_benches::work::{Work, now};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Publish the event instead of sending the command
    #[arg(long)]
    event: bool,
    #[arg(long)]
    messages: u64,
    /// How many tasks publish
    #[arg(long, default_value_t = 256)]
    window: usize,
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Send to the handlers of so many actors of a wide app instead
    #[arg(long, default_value_t = 0)]
    actors: usize,
    /// Of each of those actors
    #[arg(long, default_value_t = 0)]
    handlers: usize,
    /// Fire the commands
    #[arg(long)]
    fire: bool,
    /// So many a second; 0 is as many as possible
    #[arg(long, default_value_t = 0)]
    rate: u64,
}

pub(crate) async fn publish(bus: &Bus, options: &Options) -> Result<(), Failed> {
    signal::ready_and_wait().await?;
    let meter = Meter::start();
    if options.rate > 0 {
        paced(bus, options).await?;
    } else {
        from_many_tasks(bus, options).await?;
    }
    signal::done(&meter.stop(options.messages, None))
}

async fn from_many_tasks(bus: &Bus, options: &Options) -> Result<(), Failed> {
    let next = Arc::new(AtomicU64::new(0));
    let keys: Arc<[String]> = keys(options).into();
    let tasks: FuturesUnordered<_> = (0..options.window)
        .map(|_| {
            let (bus, next, messages) = (bus.clone(), Arc::clone(&next), options.messages);
            let how = (options.event, options.fire);
            let keys = Arc::clone(&keys);
            let mut work = Work::of_bytes(options.bytes);
            actix_rt::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= messages {
                        return Ok(());
                    }
                    let key = &keys[number as usize % keys.len()];
                    send(&bus, how, key, &mut work, number).await?;
                }
            })
        })
        .collect();
    ended(tasks).await
}

async fn paced(bus: &Bus, options: &Options) -> Result<(), Failed> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(options.rate)?);
    let (tasks, keys) = (FuturesUnordered::new(), keys(options));
    for number in 0..options.messages {
        ticks.tick().await;
        let (bus, how, mut work) = (bus.clone(), (options.event, options.fire), Work::of_bytes(options.bytes));
        let key = keys[0].clone();
        tasks.push(actix_rt::spawn(async move { send(&bus, how, &key, &mut work, number).await }));
    }
    ended(tasks).await
}

fn keys(options: &Options) -> Vec<String> {
    match (options.event, options.actors) {
        (true, _) => vec!["load.happened".to_owned()],
        (false, 0) => vec!["load.work".to_owned()],
        (false, actors) => crate::wide::keys(actors, options.handlers),
    }
}

async fn send(
    bus: &Bus,
    (event, fire): (bool, bool),
    key: &str,
    work: &mut Work,
    number: u64,
) -> Result<(), SendError> {
    (work.number, work.sent_at) = (number, now());
    let payload = Payload::msgpack(work);
    if event {
        bus.publish_key_with(key, payload, |o| o.as_owner()).await?;
    } else if fire {
        bus.send_key_with(key, payload, |o| o.fire()).await?;
    } else {
        bus.send_key(key, payload).await?;
    }
    Ok(())
}

type Sending = tokio::task::JoinHandle<Result<(), SendError>>;

async fn ended(mut tasks: FuturesUnordered<Sending>) -> Result<(), Failed> {
    while let Some(sent) = tasks.next().await {
        sent??;
    }
    Ok(())
}
