//! Effects that happen once: transactions of handlers, the inbox, the outbox and its relay. Needs `AMQP_URL`; run
//! `cargo xtask test --only once`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod bad_input;
mod clean_up;
mod effects;
mod faults;
mod killed;
mod outbox_model;
mod outside;
mod pooler;
mod relay;
mod shared_commits;
