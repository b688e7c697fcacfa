//! Handles suspects alone: nothing else of their lane runs beside them, and the process notes that they begin.

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

/// Waits until the suspect that is being cleared may be handled; forever if there is none.
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

    /// Notes that a suspect begins, and asks whether it may be handled.
    pub(super) fn clear(&mut self, number: u64) {
        let Some(held) = self.deliveries.held.get(&number) else { return };
        let (tell, cleared) = oneshot::channel();
        let (notes, name) = (self.settings.notes.clone(), suspect_name(held));
        self.suspect.clearing = Some(Clearing { number, cleared });
        self.suspect.alone = Some(number);
        self.settings.states.set(self.state, true, Some(super::ALONE.to_owned()));
        // The end of the lane waits for this task as for the removals, because its note must be removed too.
        self.suspect.removals.retain(|removal| !removal.is_finished());
        self.suspect.removals.push(actix_rt::spawn(async move {
            let cleared = notes.begin(&name).await;
            // The lane is gone and gave its deliveries back, so nothing begins.
            if let Err(Some(cleared)) = tell.send(cleared) {
                cleared.run.end(false, || {}).await;
            }
        }));
    }

    /// Sends a cleared suspect to its handler, unless the app stops or its channel has closed.
    pub(super) fn cleared(&mut self, number: u64, cleared: Option<Cleared>) {
        let Some(Cleared { run, condemned }) = cleared else { return self.release(number, Receive::GiveBack) };
        let Some(held) = self.deliveries.held.get_mut(&number) else { return self.end_alone_run(run, false, || {}) };
        held.alone = Some(run);
        if number < self.deliveries.epoch_began || self.settings.settler.stopping.is_cancelled() {
            return self.settle_alone(number, Receive::GiveBack);
        }
        self.arrives(number, condemned);
    }

    /// Called when a delivery is settled. If it was the suspect, others may run again.
    pub(super) fn is_through(&mut self, number: u64) {
        if self.suspect.alone == Some(number) {
            self.suspect.alone = None;
            if self.channel.open {
                self.settings.states.set(self.state, true, None);
            }
        }
    }

    /// Removes the note of a suspect that did not end the process, then calls `then`.
    pub(super) fn end_alone_run(&mut self, run: AloneRun, handled: bool, then: impl FnOnce() + 'static) {
        // Only one suspect is handled at a time, so few removals are left.
        self.suspect.removals.retain(|removal| !removal.is_finished());
        self.suspect.removals.push(actix_rt::spawn(async move {
            run.end(handled, then).await;
        }));
    }

    /// Removes the notes of held suspects when the channel is lost. The process lives, so they are no sign of a crash.
    pub(super) fn lose_alone_runs(&mut self) {
        let runs: Vec<AloneRun> = self.deliveries.held.values_mut().filter_map(|held| held.alone.take()).collect();
        for run in runs {
            self.end_alone_run(run, false, || {});
        }
    }

    /// Before the process ends, removes the notes of suspects that were not handled to their end here.
    pub(super) async fn end_alone_runs(&mut self) {
        // A suspect that is cleared from now on removes its note itself.
        if let Some(Clearing { mut cleared, .. }) = self.suspect.clearing.take() {
            cleared.close();
            if let Ok(Some(Cleared { run, .. })) = cleared.try_recv() {
                self.end_alone_run(run, false, || {});
            }
        }
        self.lose_alone_runs();
        for removal in self.suspect.removals.drain(..) {
            // A removal that panicked has removed nothing.
            let _ = removal.await;
        }
    }
}

/// The id of a delivery, if its sender gave it one.
pub(super) fn id_of(delivery: &Delivery) -> Option<MessageId> {
    delivery.envelope.has_own_id().then(|| delivery.envelope.id.clone())
}

/// The name by which all processes know a message. It includes the content, because senders may reuse an id. An id given by this
/// process is left out.
fn suspect_name(held: &HeldDelivery) -> String {
    let (envelope, key) = (&held.envelope, held.envelope.key.as_str());
    let id = if held.nameless.is_some() { "" } else { envelope.id.as_str() };
    MessageId::from(id).of_content(key, &envelope.payload).as_str().to_owned()
}
