//! Both adapters pass the same suite.

use std::sync::Arc;

use postrider::adapter::in_process::InProcess;
use postrider::testing::conformance::{Bench, scenarios};
use postrider_tests::world::{World, run};

#[test]
fn the_in_process_broker_conforms() {
    run(async {
        for scenario in scenarios() {
            eprintln!("{}", scenario.name);
            let broker = InProcess::new();
            let names = Bench::names();
            let (one, other) = (Arc::new(broker.connect(&names)), Arc::new(broker.connect(&names)));
            scenario.run(Bench::new(names, one, other)).await;
        }
    });
}

#[test]
fn rabbitmq_conforms() {
    run(async {
        for scenario in scenarios() {
            eprintln!("{}", scenario.name);
            let world = World::rabbitmq();
            scenario.run(Bench::new(world.names.clone(), world.broker().await, world.broker().await)).await;
        }
    });
}
