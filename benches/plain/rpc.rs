//! Requests and replies on direct reply-to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection};
use postrider_benches::Failed;
use postrider_benches::measured::{Latency, Meter};
use postrider_benches::signal;
use postrider_benches::work::{Work, now};
use tokio::sync::oneshot;

use crate::promises;
use crate::publish::taken;

/// How long an answer may take in the role with the same promises.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long)]
    queue: String,
    #[arg(long)]
    messages: u64,
    #[arg(long, default_value_t = 1)]
    outstanding: u64,
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// With the properties that Postrider sends, confirmed, and returned if nobody takes it; writes are polled once
    #[arg(long)]
    promises: bool,
}

/// Answers each request with the message it carried; the queue and its messages are transient.
pub(crate) async fn serve(connection: &Connection, queue: &str, promises: bool) -> Result<(), Failed> {
    let channel = connection.create_channel().await?;
    channel.queue_declare(queue.into(), QueueDeclareOptions::default(), FieldTable::default()).await?;
    channel.basic_qos(256, BasicQosOptions::default()).await?;
    let (consume, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = channel.basic_consume(queue.into(), "".into(), consume, none).await?;
    signal::ready()?;
    let end = signal::wait();
    tokio::pin!(end);
    loop {
        let delivery = tokio::select! {
            delivery = consumer.next() => delivery,
            end = &mut end => return end,
        };
        let Some(delivery) = delivery.transpose()? else { return Err("the consumer ended".into()) };
        let work: Work = rmp_serde::from_slice(&delivery.data)?;
        let (Some(reply_to), Some(id)) = (delivery.properties.reply_to(), delivery.properties.correlation_id()) else {
            return Err("a request without a way back".into());
        };
        let properties = if promises { promises::of_answer(id) } else { BasicProperties::default() };
        let (reply, properties) = (rmp_serde::to_vec_named(&work)?, properties.with_correlation_id(id.clone()));
        let options = BasicPublishOptions::default();
        let replied = channel.basic_publish("".into(), reply_to.clone(), options, &reply, properties);
        if promises {
            // One poll puts each of the two on its way, in this order.
            replied.now_or_never().transpose()?;
            delivery.ack(BasicAckOptions::default()).now_or_never().transpose()?;
        } else {
            replied.await?;
            delivery.ack(BasicAckOptions::default()).await?;
        }
    }
}

type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<Vec<u8>>>>>;

/// Sends requests, with a fixed number outstanding.
pub(crate) async fn ask(connection: &Connection, options: &Options) -> Result<(), Failed> {
    let channel = connection.create_channel().await?;
    if options.promises {
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
    }
    let (consume, none) =
        (BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() }, FieldTable::default());
    let mut replies = channel.basic_consume("amq.rabbitmq.reply-to".into(), "".into(), consume, none).await?;
    let waiting = Waiting::default();
    let answered = Arc::clone(&waiting);
    let reading = tokio::spawn(async move {
        while let Some(Ok(reply)) = replies.next().await {
            let id = reply.properties.correlation_id().as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default();
            if let Some(tell) = answered.lock().unwrap_or_else(PoisonError::into_inner).remove(&id) {
                // The caller waits; there is no time-out here.
                let _ = tell.send(reply.data);
            }
        }
    });
    signal::ready_and_wait().await?;
    let meter = Meter::start();
    let each = options.messages / options.outstanding;
    let mut asking: FuturesUnordered<_> = (0..options.outstanding)
        .map(|lane| {
            let (channel, waiting) = (channel.clone(), Arc::clone(&waiting));
            let (queue, bytes, promises) = (options.queue.clone(), options.bytes, options.promises);
            tokio::spawn(async move {
                let (mut times, mut work) = (Vec::new(), Work::of_bytes(bytes));
                for number in 0..each {
                    work.number = lane * each + number;
                    times.push(ask_once(&channel, &queue, &waiting, &mut work, promises).await?);
                }
                Ok::<_, Failed>(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    while let Some(asked) = asking.next().await {
        times.extend(asked??);
    }
    reading.abort();
    signal::done(&meter.stop(each * options.outstanding, Latency::of(times)))
}

async fn ask_once(
    channel: &Channel,
    queue: &str,
    waiting: &Waiting,
    work: &mut Work,
    promises: bool,
) -> Result<u64, Failed> {
    let began = now();
    work.sent_at = began;
    let id = if promises { promises::id(work.number) } else { work.number.to_string().into() };
    let payload = rmp_serde::to_vec_named(work)?;
    let (tell, answer) = oneshot::channel();
    waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_string(), tell);
    let properties = if promises { promises::of_query("load.echo", &id) } else { BasicProperties::default() };
    let properties = properties.with_reply_to("amq.rabbitmq.reply-to".into()).with_correlation_id(id);
    let options = BasicPublishOptions { mandatory: promises, ..BasicPublishOptions::default() };
    let sent = channel.basic_publish("".into(), queue.into(), options, &payload, properties);
    if !promises {
        sent.await?;
        return answered(answer, work, began).await;
    }
    // Polled once to put it on its way. Its confirm is checked when the answer has arrived.
    tokio::pin!(sent);
    let written = sent.as_mut().now_or_never();
    let took = tokio::time::timeout(PATIENCE, answered(answer, work, began)).await??;
    let confirm = match written {
        Some(written) => written?,
        None => sent.await?,
    };
    taken(&confirm.await?)?;
    Ok(took)
}

async fn answered(answer: oneshot::Receiver<Vec<u8>>, asked: &Work, began: u64) -> Result<u64, Failed> {
    let answer: Work = rmp_serde::from_slice(&answer.await?)?;
    if answer.number == asked.number { Ok(now() - began) } else { Err("an answer to something else".into()) }
}
