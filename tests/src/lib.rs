//! Fixtures of the test suites: brokers to test on, and what every test needs.
#![allow(clippy::expect_used, clippy::panic, reason = "fixtures fail tests by panicking")]

pub mod bank;
pub mod cluster;
pub mod database;
pub mod ledger;
pub mod node;
pub mod pooler;
pub mod postgres;
pub mod program;
pub mod proxy;
pub mod raw;
pub mod recording;
pub mod strangers;
pub mod world;

/// Writes each test twice: `in_process::name` and `rabbitmq::name`.
#[macro_export]
macro_rules! on_both_brokers {
    ($($(#[$meta:meta])* async fn $name:ident($world:ident: World) $body:block)*) => {
        mod in_process {
            #[allow(unused_imports)]
            use super::*;
            $($(#[$meta])* #[test] fn $name() { let $world = $crate::world::World::in_process(); $crate::world::run(async move $body) })*
        }
        mod rabbitmq {
            #[allow(unused_imports)]
            use super::*;
            $($(#[$meta])* #[test] fn $name() { let $world = $crate::world::World::rabbitmq(); $crate::world::run(async move $body) })*
        }
    };
}
