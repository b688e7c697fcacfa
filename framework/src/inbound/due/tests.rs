//! The consumer of delayed messages is opened again when its queue stalls.

use std::sync::atomic::Ordering;

use super::*;
use crate::broker::double::Double;
use crate::bus::{Identity, Outlet, PublishSettings};
use crate::codec::Limits;

#[tokio::test(start_paused = true)]
async fn what_is_due_and_is_not_delivered_opens_the_consumer_again_after_two_looks() {
    let broker = Double::new();
    let port = Arc::clone(&broker) as Arc<dyn Broker>;
    let counters = Arc::new(Counters::default());
    let publishing = PublishSettings::default();
    let outlet = Outlet::open(&port, Limits::default(), publishing, Arc::clone(&counters)).await.unwrap();
    let stopping = CancellationToken::new();
    let settings = DueSettings {
        bus: Bus::new(outlet, Arc::new(Identity::plain("invoice", "i1")), Arc::clone(&port)),
        broker: port,
        counters,
        states: LaneStates::default(),
        skew: SkewPolicy::default(),
        confirm_timeout: Duration::from_secs(1),
        stall_after: Duration::from_secs(10),
        stopping: stopping.clone(),
    };
    let test = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(broker.inspected.load(Ordering::Acquire) > 2, "it is looked at");
        assert_eq!(broker.consumed.load(Ordering::Acquire), 1, "an empty queue does not stall");
        let looks = broker.inspected.load(Ordering::Acquire);
        broker.ready.store(1, Ordering::Release);
        while broker.consumed.load(Ordering::Acquire) == 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(broker.inspected.load(Ordering::Acquire), looks + 2);
        stopping.cancel();
    };
    tokio::join!(publish_due(settings, oneshot::channel().0), test);
}
