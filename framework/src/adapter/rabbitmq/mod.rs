//! RabbitMQ through `lapin`, without its recovery. A lost connection reconnects without a limit on tries, with growing random
//! pauses. Exchanges are declared again before anything is published. Lanes open their consumers again.

mod address;
mod consuming;
mod declare;
mod errors;
mod properties;
mod publishing;
mod reconnect;
mod restore;
mod socket;
mod writes;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::adapter::amqp::delays::Declare;
use crate::adapter::amqp::{self, Declaration, Declared, DeclaredQueue, Delays, Exchange, subscription};
use crate::adapter::rabbitmq::address::Addresses;
use crate::adapter::rabbitmq::publishing::RabbitPublisher;
use crate::adapter::rabbitmq::reconnect::Link;
use crate::broker::{
    Broker, BrokerError, Capabilities, ConnectionState, Consumer, ConsumerSpec, Names, OwnWords, Publisher, Queue,
    QueueRegistry, QueueState, Registry, ReplySink, Source, Subscription, Topology, is_direct_reply,
};
use crate::message::{Headers, Secret};
use crate::supervise::Tasks;

/// How long the broker may take to answer one request.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How to reach RabbitMQ.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RabbitMqSettings {
    /// `amqp://user:password@host:port/vhost?heartbeat=10`; several hosts, or whole addresses, separated by commas.
    pub address: Secret,
    /// The name of the connections in the broker's listings.
    pub name: String,
    /// A file with certificates (PEM) to trust beside the usual ones, for `amqps://`.
    pub ca_file: Option<PathBuf>,
    /// How long the first connection may take, for all hosts together. Default: 30 s.
    pub patience: Duration,
    /// The namespace. Default: `postrider`.
    pub names: Names,
}

impl RabbitMqSettings {
    /// Settings for this address and connection name, with defaults for the rest.
    #[must_use]
    pub fn new(address: Secret, name: impl Into<String>) -> Self {
        Self { address, name: name.into(), ca_file: None, patience: Duration::from_secs(30), names: Names::default() }
    }
}

/// RabbitMQ over up to three connections. One publishes. One consumes, so that a broker that blocks publishers still takes
/// acknowledgements. One takes queries and sends all direct replies; it is opened when it is needed. The broker closes the whole
/// connection over a made-up reply address, and then only replies are lost. All connections share one small runtime of their own,
/// so that a busy handler delays neither heartbeats nor acks.
pub struct RabbitMq {
    publishing: Arc<Link>,
    consuming: Arc<Link>,
    answering: Arc<Link>,
    /// The topology to keep in place while this process runs.
    declared: Arc<Declared>,
    delays: Arc<Delays>,
    names: Names,
    shown: String,
    runtime: Option<Runtime>,
}

impl RabbitMq {
    /// What RabbitMQ can do, with what this adapter adds. The payload limit is that of RabbitMQ 4; 3.x takes eight times as much.
    pub const CAPABILITIES: Capabilities = amqp::CAPABILITIES;

    /// Connects once. Afterwards it reconnects whenever the connection is lost.
    ///
    /// # Errors
    /// When the address is invalid, no node answers, or the broker refuses the connection.
    pub async fn connect(settings: RabbitMqSettings) -> Result<Self, BrokerError> {
        let addresses = Addresses::parse(&settings)?;
        // The client's trace shows the bytes of user and password.
        if tracing::enabled!(target: "lapin", tracing::Level::TRACE) {
            return Err(BrokerError::LogShowsSecrets { target: "lapin" });
        }
        let shown = addresses.shown();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("postrider-io")
            .enable_all()
            .build()
            .map_err(|error| BrokerError::Unreachable { address: shown.clone(), reason: error.to_string() })?;
        let declared = Arc::<Declared>::default();
        let (handle, tasks) = (runtime.handle().clone(), Tasks::default());
        let named = |what: &str| format!("{} ({what})", settings.name);
        let exchanges = Some(Arc::clone(&declared));
        let publishing = Link::new(addresses.clone(), named("publishing"), handle.clone(), tasks.clone(), exchanges);
        let answering = Link::shown_by(&publishing, addresses.clone(), named("answering"), handle.clone());
        let consuming = Link::new(addresses, named("consuming"), handle, tasks, None);
        let mut broker = Self {
            publishing,
            answering,
            delays: Delays::new(settings.names.clone(), declare_over(&consuming, &declared)),
            consuming,
            declared,
            names: settings.names,
            shown,
            runtime: Some(runtime),
        };
        let starting = async {
            broker.publishing.start().await?;
            broker.consuming.start().await
        };
        let result = timeout(settings.patience, starting).await;
        let result = result.unwrap_or_else(|_| {
            // Rounded up to a tenth of a second, for readability.
            let patience = Duration::from_millis(settings.patience.as_millis().div_ceil(100) as u64 * 100);
            let reason = format!("no answer within {patience:?}");
            Err(BrokerError::Unreachable { address: broker.shown.clone(), reason })
        });
        match result {
            Ok(()) => Ok(broker),
            Err(error) => {
                broker.shut_down();
                Err(error)
            }
        }
    }

    fn shut_down(&mut self) {
        self.publishing.shut();
        self.consuming.shut();
        self.answering.shut();
        if let Some(runtime) = self.runtime.take() {
            // This may run on a thread that must not block.
            runtime.shutdown_background();
        }
    }
}

async fn declare_and_note(link: &Link, declared: &Declared, topology: &Declaration) -> Result<(), BrokerError> {
    // A publishing connection gets no answer while the broker is short of memory.
    let (connection, _) = link.up(ANSWER_TIMEOUT).await?;
    declare::declare(&connection, topology).await?;
    declared.add(topology);
    Ok(())
}

fn declare_over(link: &Arc<Link>, declared: &Arc<Declared>) -> Declare {
    let (link, declared) = (Arc::clone(link), Arc::clone(declared));
    Box::new(move |topology| {
        let (link, declared) = (Arc::clone(&link), Arc::clone(&declared));
        Box::pin(async move { declare_and_note(&link, &declared, &topology).await })
    })
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl Broker for RabbitMq {
    fn capabilities(&self) -> Capabilities {
        Self::CAPABILITIES
    }

    fn describe(&self) -> String {
        self.shown.clone()
    }

    fn connection(&self) -> watch::Receiver<ConnectionState> {
        self.publishing.connection()
    }

    fn tasks(&self) -> Tasks {
        self.publishing.tasks.clone()
    }

    fn declare<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        let declaration = Declaration::of(topology, &self.names);
        Box::pin(async move { declare_and_note(&self.consuming, &self.declared, &declaration).await })
    }

    fn compare<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        let declaration = Declaration { bindings: Vec::new(), ..Declaration::of(topology, &self.names) };
        Box::pin(async move {
            let (connection, _) = self.consuming.up(ANSWER_TIMEOUT).await?;
            declare::compare(&connection, &declaration).await
        })
    }

    fn remove<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        let declaration = Declaration::of(topology, &self.names);
        Box::pin(async move {
            self.declared.remove(&declaration);
            let (connection, _) = self.consuming.up(ANSWER_TIMEOUT).await?;
            declare::remove(&connection, &declaration).await
        })
    }

    fn inspect<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Option<QueueState>, BrokerError>> {
        Box::pin(async move {
            // The broker closes the whole connection even over the question whether a consumer is at such an address.
            let link = if is_direct_reply(queue) { &self.answering } else { &self.consuming };
            link.begin();
            let (connection, _) = link.up(ANSWER_TIMEOUT).await?;
            declare::inspect(&connection, queue).await
        })
    }

    fn absent<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<Vec<String>, BrokerError>> {
        let Declaration { mut exchanges, queues, .. } = Declaration::of(topology, &self.names);
        Box::pin(async move {
            let mut absent = Vec::new();
            if topology.sources.contains(&Source::Delays) {
                // Where no message was ever delayed, this saves a question for each level.
                let out = self.names.delay_out();
                let (connection, _) = self.consuming.up(ANSWER_TIMEOUT).await?;
                if !declare::exchange_stands(&connection, &out).await? {
                    return Ok(vec![out]);
                }
                exchanges.retain(|exchange| exchange.name != out);
            }
            for Exchange { name, .. } in exchanges {
                let (connection, _) = self.consuming.up(ANSWER_TIMEOUT).await?;
                if !declare::exchange_stands(&connection, &name).await? {
                    absent.push(name);
                }
            }
            for DeclaredQueue { name, .. } in queues {
                if self.inspect(&name).await?.is_none() {
                    absent.push(name);
                }
            }
            Ok(absent)
        })
    }

    fn registry(&self) -> Box<dyn Registry + '_> {
        Box::new(QueueRegistry::new(self, &self.names))
    }

    fn in_own_words(&self, topology: &Topology) -> OwnWords {
        Declaration::of(topology, &self.names).in_own_words()
    }

    fn recorded_subscription(&self, json: &serde_json::Value) -> Option<Subscription> {
        subscription(&serde_json::from_value(json.clone()).ok()?, &self.names)
    }

    fn recorded_queue(&self, name: &str, arguments: &Headers) -> Queue {
        DeclaredQueue::asked(name, arguments)
    }

    fn missing(&self) -> BoxFuture<'_, Result<Option<Vec<String>>, BrokerError>> {
        Box::pin(async {
            let (connection, _) = self.consuming.up(ANSWER_TIMEOUT).await?;
            let mut missing = restore::missing(&connection, &self.declared.exchanges().exchanges).await?;
            missing.extend(self.declared.take_missing());
            Ok(Some(missing))
        })
    }

    fn restore(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(async {
            let (connection, _) = self.consuming.up(ANSWER_TIMEOUT).await?;
            restore::restore(&connection, &self.declared.all()).await
        })
    }

    fn publisher(&self, replies: ReplySink) -> BoxFuture<'_, Result<Arc<dyn Publisher>, BrokerError>> {
        Box::pin(async {
            let (publishing, answering) = (Arc::clone(&self.publishing), Arc::clone(&self.answering));
            let publisher =
                RabbitPublisher::open(publishing, answering, Arc::clone(&self.delays), self.names.clone(), replies);
            Ok(Arc::new(publisher) as Arc<dyn Publisher>)
        })
    }

    fn consume<'a>(&'a self, spec: &'a ConsumerSpec) -> BoxFuture<'a, Result<Box<dyn Consumer>, BrokerError>> {
        // While the broker is short of memory, a channel that sends answers waits like every publisher. Commands must not wait.
        let link = if spec.answers { &self.answering } else { &self.consuming };
        Box::pin(async {
            link.begin();
            let consumer = consuming::open(link, &self.consuming, spec, &self.declared, &self.names).await?;
            // The queue may have been declared anew, without the route from delays back to it.
            self.delays.forget(&spec.queue.name);
            Ok(consumer)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.consuming.close().await;
            self.answering.close().await;
            self.publishing.close().await;
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn first_byte_sent_to(scheme: &str) -> u8 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("{scheme}://u:hunter2@localhost:{}", listener.local_addr().unwrap().port());
        let listening = async {
            let mut first = [0];
            listener.accept().await.unwrap().0.read_exact(&mut first).await.unwrap();
            first[0]
        };
        tokio::select! {
            first = listening => first,
            result = RabbitMq::connect(RabbitMqSettings::new(Secret::new(address), "test")) => panic!("{:?}", result.map(|_| ())),
        }
    }

    #[tokio::test]
    async fn amqps_begins_with_a_tls_handshake_and_amqp_with_its_header() {
        assert_eq!(first_byte_sent_to("amqps").await, 0x16);
        assert_eq!(first_byte_sent_to("amqp").await, b'A');
    }
}
