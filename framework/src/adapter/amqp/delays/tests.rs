//! Tests that delay queues are declared when needed and declared again once forgotten.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;
use crate::broker::double::Double;
use crate::broker::{Broker, Topology};

const SOON: Duration = Duration::from_secs(1);

fn delays(broker: &Arc<Double>) -> Arc<Delays> {
    let broker = Arc::clone(broker);
    let declare = move |_: Declaration| {
        let broker = Arc::clone(&broker);
        // The double does not look at what is declared.
        Box::pin(async move { broker.declare(&Topology::default()).await }) as BoxFuture<'static, _>
    };
    Delays::new(Names::default(), Box::new(declare))
}

#[tokio::test]
async fn what_is_forgotten_while_it_is_declared_is_declared_again_and_nobody_waits_for_that() {
    let broker = Double::new();
    let delays = delays(&broker);
    broker.declaring.forget_permits(usize::MAX);
    let declaring = tokio::spawn({
        let delays = Arc::clone(&delays);
        async move { delays.stand(Some("postrider.invoice")).await }
    });
    while broker.declares.load(Ordering::Acquire) == 0 {
        tokio::task::yield_now().await;
    }
    // First the levels are declared, then the binding back.
    broker.declaring.add_permits(1);
    while broker.declares.load(Ordering::Acquire) == 1 {
        tokio::task::yield_now().await;
    }
    delays.forget("postrider.invoice");
    broker.declaring.add_permits(1);
    declaring.await.unwrap().unwrap();
    broker.declaring.add_permits(1);
    delays.stand(Some("postrider.invoice")).await.unwrap();
    delays.stand(Some("postrider.invoice")).await.unwrap();
    assert_eq!(broker.declares.load(Ordering::Acquire), 3);
}

#[tokio::test(start_paused = true)]
async fn a_delay_whose_levels_stand_does_not_wait_for_others_that_are_declared() {
    let broker = Double::new();
    let delays = delays(&broker);
    delays.stand(None).await.unwrap();
    broker.declaring.forget_permits(usize::MAX);
    let hangs = delays.stand(Some("postrider.invoice"));
    tokio::pin!(hangs);
    assert!(futures::poll!(&mut hangs).is_pending());
    tokio::time::timeout(SOON, delays.stand(None)).await.unwrap().unwrap();
}
