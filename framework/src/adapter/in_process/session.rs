//! The connection of one app to an in-process broker.

use std::sync::{Arc, MutexGuard, Weak};

use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::sleep_until;

use crate::adapter::amqp::{Declaration, Declared, DeclaredQueue, Delays, subscription};
use crate::adapter::in_process::connection::Connection;
use crate::adapter::in_process::consumer;
use crate::adapter::in_process::faults::{FaultKind, Script};
use crate::adapter::in_process::publisher::InProcessPublisher;
use crate::adapter::in_process::state::State;
use crate::adapter::in_process::{InProcess, Inner};
use crate::broker::{
    Broker, BrokerError, Capabilities, ConnectionState, Consumer, ConsumerSpec, Names, OwnWords, Publisher, Queue,
    QueueRegistry, QueueState, Registry, ReplySink, Subscription, Topology,
};
use crate::message::Headers;
use crate::supervise::{Tasks, supervise};

/// One app's connection to an in-process broker. Its exclusive queues end when it is closed or dropped.
pub struct Session {
    connection: Arc<Connection>,
    delays: Arc<Delays>,
    /// The topology to keep in place while the fault script deletes parts of it.
    declared: Arc<Declared>,
    tasks: Tasks,
}

impl Session {
    pub(super) fn new(inner: Arc<Inner>, names: Names, faults: Option<Script>, stops: Arc<Notify>) -> Self {
        let (connection, tasks) = (Connection::new(inner, names.clone(), faults, stops), Tasks::default());
        let declared = Arc::<Declared>::default();
        let (declares, notes) = (Arc::clone(&connection), Arc::clone(&declared));
        let declare = move |topology: Declaration| {
            let (connection, declared) = (Arc::clone(&declares), Arc::clone(&notes));
            let declare = async move {
                connection.open()?;
                connection.inner.lock().declare(&topology, connection.id)?;
                declared.add(&topology);
                Ok(())
            };
            Box::pin(declare) as BoxFuture<'static, _>
        };
        let delays = Delays::new(names, Box::new(declare));
        // Without a runtime no task can expire messages on time.
        if let Ok(runtime) = Handle::try_current() {
            let expiring = Arc::downgrade(&connection);
            let expiring = async move || expire(Weak::clone(&expiring)).await;
            runtime.spawn(supervise(tasks.clone(), "expiry of messages".into(), std::future::pending(), expiring));
        }
        Self { connection, delays, declared, tasks }
    }

    /// The broker's state, while the session is open.
    fn state(&self) -> Result<MutexGuard<'_, State>, BrokerError> {
        self.connection.open()?;
        Ok(self.connection.inner.lock())
    }
}

/// Expires messages on time while the session is open, also in queues without consumers.
async fn expire(connection: Weak<Connection>) {
    while let Some(open) = connection.upgrade() {
        let earlier = Arc::clone(&open.inner.lock().earlier);
        // Enabled before the checks below, so that no notification is missed.
        let mut woken = std::pin::pin!(earlier.notified());
        woken.as_mut().enable();
        if open.is_closed() {
            return;
        }
        let next = open.inner.lock().expire();
        open.inner.changed();
        drop(open);
        match next {
            Some(next) => tokio::select! {
                () = sleep_until(next) => {}
                () = woken => {}
            },
            None => woken.await,
        }
    }
}

impl Broker for Session {
    fn capabilities(&self) -> Capabilities {
        InProcess::CAPABILITIES
    }

    fn describe(&self) -> String {
        "in-process broker".into()
    }

    fn tasks(&self) -> Tasks {
        self.tasks.clone()
    }

    fn connection(&self) -> watch::Receiver<ConnectionState> {
        self.connection.state.subscribe()
    }

    fn declare<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        let declaration = Declaration::of(topology, &self.connection.names);
        Box::pin(async move {
            self.state()?.declare(&declaration, self.connection.id)?;
            self.declared.add(&declaration);
            Ok(())
        })
    }

    fn compare<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        let declaration = Declaration { bindings: Vec::new(), ..Declaration::of(topology, &self.connection.names) };
        Box::pin(async move { self.state()?.declare(&declaration, self.connection.id) })
    }

    fn remove<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        let declaration = Declaration::of(topology, &self.connection.names);
        Box::pin(async move {
            self.declared.remove(&declaration);
            self.state()?.remove(&declaration);
            self.connection.inner.changed();
            Ok(())
        })
    }

    fn inspect<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Option<QueueState>, BrokerError>> {
        Box::pin(async move {
            let mut state = self.state()?;
            state.dispatch(queue);
            Ok(state
                .queues
                .get(queue)
                .map(|queue| QueueState { ready: queue.ready.len() as u64, consumers: queue.subscribers.len() as u64 }))
        })
    }

    fn absent<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<Vec<String>, BrokerError>> {
        let Declaration { exchanges, queues, .. } = Declaration::of(topology, &self.connection.names);
        Box::pin(async move {
            let state = self.state()?;
            let exchanges = exchanges.into_iter().map(|it| it.name).filter(|name| !state.has_exchange(name));
            let queues = queues.into_iter().map(|it| it.name).filter(|name| !state.queues.contains_key(name));
            Ok(exchanges.chain(queues).collect())
        })
    }

    fn missing(&self) -> BoxFuture<'_, Result<Option<Vec<String>>, BrokerError>> {
        Box::pin(async {
            let state = self.state()?;
            let exchanges = self.declared.exchanges().exchanges.into_iter().map(|exchange| exchange.name);
            let missing = exchanges.filter(|name| !state.has_exchange(name)).collect();
            let script = self.connection.faults.as_ref();
            Ok(script.is_some_and(|script| script.may(FaultKind::SourceDeleted)).then_some(missing))
        })
    }

    fn restore(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(async {
            let Declaration { exchanges, bindings, .. } = self.declared.all();
            let exchanges = Declaration { exchanges, ..Declaration::default() };
            let one_by_one =
                bindings.into_iter().map(|binding| Declaration { bindings: vec![binding], ..Declaration::default() });
            let mut state = self.state()?;
            let results =
                std::iter::once(exchanges).chain(one_by_one).map(|one| state.declare(&one, self.connection.id));
            // One that fails does not prevent the others.
            results.fold(Ok(()), Result::and)
        })
    }

    fn registry(&self) -> Box<dyn Registry + '_> {
        Box::new(QueueRegistry::new(self, &self.connection.names))
    }

    fn in_own_words(&self, topology: &Topology) -> OwnWords {
        Declaration::of(topology, &self.connection.names).in_own_words()
    }

    fn recorded_subscription(&self, json: &serde_json::Value) -> Option<Subscription> {
        subscription(&serde_json::from_value(json.clone()).ok()?, &self.connection.names)
    }

    fn recorded_queue(&self, name: &str, arguments: &Headers) -> Queue {
        DeclaredQueue::asked(name, arguments)
    }

    fn publisher(&self, replies: ReplySink) -> BoxFuture<'_, Result<Arc<dyn Publisher>, BrokerError>> {
        Box::pin(async {
            let number = self.state()?.next_id();
            let address = self.connection.replies.register(number, Arc::clone(&replies));
            let (connection, delays) = (Arc::clone(&self.connection), Arc::clone(&self.delays));
            Ok(Arc::new(InProcessPublisher::new(connection, delays, address, replies)) as Arc<dyn Publisher>)
        })
    }

    fn consume<'a>(&'a self, spec: &'a ConsumerSpec) -> BoxFuture<'a, Result<Box<dyn Consumer>, BrokerError>> {
        Box::pin(async {
            self.connection.open()?;
            let consumer = consumer::open(&self.connection, &self.declared, spec)?;
            // The queue may have been created anew, without the binding back from its delays.
            self.delays.forget(&spec.queue.name);
            Ok(consumer)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.connection.shut() })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.shut();
    }
}
