use std::rc::Rc;

use actix::{Actor, Context, Handler};
use tokio::sync::mpsc;

use crate::handler::Lane;
use crate::host::attempt::Job;
use crate::host::core::Core;
use crate::host::deliver::{Arrival, Deliver};
use crate::host::lane;

/// The actix actor that owns a service's state. Its mailbox takes deliveries and sorts them to the lanes; it never
/// waits, so that a flood for one actor does not hold up its neighbours on the arbiter.
pub struct Host<S: 'static> {
    core: Rc<Core<S>>,
    lanes: Vec<mpsc::Sender<Deliver>>,
}

impl<S: 'static> Host<S> {
    /// A host; its lanes run as soon as the actor is started.
    #[must_use]
    pub fn new(core: Core<S>) -> Self {
        Self { core: Rc::new(core), lanes: Vec::with_capacity(Lane::ALL.len()) }
    }
}

impl<S: 'static> Host<S> {
    /// Whoever waits for itself is told at once, and not when the lane has time: the lane may be waiting for the very
    /// handler that asks. While the app stops, such a message goes back like any other.
    fn refuse_circles(&self, deliver: &mut Deliver) {
        let core = &self.core;
        let refused = |arrival: &Arrival| {
            core.is_waited_for_by_itself(&arrival.envelope)
                && (arrival.ticket.is_acked() || !core.stopping.is_cancelled())
        };
        // Nearly always there is none.
        if !deliver.arrivals.iter().any(refused) {
            return;
        }
        let (circles, others): (Vec<_>, Vec<_>) = std::mem::take(&mut deliver.arrivals).into_iter().partition(refused);
        deliver.arrivals = others;
        for arrival in circles {
            let outcome = core.would_wait(&arrival.envelope);
            core.settle_unhandled(Job::new(deliver.lane, arrival), outcome);
        }
    }
}

impl<S: 'static> Actor for Host<S> {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        for lane in Lane::ALL {
            // Room for every delivery that can have a permit, and for as many whose channel has closed, should each come
            // alone.
            let (sender, queue) = mpsc::channel(2 * usize::from(self.core.settings.prefetch).max(1));
            self.lanes.push(sender);
            actix_rt::spawn(lane::run(Rc::clone(&self.core), lane, queue));
        }
    }
}

impl<S: 'static> Handler<Deliver> for Host<S> {
    type Result = ();

    fn handle(&mut self, mut deliver: Deliver, _: &mut Self::Context) {
        self.refuse_circles(&mut deliver);
        if deliver.arrivals.is_empty() {
            return;
        }
        // Refused deliveries drop their tickets, which gives them back.
        if self.lanes[deliver.lane.index()].try_send(deliver).is_err() {
            tracing::error!(actor = self.core.settings.actor, "a lane took no deliveries; they are given back");
        }
    }
}
