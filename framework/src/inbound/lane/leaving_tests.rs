//! What a lane does while it leaves and the broker is slow to answer its cancel or to confirm.

use std::sync::Mutex;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, pending, ready};

use super::property_tests::{handled, settings, spec};
use super::*;
use crate::broker::any::{self, NoBroker, Told};
use crate::broker::{
    Addressed, Broker, BrokerError, Capabilities, ConnectionState, Consumer, ConsumerSpec, Delivery, DeliveryChannel,
    Publication, Publisher, QueueRegistry, QueueState, Receipt, Registry, ReplySink, Topology,
};
use crate::handler::{Asked, Outcome};
use crate::message::Kind;

/// A consumer with one delivery, and whether its cancel is ever answered.
struct One(Option<Delivery>, bool);

impl Consumer for One {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Delivery, BrokerError>>> {
        self.0.take().map_or(Poll::Pending, |delivery| Poll::Ready(Some(Ok(delivery))))
    }

    fn cancel(&mut self) -> BoxFuture<'_, ()> {
        if self.1 { Box::pin(ready(())) } else { Box::pin(pending()) }
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }

    fn is_live(&self) -> bool {
        true
    }
}

async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::task::yield_now().await;
    }
}

/// A broker that confirms when told to, and counts publishes and inspections.
#[derive(Clone)]
struct Late {
    confirms: watch::Sender<bool>,
    published: watch::Sender<u32>,
    inspected: watch::Sender<u32>,
}

impl Broker for Late {
    fn capabilities(&self) -> Capabilities {
        NoBroker.capabilities()
    }

    fn describe(&self) -> String {
        "late".into()
    }

    fn connection(&self) -> watch::Receiver<ConnectionState> {
        NoBroker.connection()
    }

    fn declare<'a>(&'a self, _: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(ready(Ok(())))
    }

    fn compare<'a>(&'a self, _: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(ready(Ok(())))
    }

    fn remove<'a>(&'a self, _: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(ready(Ok(())))
    }

    fn inspect<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<QueueState>, BrokerError>> {
        self.inspected.send_modify(|times| *times += 1);
        Box::pin(ready(Ok(None)))
    }

    fn absent<'a>(&'a self, _: &'a Topology) -> BoxFuture<'a, Result<Vec<String>, BrokerError>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn registry(&self) -> Box<dyn Registry + '_> {
        Box::new(QueueRegistry::new(self, &any::NAMES))
    }

    fn publisher(&self, _: ReplySink) -> BoxFuture<'_, Result<Arc<dyn Publisher>, BrokerError>> {
        Box::pin(ready(Ok(Arc::new(self.clone()) as Arc<dyn Publisher>)))
    }

    fn consume<'a>(&'a self, _: &'a ConsumerSpec) -> BoxFuture<'a, Result<Box<dyn Consumer>, BrokerError>> {
        Box::pin(ready(Ok(Box::new(NoBroker) as Box<dyn Consumer>)))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }
}

impl Publisher for Late {
    fn publish(&self, _: Addressed, _: Instant) -> BoxFuture<'static, Result<Publication, BrokerError>> {
        self.published.send_modify(|times| *times += 1);
        let mut confirms = self.confirms.subscribe();
        Box::pin(async move {
            let _ = confirms.wait_for(|confirms| *confirms).await;
            Ok(Publication::Confirmed)
        })
    }
}

#[test]
fn a_stop_removes_the_note_of_a_suspect_that_was_on_its_way_to_the_broker() {
    actix::System::new().block_on(async {
        let (inbox, channel) = (Arc::default(), Arc::<Told>::default());
        let late =
            Late { confirms: watch::channel(false).0, published: watch::channel(0).0, inspected: watch::channel(0).0 };
        let broker: Arc<dyn Broker> = Arc::new(late.clone());
        let mut settings = settings(&inbox, spec(Kind::Command)).await;
        settings.notes.broker = Arc::clone(&broker);
        let stopping = settings.settler.stopping.clone();
        let mut delivery = delivery(&channel);
        (delivery.redelivered, delivery.delivery_count) = (true, Some(3));
        let mut lane = LaneLoop::new(settings);
        let test = async {
            until(|| *late.published.borrow() == 1).await;
            stopping.cancel();
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            late.confirms.send_replace(true);
        };
        let both = futures::future::join(lane.consume(Box::new(One(Some(delivery), true))), test);
        let ended = tokio::time::timeout(Duration::from_secs(10), both).await.expect("it stops");
        assert_eq!(ended.0, Ended::Stopped);
        assert_eq!(*channel.given_back.lock().unwrap(), [1]);
        assert_eq!(*late.inspected.borrow(), 2, "once for those that were there, once to remove its own");
    });
}

fn delivery(channel: &Arc<Told>) -> Delivery {
    Delivery {
        envelope: Arc::new(any::command("m")),
        redelivered: false,
        delivery_count: None,
        receipt: Receipt::new(1, Arc::clone(channel) as Arc<dyn DeliveryChannel>),
    }
}

#[test]
fn outcomes_and_the_stop_are_heard_while_the_broker_does_not_answer_to_a_cancel() {
    actix::System::new().block_on(async {
        let (inbox, channel) = (Arc::<Mutex<Vec<Deliver>>>::default(), Arc::<Told>::default());
        let (control, pausing) = watch::channel(Control::default());
        let mut settings = settings(&inbox, spec(Kind::Command)).await;
        settings.control = pausing;
        let (stopping, abandon) = (settings.settler.stopping.clone(), settings.abandon.clone());
        let consumer = One(Some(delivery(&channel)), false);
        let mut lane = LaneLoop::new(settings);
        let test = async {
            until(|| !inbox.lock().unwrap().is_empty()).await;
            let delivered = inbox.lock().unwrap().remove(0);
            control.send_modify(|control| control.paused = true);
            // The lane leaves now, and waits for the broker.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            for arrival in delivered.arrivals {
                arrival.ticket.finish(handled(Outcome::Done(None), Asked::OneWay), None);
            }
            until(|| *channel.acked.lock().unwrap() == [1]).await;
            stopping.cancel();
            abandon.cancel();
        };
        let both = futures::future::join(lane.consume(Box::new(consumer)), test);
        let ended = tokio::time::timeout(Duration::from_secs(10), both).await.expect("it does not wait for the broker");
        assert_ne!(ended.0, Ended::Lost);
    });
}
