//! Calls that their callers cancel: before anything can leave, while nothing can leave, and while they leave.

use std::time::Duration;

use postrider::{CancellationToken, Payload, SendError};
use postrider_tests::proxy::Network;
use tokio::task::JoinHandle;

use crate::world::World;

/// How many calls are cancelled at each moment.
const CALLS: usize = 30;
/// How long calls that cannot leave get to reach the queue of waiting messages.
const ON_THEIR_WAY: Duration = Duration::from_millis(50);

type Call = JoinHandle<(String, Result<(), SendError>)>;

impl World {
    /// A call that was cancelled before it left is never handled.
    pub async fn cancel_calls(&self, rng: &mut fastrand::Rng) -> Result<String, String> {
        let mut told = Vec::new();
        for number in 0..CALLS {
            let token = CancellationToken::new();
            token.cancel();
            told.push(self.call(format!("cancelled-{}-{number}", self.faults), token));
        }
        let before = self.withdrawn(told).await?;
        let (mut left, mut told) = (0, Vec::new());
        for number in 0..CALLS {
            let (id, token) = (format!("leaving-{}-{number}", self.faults), CancellationToken::new());
            self.books.ledger.attempts(&id);
            told.push(self.call(id, token.clone()));
            tokio::time::sleep(Duration::from_micros(rng.u64(..2_000))).await;
            token.cancel();
        }
        for call in told {
            let (id, sent) = call.await.map_err(|error| error.to_string())?;
            match sent {
                Ok(()) => {
                    self.books.ledger.confirms(&id);
                    left += 1;
                }
                // It is unknown whether it had left.
                Err(SendError::Cancelled) => {}
                Err(other) => return Err(format!("{id}: {other}")),
            }
        }
        let (epoch, token) = (self.epoch(), CancellationToken::new());
        self.proxy.set(Network::Cut);
        let cut = self.until("the connection is gone", |world| !world.running.connection().borrow().up).await;
        let waiting = (0..CALLS).map(|number| self.call(format!("waiting-{}-{number}", self.faults), token.clone()));
        let waiting: Vec<Call> = waiting.collect();
        tokio::time::sleep(ON_THEIR_WAY).await;
        token.cancel();
        let unsent = self.withdrawn(waiting).await;
        self.proxy.set(Network::Fine);
        cut?;
        let unsent = unsent?;
        self.until("a new connection", |world| world.epoch() > epoch).await?;
        Ok(format!(
            "{before} before they were sent, {unsent} while nothing could leave, {} of {CALLS} as they left",
            CALLS - left
        ))
    }

    fn call(&self, id: String, token: CancellationToken) -> Call {
        let bus = self.running.bus().clone();
        tokio::spawn(async move {
            let options = |o: postrider::Options| o.id(id.as_str()).cancellation(token);
            let sent = bus.send_key_with("worker.do", Payload::msgpack(&1_u64), options).await;
            (id, sent.map(drop))
        })
    }

    /// The number of calls. Each was cancelled, and must never be handled.
    async fn withdrawn(&self, calls: Vec<Call>) -> Result<usize, String> {
        let count = calls.len();
        for call in calls {
            let (id, sent) = call.await.map_err(|error| error.to_string())?;
            // If it is handled anyway, that is a finding of its own.
            self.books.ledger.attempts(&id);
            self.books.runs.withdraws(&id);
            if !matches!(sent, Err(SendError::Cancelled)) {
                return Err(format!("{id} was to be cancelled: {sent:?}"));
            }
        }
        Ok(count)
    }
}
