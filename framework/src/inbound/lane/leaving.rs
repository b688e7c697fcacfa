//! What a lane does while the broker does not answer that it sends no more.

use std::sync::Mutex;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::{BoxFuture, pending, ready};

use super::properties::{handled, settings, spec};
use super::*;
use crate::broker::any::Told;
use crate::broker::{BrokerError, Consumer, Delivery, DeliveryChannel, Names, Origin, Properties, Receipt};
use crate::handler::{Asked, Outcome};
use crate::message::Kind;

/// A consumer with one delivery, that is never told that it is cancelled.
struct Frozen(Option<Delivery>);

impl Consumer for Frozen {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Delivery, BrokerError>>> {
        self.0.take().map_or(Poll::Pending, |delivery| Poll::Ready(Some(Ok(delivery))))
    }

    fn cancel(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(pending())
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

#[test]
fn outcomes_and_the_stop_are_heard_while_the_broker_does_not_answer_to_a_cancel() {
    actix::System::new().block_on(async {
        let (inbox, channel) = (Arc::<Mutex<Vec<Deliver>>>::default(), Arc::<Told>::default());
        let (control, pausing) = watch::channel(Control::default());
        let mut settings = settings(&inbox, spec(Kind::Command)).await;
        settings.control = pausing;
        let (stopping, abandon) = (settings.settler.stopping.clone(), settings.abandon.clone());
        let origin = Origin { exchange: Names::default().exchange(Kind::Command), routing_key: "a.b".into() };
        let consumer = Frozen(Some(Delivery {
            origin: Arc::new(origin),
            redelivered: false,
            delivery_count: None,
            properties: Arc::new(Properties::default()),
            payload: Bytes::new(),
            receipt: Receipt::new(1, Arc::clone(&channel) as Arc<dyn DeliveryChannel>),
        }));
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
