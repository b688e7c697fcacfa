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
        for _ in Lane::ALL {
            // Room for every delivery that can have a permit, and for as many whose channel has closed.
            let (sender, queue) = mpsc::channel(2 * usize::from(self.core.settings.prefetch).max(1));
            self.lanes.push(sender);
            actix_rt::spawn(lane::run(Rc::clone(&self.core), queue));
        }
    }
}

impl<S: 'static> Handler<Deliver> for Host<S> {
    type Result = ();

    fn handle(&mut self, deliver: Deliver, _: &mut Self::Context) {
        // A refused delivery drops its ticket, which gives it back.
        if self.lanes[deliver.lane.index()].try_send(deliver).is_err() {
            tracing::error!(actor = self.core.settings.actor, "a lane took no delivery; it is given back");
        }
    }
}
