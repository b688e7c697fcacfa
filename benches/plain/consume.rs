//! Consuming, with an acknowledgement for each message or for many.

use clap::Args;
use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ExchangeKind};
use postrider_benches::Failed;
use postrider_benches::signal;
use postrider_benches::tally::Tally;
use postrider_benches::work::Work;

/// Where events are published.
pub(crate) const EXCHANGE: &str = "plain.event";
/// The only event.
pub(crate) const EVENT: &str = "load.happened";

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long)]
    queue: String,
    #[arg(long)]
    messages: u64,
    #[arg(long, default_value_t = 256)]
    prefetch: u16,
    /// Acknowledge so many at once, without awaiting it; 0 awaits one for each
    #[arg(long, default_value_t = 0)]
    coalesce: u64,
    /// Note how long each message took
    #[arg(long)]
    timed: bool,
}

pub(crate) async fn declare(connection: &Connection, queue: &str, event: bool) -> Result<(), Failed> {
    let channel = connection.create_channel().await?;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, durable, FieldTable::default()).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments).await?;
    if event {
        let (bind, none) = (QueueBindOptions::default(), FieldTable::default());
        channel.queue_bind(queue.into(), EXCHANGE.into(), EVENT.into(), bind, none).await?;
    }
    Ok(())
}

pub(crate) async fn purge(connection: &Connection, queue: &str) -> Result<(), Failed> {
    let channel = connection.create_channel().await?;
    channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await?;
    Ok(())
}

pub(crate) async fn consume(connection: &Connection, options: &Options) -> Result<(), Failed> {
    let channel = connection.create_channel().await?;
    channel.basic_qos(options.prefetch, BasicQosOptions::default()).await?;
    let (consume, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = channel.basic_consume(options.queue.as_str().into(), "".into(), consume, none).await?;
    let tally = Tally::new(options.messages, options.timed);
    signal::ready()?;
    for number in 1..=options.messages {
        let Some(delivery) = consumer.next().await else { return Err("the consumer ended".into()) };
        let delivery = delivery?;
        let work: Work = rmp_serde::from_slice(&delivery.data)?;
        acknowledge(&delivery, number, options).await?;
        tally.count(&work);
    }
    signal::done(&tally.measured().await)
}

async fn acknowledge(delivery: &Delivery, number: u64, options: &Options) -> Result<(), Failed> {
    if options.coalesce == 0 {
        delivery.acker.ack(BasicAckOptions::default()).await?;
    } else if number.is_multiple_of(options.coalesce) || number == options.messages {
        delivery.acker.ack(BasicAckOptions { multiple: true }).await?;
    }
    Ok(())
}
