//! The behaviours that Postrider is trusted for, each on both brokers where it applies. Needs `AMQP_URL`; run
//! `cargo xtask test`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[macro_use]
extern crate postrider_tests;

mod concurrency;
mod conformance;
mod control;
mod crashes;
mod dead_letters;
mod delays;
mod doctor;
mod envelope;
mod failures;
mod faults;
mod faults_at_the_port;
mod faults_of_handling;
mod faults_of_others;
mod fired;
mod guarantees;
mod lifecycle;
mod messages;
mod middleware;
mod migrate;
mod on_rabbitmq;
mod outside_adapter;
mod own_requests;
mod ownership;
mod patterns;
mod processes;
mod reconnect;
mod redelivery;
mod requests;
mod resilience;
mod routing;
mod runtimes;
mod sends;
mod silent_queues;
mod staying_connected;
mod supervision;
mod test_app;
mod topology;
mod tracing_spans;
mod wire_recording;
