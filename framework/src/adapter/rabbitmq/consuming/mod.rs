//! Consuming from one queue on a channel of its own, and acknowledging in bulk.

mod acknowledgements;
mod consumer;

pub(super) use consumer::open;
