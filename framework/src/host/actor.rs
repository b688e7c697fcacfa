use std::rc::Rc;

use actix::{Actor, Context, Handler};
use tokio::sync::mpsc;

use crate::handler::Lane;
use crate::host::core::Core;
use crate::host::deliver::Deliver;
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

    fn handle(&mut self, deliver: Deliver, _: &mut Self::Context) {
        // Refused deliveries drop their tickets, which gives them back.
        if self.lanes[deliver.lane.index()].try_send(deliver).is_err() {
            tracing::error!(actor = self.core.settings.actor, "a lane took no deliveries; they are given back");
        }
    }
}
