//! What a stranger's surroundings do to a service, and what it must not mind: messages of others, brokers that others set
//! up, processes and shells, and the first hour of a newcomer. Needs `AMQP_URL`; run `cargo xtask test --only surroundings`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod broker_setup;
mod dead_letters;
mod frame_sizes;
mod frames;
mod messages;
mod newcomer;
mod newcomer_macros;
mod processes;
mod tls;
