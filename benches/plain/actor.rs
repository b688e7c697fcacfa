//! In one process and on one thread: requests to an actor, with message and answer encoded and decoded.

use actix::{Actor, Context, Handler, Message};
use postrider_benches::Failed;
use postrider_benches::measured::Meter;
use postrider_benches::signal;
use postrider_benches::work::Work;

struct Worker {
    handled: u64,
}

impl Actor for Worker {
    type Context = Context<Self>;
}

struct Encoded(Vec<u8>);

impl Message for Encoded {
    type Result = Result<(), String>;
}

impl Handler<Encoded> for Worker {
    type Result = Result<(), String>;

    fn handle(&mut self, encoded: Encoded, _: &mut Self::Context) -> Self::Result {
        let work: Work = rmp_serde::from_slice(&encoded.0).map_err(|error| error.to_string())?;
        self.handled += u64::from(work.number < u64::MAX);
        Ok(())
    }
}

pub(crate) fn ask(messages: u64, bytes: usize) -> Result<(), Failed> {
    actix_rt::System::new().block_on(async move {
        let worker = Worker { handled: 0 }.start();
        let mut work = Work::of_bytes(bytes);
        signal::ready_and_wait().await?;
        let meter = Meter::start();
        for number in 0..messages {
            work.number = number;
            worker.send(Encoded(rmp_serde::to_vec_named(&work)?)).await??;
        }
        signal::done(&meter.stop(messages, None))
    })
}
