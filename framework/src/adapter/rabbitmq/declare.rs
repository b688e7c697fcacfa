//! Declares, inspects and removes topology, always on a throw-away channel: a refused declaration closes its channel.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::try_join_all;
use lapin::options::{
    ConfirmSelectOptions, ExchangeBindOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, ExchangeUnbindOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use tokio::time::{Instant, timeout};

use crate::adapter::amqp::{
    Binding, Declaration, DeclaredQueue, Destination, Exchange, ExchangeKind, inequivalent_exchange,
};
use crate::adapter::rabbitmq::ANSWER_TIMEOUT;
use crate::adapter::rabbitmq::errors::{code, declaring, on_channel};
use crate::adapter::rabbitmq::properties::{short, table_to_client};
use crate::broker::{BrokerError, QueueState};

/// How many bindings are declared at once before their answers are awaited.
const BINDINGS_AT_ONCE: usize = 64;

/// How long a channel for publishing may take to open, while the broker does not block its connection.
const OPENED_WITHIN: Duration = Duration::from_secs(30);
/// How long the broker may take to read that such a connection is closed.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);

/// Waits for an answer of the broker, within [`ANSWER_TIMEOUT`].
pub(super) async fn answered<T>(
    what: &str,
    answer: impl Future<Output = lapin::Result<T>>,
) -> Result<lapin::Result<T>, BrokerError> {
    timeout(ANSWER_TIMEOUT, answer)
        .await
        .map_err(|_| BrokerError::TimedOut { what: what.to_owned(), seconds: ANSWER_TIMEOUT.as_secs() })
}

pub(super) async fn channel(connection: &Connection) -> Result<Channel, BrokerError> {
    answered("open a channel", connection.create_channel()).await?.map_err(|error| on_channel(&error))
}

/// Waits for an answer of the broker: as long as it blocks the connection, otherwise within the usual timeout. On a blocked
/// connection a second request would only wait behind the first.
pub(super) async fn answered_unless_blocked<T>(
    connection: &Connection,
    what: &str,
    answer: impl Future<Output = lapin::Result<T>>,
) -> Result<lapin::Result<T>, BrokerError> {
    tokio::pin!(answer);
    loop {
        if let Ok(answer) = timeout(ANSWER_TIMEOUT, &mut answer).await {
            return Ok(answer);
        }
        if !connection.status().blocked() || !connection.status().connected() {
            return Err(BrokerError::TimedOut { what: what.to_owned(), seconds: ANSWER_TIMEOUT.as_secs() });
        }
    }
}

/// As [`confirming`], but it waits longer, because a second attempt would only wait behind the first one. A connection on which
/// no channel opens within [`OPENED_WITHIN`] is closed, unless the broker says that it blocks it: RabbitMQ also holds up a
/// connection of which too many messages wait for a queue that confirms nothing, and does not say so.
pub(super) async fn confirming_at_last(connection: &Connection) -> Result<Channel, BrokerError> {
    let opening = async {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    };
    tokio::pin!(opening);
    let mut since = Instant::now();
    loop {
        if let Ok(opened) = timeout(ANSWER_TIMEOUT, &mut opening).await {
            return opened.map_err(|error| on_channel(&error));
        }
        let status = connection.status();
        if !status.connected() {
            return Err(BrokerError::Lost { reason: "the connection ended before a channel was open".into() });
        }
        if status.blocked() {
            since = Instant::now();
        } else if since.elapsed() >= OPENED_WITHIN {
            tracing::warn!(
                "the broker opens no channel on this connection; it is closed, and what waits is sent on another one"
            );
            // The broker reads this only when it goes on. The client stops using the connection at once.
            let _ = timeout(CLOSED_WITHIN, connection.close(200, "OK".into())).await;
            return Err(BrokerError::TimedOut { what: "open a channel".into(), seconds: OPENED_WITHIN.as_secs() });
        }
    }
}

/// Opens a channel that confirms publications.
pub(super) async fn confirming(connection: &Connection) -> Result<Channel, BrokerError> {
    let channel = channel(connection).await?;
    let selected = answered("confirm publications", channel.confirm_select(ConfirmSelectOptions::default())).await?;
    selected.map_err(|error| on_channel(&error))?;
    Ok(channel)
}

pub(super) async fn done(channel: &Channel) {
    if channel.status().connected() {
        // The channel is not used again, so a failed close does no harm.
        let _ = timeout(ANSWER_TIMEOUT, channel.close(200, "OK".into())).await;
    }
}

pub(super) async fn declare(connection: &Connection, topology: &Declaration) -> Result<(), BrokerError> {
    declare_with(connection, topology, false).await
}

/// As [`declare`], but a refused declaration is an error even if the exchange or queue exists: its arguments are unknown.
pub(super) async fn compare(connection: &Connection, topology: &Declaration) -> Result<(), BrokerError> {
    declare_with(connection, topology, true).await
}

async fn declare_with(connection: &Connection, topology: &Declaration, compares: bool) -> Result<(), BrokerError> {
    let mut declaring = Declaring { connection, channel: channel(connection).await?, compares, looks_first: false };
    let result = declaring.all(topology).await;
    done(&declaring.channel).await;
    result
}

/// Whether the log has said that this user may not declare.
static SAID: AtomicBool = AtomicBool::new(false);

/// Declares a topology. A user who may not declare uses the exchanges and queues that exist.
struct Declaring<'a> {
    connection: &'a Connection,
    channel: Channel,
    /// Whether an existing exchange or queue is no substitute for a refused declaration.
    compares: bool,
    /// Whether a declaration was refused. From then on each exchange and queue is looked up before it is declared.
    looks_first: bool,
}

impl Declaring<'_> {
    async fn all(&mut self, topology: &Declaration) -> Result<(), BrokerError> {
        for exchange in &topology.exchanges {
            self.exchange(exchange).await?;
        }
        for queue in topology.queues.iter().filter(|queue| !queue.standing) {
            self.queue(queue).await?;
        }
        // Bindings depend only on what is declared by now, and the broker answers in order.
        for bindings in topology.bindings.chunks(BINDINGS_AT_ONCE) {
            let bound: Vec<_> = bindings.iter().map(|binding| bind(&self.channel, binding)).collect();
            try_join_all(bound).await?;
        }
        Ok(())
    }

    async fn exchange(&mut self, exchange: &Exchange) -> Result<(), BrokerError> {
        if !self.looks_first {
            match declare_exchange(&self.channel, exchange).await {
                Err(BrokerError::Forbidden { reason }) if !self.compares => self.refused(&reason).await?,
                other => return other,
            }
        }
        if look_at_exchange(&self.channel, &exchange.name).await?.is_ok() {
            return Ok(());
        }
        self.channel = channel(self.connection).await?;
        let declared = declare_exchange(&self.channel, exchange).await;
        declared.map_err(|error| does_not_stand(error, &format!("exchange {:?}", exchange.name)))
    }

    async fn queue(&mut self, queue: &DeclaredQueue) -> Result<(), BrokerError> {
        let named = format!("queue {:?}", queue.name);
        // No other user can have declared a queue that belongs to this connection.
        if queue.exclusive || !self.looks_first {
            match declare_queue(&self.channel, queue).await {
                Err(BrokerError::Forbidden { reason }) if !queue.exclusive && !self.compares => {
                    self.refused(&reason).await?;
                }
                Err(error) if queue.exclusive => return Err(does_not_stand(error, &named)),
                other => return other,
            }
        }
        if look_at_queue(&self.channel, &queue.name).await?.is_ok() {
            return Ok(());
        }
        self.channel = channel(self.connection).await?;
        declare_queue(&self.channel, queue).await.map_err(|error| does_not_stand(error, &named))
    }

    /// A refusal closes the channel: opens a new one.
    async fn refused(&mut self, reason: &str) -> Result<(), BrokerError> {
        self.looks_first = true;
        self.channel = channel(self.connection).await?;
        if !SAID.swap(true, Ordering::Relaxed) {
            tracing::info!(reason, "this user may not declare; what stands is used as it is, whatever its arguments");
        }
        Ok(())
    }
}

/// The error for an exchange or queue that does not exist and may not be declared.
fn does_not_stand(error: BrokerError, what: &str) -> BrokerError {
    match error {
        BrokerError::Forbidden { reason } => {
            let remedy = "let an administrator run `topology apply`, or give the user the right to configure it";
            BrokerError::Forbidden {
                reason: format!("{what} does not stand and may not be declared ({reason}); {remedy}"),
            }
        }
        other => other,
    }
}

async fn declare_exchange(channel: &Channel, exchange: &Exchange) -> Result<(), BrokerError> {
    let kind = match exchange.kind {
        ExchangeKind::Direct => lapin::ExchangeKind::Direct,
        ExchangeKind::Topic => lapin::ExchangeKind::Topic,
        ExchangeKind::Fanout => lapin::ExchangeKind::Fanout,
    };
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let arguments = table_to_client(&exchange.arguments)?;
    let name = short("an exchange's name", &exchange.name)?;
    let declared = answered("declare an exchange", channel.exchange_declare(name, kind, options, arguments)).await?;
    declared.map_err(|error| match declaring(&error, String::new()) {
        BrokerError::Inequivalent { reason, .. } => inequivalent_exchange(exchange, reason),
        other => other,
    })
}

async fn declare_queue(channel: &Channel, queue: &DeclaredQueue) -> Result<(), BrokerError> {
    let options = QueueDeclareOptions {
        durable: !queue.exclusive,
        exclusive: queue.exclusive,
        auto_delete: queue.exclusive,
        ..QueueDeclareOptions::default()
    };
    let arguments = table_to_client(&queue.arguments)?;
    let name = short("a queue's name", &queue.name)?;
    let declared = answered("declare a queue", channel.queue_declare(name, options, arguments)).await?;
    declared.map(|_| ()).map_err(|error| declaring(&error, format!("queue {:?}", queue.name)))
}

async fn bind(channel: &Channel, binding: &Binding) -> Result<(), BrokerError> {
    let (source, key) = (short("an exchange's name", &binding.source)?, short("a routing key", &binding.routing_key)?);
    let bound = match &binding.destination {
        Destination::Queue(queue) => {
            let queue = short("a queue's name", queue)?;
            answered(
                "bind a queue",
                channel.queue_bind(queue, source, key, QueueBindOptions::default(), FieldTable::default()),
            )
            .await?
        }
        Destination::Exchange(exchange) => {
            let exchange = short("an exchange's name", exchange)?;
            let options = ExchangeBindOptions::default();
            answered("bind an exchange", channel.exchange_bind(exchange, source, key, options, FieldTable::default()))
                .await?
        }
    };
    bound.map_err(|error| on_channel(&error))
}

pub(super) async fn remove(connection: &Connection, topology: &Declaration) -> Result<(), BrokerError> {
    let channel = channel(connection).await?;
    let result = remove_on(&channel, topology).await;
    done(&channel).await;
    result
}

async fn remove_on(channel: &Channel, topology: &Declaration) -> Result<(), BrokerError> {
    for binding in &topology.bindings {
        let (source, key) =
            (short("an exchange's name", &binding.source)?, short("a routing key", &binding.routing_key)?);
        let unbound = match &binding.destination {
            Destination::Queue(queue) => {
                let queue = short("a queue's name", queue)?;
                answered("unbind a queue", channel.queue_unbind(queue, source, key, FieldTable::default())).await?
            }
            Destination::Exchange(exchange) => {
                let exchange = short("an exchange's name", exchange)?;
                let options = ExchangeUnbindOptions::default();
                answered(
                    "unbind an exchange",
                    channel.exchange_unbind(exchange, source, key, options, FieldTable::default()),
                )
                .await?
            }
        };
        unbound.map_err(|error| on_channel(&error))?;
    }
    for queue in &topology.queues {
        let name = short("a queue's name", &queue.name)?;
        let deleted = answered("delete a queue", channel.queue_delete(name, QueueDeleteOptions::default())).await?;
        deleted.map_err(|error| on_channel(&error))?;
    }
    for exchange in &topology.exchanges {
        let name = short("an exchange's name", &exchange.name)?;
        let deleted =
            answered("delete an exchange", channel.exchange_delete(name, ExchangeDeleteOptions::default())).await?;
        deleted.map_err(|error| on_channel(&error))?;
    }
    Ok(())
}

/// Asks for a queue without declaring it. If it does not exist, the broker closes the channel.
async fn look_at_queue(channel: &Channel, queue: &str) -> Result<lapin::Result<lapin::Queue>, BrokerError> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let name = short("a queue's name", queue)?;
    answered("look at a queue", channel.queue_declare(name, options, FieldTable::default())).await
}

/// Asks for an exchange without declaring it. If it does not exist, the broker closes the channel.
pub(super) async fn look_at_exchange(channel: &Channel, exchange: &str) -> Result<lapin::Result<()>, BrokerError> {
    let options = ExchangeDeclareOptions { passive: true, durable: true, ..ExchangeDeclareOptions::default() };
    let name = short("an exchange's name", exchange)?;
    let kind = lapin::ExchangeKind::Fanout;
    answered("look at an exchange", channel.exchange_declare(name, kind, options, FieldTable::default())).await
}

pub(super) async fn inspect(connection: &Connection, queue: &str) -> Result<Option<QueueState>, BrokerError> {
    let channel = channel(connection).await?;
    let found = look_at_queue(&channel, queue).await?;
    done(&channel).await;
    match found {
        Ok(queue) => {
            Ok(Some(QueueState { ready: queue.message_count().into(), consumers: queue.consumer_count().into() }))
        }
        Err(error) if code(&error) == Some(404) => Ok(None),
        Err(error) => Err(declaring(&error, format!("queue {queue:?}"))),
    }
}

pub(super) async fn exchange_stands(connection: &Connection, exchange: &str) -> Result<bool, BrokerError> {
    let channel = channel(connection).await?;
    let found = look_at_exchange(&channel, exchange).await?;
    done(&channel).await;
    match found {
        Ok(()) => Ok(true),
        Err(error) if code(&error) == Some(404) => Ok(false),
        Err(error) => Err(on_channel(&error)),
    }
}
