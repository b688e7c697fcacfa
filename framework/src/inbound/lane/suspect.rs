//! Suspects are handled alone: nothing else of their lane runs beside them, and the process notes that they began.

use tokio::sync::oneshot;

use crate::broker::Delivery;
use crate::handler::Lane;
use crate::inbound::lane::LaneLoop;
use crate::inbound::lane::event::Event;
use crate::inbound::settle::{HeldDelivery, Receive};
use crate::inbound::suspects::{AloneRun, Cleared, SUSPECTED_AFTER};
use crate::message::MessageId;

/// A suspect that waits to be cleared.
pub(super) struct Clearing {
    pub(super) number: u64,
    /// `None` when the app stops.
    pub(super) cleared: oneshot::Receiver<Option<Cleared>>,
}

/// Whether the suspect that waits for it may be handled; for ever if none does.
pub(super) async fn cleared(clearing: &mut Option<Clearing>) -> Event {
    let Some(Clearing { number, cleared }) = clearing else { return std::future::pending().await };
    let (number, cleared) = (*number, cleared.await.unwrap_or(None));
    *clearing = None;
    Event::Cleared(number, cleared)
}

impl LaneLoop {
    /// Whether a delivery may have ended the processes that handled it.
    pub(super) fn is_suspect(&self, delivery: &Delivery) -> bool {
        delivery.delivery_count.is_some_and(|count| count >= SUSPECTED_AFTER)
            && self.settings.plan.lane == Lane::Durable
            && !self.settings.plan.ack_on_receipt
            && self.known_redeliveries.unexplained_deliveries(delivery) >= SUSPECTED_AFTER
            && !id_of(delivery).is_some_and(|id| self.settings.running.has(&id))
    }

    /// Asks whether a suspect may be handled.
    pub(super) fn clear(&mut self, number: u64) {
        let Some(held) = self.deliveries.held.get(&number) else { return };
        let (tell, cleared) = oneshot::channel();
        let (notes, name) = (self.settings.notes.clone(), suspect_name(held));
        self.suspect.clearing = Some(Clearing { number, cleared });
        self.suspect.alone = Some(number);
        self.settings.running.set_narrow(true);
        self.settings.states.set(self.state, true, Some(super::ALONE.to_owned()));
        let stopping = self.settings.settler.stopping.clone();
        // It is waited for at the end as the removals are: its note is to be removed too.
        self.suspect.removals.retain(|removal| !removal.is_finished());
        self.suspect.removals.push(actix_rt::spawn(async move {
            let cleared = notes.begin(&name, &stopping).await;
            // A lane that is gone gave its deliveries back: nothing begins.
            if let Err(Some(cleared)) = tell.send(cleared) {
                cleared.run.end(false).await;
            }
        }));
    }

    /// A suspect is handled now, unless the app stops or its channel has closed.
    pub(super) fn cleared(&mut self, number: u64, cleared: Option<Cleared>) {
        let Some(Cleared { run, condemned }) = cleared else { return self.release(number, Receive::GiveBack) };
        let Some(held) = self.deliveries.held.get_mut(&number) else { return self.end_alone_run(run, false, || {}) };
        held.alone = Some(run);
        if number < self.deliveries.epoch_began || self.settings.settler.stopping.is_cancelled() {
            return self.settle_alone(number, Receive::GiveBack);
        }
        self.arrives(number, condemned);
    }

    /// What is held is settled; if it was a suspect, others may run again.
    pub(super) fn is_through(&mut self, number: u64) {
        if self.suspect.alone == Some(number) {
            self.suspect.alone = None;
            if self.channel.open {
                self.settings.states.set(self.state, true, None);
            }
        }
    }

    /// Removes the note of a suspect that did not end the process, and then does what is left to do.
    pub(super) fn end_alone_run(&mut self, run: AloneRun, handled: bool, then: impl FnOnce() + 'static) {
        // One at a time is handled.
        self.suspect.removals.retain(|removal| !removal.is_finished());
        self.suspect.removals.push(actix_rt::spawn(async move {
            run.end(handled).await;
            then();
        }));
    }

    /// The channel is lost, and the process lives: what is handled alone is no sign of a death.
    pub(super) fn lose_alone_runs(&mut self) {
        let runs: Vec<AloneRun> = self.deliveries.held.values_mut().filter_map(|held| held.alone.take()).collect();
        for run in runs {
            self.end_alone_run(run, false, || {});
        }
    }

    /// The notes of what did not come to an end here, although the process lives, are removed before it ends.
    pub(super) async fn end_alone_runs(&mut self) {
        // What is cleared from now on ends by itself.
        if let Some(Clearing { mut cleared, .. }) = self.suspect.clearing.take() {
            cleared.close();
            if let Ok(Some(Cleared { run, .. })) = cleared.try_recv() {
                self.end_alone_run(run, false, || {});
            }
        }
        self.lose_alone_runs();
        for removal in self.suspect.removals.drain(..) {
            // One that panicked has removed nothing.
            let _ = removal.await;
        }
    }
}

/// The id of what is not opened yet, if its sender gave it one.
pub(super) fn id_of(delivery: &Delivery) -> Option<MessageId> {
    delivery.envelope.has_own_id().then(|| delivery.envelope.id.clone())
}

/// By what a message is known in all processes. Senders may use an id for several messages, and one without an id has one of
/// this process here.
fn suspect_name(held: &HeldDelivery) -> String {
    let (envelope, key) = (&held.envelope, held.envelope.key.as_str());
    let id = if held.nameless.is_some() { "" } else { envelope.id.as_str() };
    MessageId::from(id).of_content(key, &envelope.payload).as_str().to_owned()
}
