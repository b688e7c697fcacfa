//! Fixtures of the test suites: brokers to test on, and what every test needs.
#![allow(clippy::expect_used, clippy::panic, reason = "fixtures fail tests by panicking")]

pub mod cluster;
pub mod ledger;
pub mod node;
pub mod program;
pub mod proxy;
pub mod world;
