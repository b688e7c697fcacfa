//! The actix actor that owns a service's state.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use actix::{Actor, Context, Handler};
use tokio::sync::mpsc;

use crate::handler::{Lane, OwnRequest};
use crate::host::attempt::Job;
use crate::host::core::Core;
use crate::host::deliver::{Arrival, Deliver};
use crate::host::lane;
use crate::host::waiting::Waiting;

/// The actix actor that owns a service's state. Its mailbox takes deliveries and sorts them to the lanes; it never
/// waits, so that a flood for one actor does not hold up its neighbours on the arbiter.
pub struct Host {
    core: Rc<Core>,
    lanes: Vec<mpsc::Sender<Deliver>>,
}

impl Host {
    /// A host; its lanes run as soon as the actor is started.
    #[must_use]
    pub fn new(core: Core) -> Self {
        Self { core: Rc::new(core), lanes: Vec::with_capacity(Lane::ALL.len()) }
    }

    /// Handles at once a request that a handler of this same actor waits for. It must not wait for the lane, which may be waiting
    /// for that handler. The request runs beside the handler or is refused. While the app stops it is given back like any other.
    fn see_to_circles(&self, deliver: &mut Deliver) {
        let (core, lane) = (&self.core, deliver.lane);
        let own_request = |arrival: &Arrival| {
            let goes_back = core.stopping.is_cancelled() && !arrival.ticket.is_acked();
            core.own_request(lane, &arrival.envelope).filter(|_| !goes_back && !arrival.condemned)
        };
        // Nearly always there is no such request.
        if !deliver.arrivals.iter().any(|arrival| own_request(arrival).is_some()) {
            return;
        }
        for arrival in std::mem::take(&mut deliver.arrivals) {
            match own_request(&arrival) {
                None => deliver.arrivals.push(arrival),
                Some(OwnRequest::Behind) => {
                    let outcome = core.would_wait(&arrival.envelope);
                    core.settle_unhandled(Job::new(lane, arrival), outcome);
                }
                Some(OwnRequest::Beside) => {
                    let mut job = Job::new(lane, arrival);
                    job.nested = true;
                    core.handle_nested(job);
                }
            }
        }
    }

    /// Puts deliveries into their lane.
    fn sort(&mut self, mut deliver: Deliver) {
        self.see_to_circles(&mut deliver);
        if deliver.arrivals.is_empty() {
            return;
        }
        // Refused deliveries drop their tickets, which gives them back.
        if self.lanes[deliver.lane.index()].try_send(deliver).is_err() {
            tracing::error!(actor = self.core.settings.actor, "a lane took no deliveries; they are given back");
        }
    }
}

impl Actor for Host {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        for lane in Lane::ALL {
            // Room for every delivery that can have a permit, and for as many from closed channels, even if each arrives alone.
            let (sender, queue) = mpsc::channel(2 * usize::from(self.core.settings.prefetch).max(1));
            self.lanes.push(sender);
            let (core, waiting) = (Rc::clone(&self.core), Waiting::new(lane, queue));
            let (tasks, name) = (core.bus.broker.tasks(), format!("lane {lane:?} of {}", core.settings.name));
            actix_rt::spawn(lane::keep(tasks, name, waiting, async move |waiting| lane::run(&core, waiting).await));
        }
    }
}

impl Handler<Deliver> for Host {
    type Result = ();

    fn handle(&mut self, deliver: Deliver, _: &mut Self::Context) {
        // A panic here would end the actor, and with it its mailbox.
        let sorted = std::panic::catch_unwind(AssertUnwindSafe(|| self.sort(deliver)));
        self.core.unless_panicked(sorted);
    }
}
