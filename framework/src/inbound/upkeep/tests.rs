//! Deleted sources are found again after a panic of the task that looks for them.

use std::sync::atomic::Ordering;

use super::*;
use crate::broker::double::Double;
use crate::bus::{Counters, Identity, PublishSettings};
use crate::codec::Limits;

async fn bus(broker: &Arc<Double>) -> (Bus, Arc<dyn Broker>) {
    let port = Arc::clone(broker) as Arc<dyn Broker>;
    let counters = Arc::new(Counters::default());
    let outlet = Outlet::open(&port, Limits::default(), PublishSettings::default(), counters).await.unwrap();
    (Bus::new(outlet, Arc::new(Identity::plain("invoice", "i1")), Arc::clone(&port)), port)
}

#[tokio::test(start_paused = true)]
async fn exchanges_are_looked_after_again_after_a_panic() {
    let broker = Double::new();
    let (bus, port) = bus(&broker).await;
    let stopping = CancellationToken::new();
    let settings = UpkeepSettings {
        broker: port,
        bus,
        states: LaneStates::default(),
        every: Duration::from_secs(1),
        bind: Arc::default(),
        stopping: stopping.clone(),
    };
    broker.panics.store(true, Ordering::Release);
    let test = async {
        while broker.tasks().problems().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(broker.tasks().problems()[0].starts_with("upkeep"), "{:?}", broker.tasks().problems());
        let asked = broker.asked.load(Ordering::Acquire);
        while broker.asked.load(Ordering::Acquire) < asked + 2 || !broker.tasks().problems().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stopping.cancel();
    };
    tokio::join!(keep_bound(settings), test);
}
