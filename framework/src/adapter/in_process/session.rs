use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::sleep_until;

use crate::adapter::in_process::Inner;
use crate::adapter::in_process::consumer;
use crate::adapter::in_process::publisher::{InProcessPublisher, Replies};
use crate::broker::{
    Broker, BrokerError, Capabilities, ConnectionState, Consumer, ConsumerSpec, Publisher, QueueState, ReplySink,
    Topology,
};

/// One app's connection to an in-process broker. What is exclusive to it ends when it is closed or dropped.
pub struct Session {
    inner: Arc<Inner>,
    id: u64,
    closed: Arc<AtomicBool>,
    connection: watch::Sender<ConnectionState>,
    replies: Replies,
}

impl Session {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        let id = inner.lock().next_id();
        let closed = Arc::new(AtomicBool::new(false));
        // Without a runtime there is nobody who could wait either.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(expire(Arc::downgrade(&inner), Arc::clone(&closed)));
        }
        Self {
            inner,
            id,
            closed,
            connection: watch::channel(ConnectionState { up: true, epoch: 1, blocked: false }).0,
            replies: Replies::default(),
        }
    }

    fn open(&self) -> Result<(), BrokerError> {
        if self.closed.load(Ordering::Acquire) { Err(BrokerError::Stopped) } else { Ok(()) }
    }

    fn shut(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut state = self.inner.lock();
        let exclusive: Vec<String> = state
            .queues
            .values()
            .filter(|queue| queue.owner == Some(self.id))
            .map(|queue| queue.declared.name.clone())
            .collect();
        exclusive.iter().for_each(|queue| state.delete_queue(queue));
        state.close_session(self.id);
        drop(state);
        self.inner.lock().earlier.notify_waiters();
        self.connection.send_replace(ConnectionState { up: false, epoch: 1, blocked: false });
        self.replies.lose_all();
        self.inner.changed();
    }
}

/// Expires messages at their time, also in queues that nobody consumes, for as long as the session is open.
async fn expire(inner: Weak<Inner>, closed: Arc<AtomicBool>) {
    while let Some(inner) = inner.upgrade() {
        let earlier = Arc::clone(&inner.lock().earlier);
        // From here on every call is heard.
        let mut woken = std::pin::pin!(earlier.notified());
        woken.as_mut().enable();
        if closed.load(Ordering::Acquire) {
            return;
        }
        let next = inner.lock().expire();
        inner.changed();
        drop(inner);
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
        Capabilities::new(false, true)
    }

    fn describe(&self) -> String {
        "in-process broker".into()
    }

    fn connection(&self) -> watch::Receiver<ConnectionState> {
        self.connection.subscribe()
    }

    fn declare<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async {
            self.open()?;
            self.inner.lock().declare(topology, self.id)
        })
    }

    fn remove<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async {
            self.open()?;
            self.inner.lock().remove(topology);
            self.inner.changed();
            Ok(())
        })
    }

    fn inspect<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Option<QueueState>, BrokerError>> {
        Box::pin(async move {
            self.open()?;
            let mut state = self.inner.lock();
            state.dispatch(queue);
            Ok(state
                .queues
                .get(queue)
                .map(|queue| QueueState { ready: queue.ready.len() as u64, consumers: queue.subscribers.len() as u64 }))
        })
    }

    fn exchange_stands<'a>(&'a self, exchange: &'a str) -> BoxFuture<'a, Result<bool, BrokerError>> {
        Box::pin(async move {
            self.open()?;
            Ok(self.inner.lock().has_exchange(exchange))
        })
    }

    fn publisher(&self, replies: ReplySink) -> BoxFuture<'_, Result<Arc<dyn Publisher>, BrokerError>> {
        Box::pin(async {
            self.open()?;
            let address = self.replies.register(self.inner.lock().next_id(), replies);
            let (inner, closed) = (Arc::clone(&self.inner), Arc::clone(&self.closed));
            Ok(Arc::new(InProcessPublisher::new(inner, closed, address)) as Arc<dyn Publisher>)
        })
    }

    fn consume<'a>(&'a self, spec: &'a ConsumerSpec) -> BoxFuture<'a, Result<Box<dyn Consumer>, BrokerError>> {
        Box::pin(async {
            self.open()?;
            consumer::open(&self.inner, spec, self.id, &self.closed)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.shut() })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shut();
    }
}
