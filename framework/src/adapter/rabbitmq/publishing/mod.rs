//! Publishing on confirm channels. Begin with `publisher.rs`: it hands each message to the send path (`send_path.rs`) of a channel.
//! One task owns the channel (`channel_life.rs`) until it ends.

mod channel_closers;
mod channel_life;
mod confirms;
mod in_flight;
mod job;
mod liveness;
mod owner;
mod publisher;
mod rejections;
mod returns;
mod send_path;
mod silent;
mod waiting;

pub(super) use publisher::RabbitPublisher;
