//! The behaviours that Postrider is trusted for, each on both brokers where it applies. Needs `AMQP_URL`; run
//! `cargo xtask test`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

/// Writes each test twice: `in_process::name` and `rabbitmq::name`.
macro_rules! on_both_brokers {
    ($($(#[$meta:meta])* async fn $name:ident($world:ident: World) $body:block)*) => {
        mod in_process {
            #[allow(unused_imports)]
            use super::*;
            $($(#[$meta])* #[test] fn $name() { let $world = postrider_tests::world::World::in_process(); postrider_tests::world::run(async move $body) })*
        }
        mod rabbitmq {
            #[allow(unused_imports)]
            use super::*;
            $($(#[$meta])* #[test] fn $name() { let $world = postrider_tests::world::World::rabbitmq(); postrider_tests::world::run(async move $body) })*
        }
    };
}

mod concurrency;
mod conformance;
mod control;
mod dead_letters;
mod delays;
mod doctor;
mod envelope;
mod failures;
mod faults;
mod guarantees;
mod lifecycle;
mod messages;
mod middleware;
mod migrate;
mod on_rabbitmq;
mod ownership;
mod patterns;
mod processes;
mod reconnect;
mod redelivery;
mod requests;
mod resilience;
mod routing;
mod runtimes;
mod staying_connected;
mod test_app;
mod topology;
mod tracing_spans;
