//! Publishing with a window of confirms.

use std::collections::VecDeque;
use std::time::Duration;

use clap::Args;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, PublisherConfirm};
use postrider_benches::Failed;
use postrider_benches::measured::Meter;
use postrider_benches::signal;
use postrider_benches::work::{Work, now};

use crate::consume::{EVENT, EXCHANGE};
use crate::promises;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The queue, or nothing for an event
    #[arg(long, default_value = "")]
    queue: String,
    #[arg(long)]
    messages: u64,
    #[arg(long, default_value_t = 256)]
    window: usize,
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// So many a second; 0 is as many as possible
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Poll each write once instead of awaiting it, and await confirms in bulk
    #[arg(long)]
    polled: bool,
    /// With the properties that Postrider sends, and to be returned if nobody takes it
    #[arg(long)]
    promises: bool,
}

pub(crate) async fn publish(connection: &Connection, options: &Options) -> Result<(), Failed> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    signal::ready_and_wait().await?;
    let meter = Meter::start();
    if options.rate > 0 {
        paced(&channel, options).await?;
    } else if options.polled {
        polled(&channel, options).await?;
    } else {
        windowed(&channel, options).await?;
    }
    signal::done(&meter.stop(options.messages, None))
}

fn properties(options: &Options, number: u64) -> BasicProperties {
    if options.promises {
        return promises::of_command("load.work", &promises::id(number));
    }
    BasicProperties::default().with_delivery_mode(2).with_content_type("application/vnd.msgpack".into())
}

fn encoded(work: &mut Work, number: u64) -> Result<Vec<u8>, Failed> {
    (work.number, work.sent_at) = (number, now());
    Ok(rmp_serde::to_vec_named(work)?)
}

/// The usual way: await the write, keep the confirm, and await the oldest when the window is full.
async fn windowed(channel: &Channel, options: &Options) -> Result<(), Failed> {
    let mut work = Work::of_bytes(options.bytes);
    let mut open = VecDeque::with_capacity(options.window);
    for number in 0..options.messages {
        if open.len() == options.window
            && let Some(oldest) = open.pop_front()
        {
            taken(&oldest.await?)?;
        }
        let payload = encoded(&mut work, number)?;
        open.push_back(write(channel, options, number, &payload).await?);
    }
    for confirm in open {
        taken(&confirm.await?)?;
    }
    Ok(())
}

/// Faster: a write is polled once, which puts it on its way, and confirms are awaited together.
async fn polled(channel: &Channel, options: &Options) -> Result<(), Failed> {
    let mut work = Work::of_bytes(options.bytes);
    let mut open = FuturesUnordered::new();
    for number in 0..options.messages {
        while open.len() >= options.window
            && let Some(confirmed) = open.next().await
        {
            taken(&confirmed?)?;
            while let Some(Some(confirmed)) = open.next().now_or_never() {
                taken(&confirmed?)?;
            }
        }
        let payload = encoded(&mut work, number)?;
        let mut confirm = async move { write(channel, options, number, &payload).await?.await }.boxed_local();
        match confirm.as_mut().now_or_never() {
            Some(confirmed) => taken(&confirmed?)?,
            None => open.push(confirm),
        }
    }
    while let Some(confirmed) = open.next().await {
        taken(&confirmed?)?;
    }
    Ok(())
}

/// At a fixed rate; confirms are not awaited meanwhile.
async fn paced(channel: &Channel, options: &Options) -> Result<(), Failed> {
    let mut work = Work::of_bytes(options.bytes);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(options.rate)?);
    let mut open = VecDeque::new();
    for number in 0..options.messages {
        ticks.tick().await;
        let payload = encoded(&mut work, number)?;
        open.push_back(write(channel, options, number, &payload).await?);
        if open.len() == options.window
            && let Some(oldest) = open.pop_front()
        {
            taken(&oldest.await?)?;
        }
    }
    for confirm in open {
        taken(&confirm.await?)?;
    }
    Ok(())
}

async fn write(channel: &Channel, options: &Options, number: u64, payload: &[u8]) -> lapin::Result<PublisherConfirm> {
    let (exchange, key) = if options.queue.is_empty() { (EXCHANGE, EVENT) } else { ("", options.queue.as_str()) };
    let how = BasicPublishOptions { mandatory: options.promises, ..BasicPublishOptions::default() };
    channel.basic_publish(exchange.into(), key.into(), how, payload, properties(options, number)).await
}

pub(crate) fn taken(confirmation: &Confirmation) -> Result<(), Failed> {
    // With a message in it the broker has given that back.
    if matches!(confirmation, Confirmation::Ack(None)) {
        Ok(())
    } else {
        Err("the broker did not take a message".into())
    }
}
