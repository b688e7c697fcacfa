//! Which actors of this process an operator has paused, resumed or restarted.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::inbound::Control;

/// The wanted state of each actor of this process, by `service` or `service.queue`. Clones share it.
#[derive(Clone, Default)]
pub(in crate::app) struct Controls(Arc<BTreeMap<String, watch::Sender<Control>>>);

impl Controls {
    pub(in crate::app) fn of(names: impl Iterator<Item = String>) -> Self {
        Self(Arc::new(names.map(|name| (name, watch::channel(Control::default()).0)).collect()))
    }

    /// Watches the wanted state of an actor.
    pub(in crate::app) fn subscribe(&self, actor: &str) -> watch::Receiver<Control> {
        self.0.get(actor).map_or_else(|| watch::channel(Control::default()).1, watch::Sender::subscribe)
    }

    pub(in crate::app) fn is_paused(&self, actor: &str) -> bool {
        self.0.get(actor).is_some_and(|control| control.borrow().paused)
    }

    pub(in crate::app) fn pause(&self, actor: &str) -> Result<(), String> {
        self.named(actor)?.send_if_modified(|control| !std::mem::replace(&mut control.paused, true));
        Ok(())
    }

    /// Always notifies: the actor may have stopped by itself without being paused here.
    pub(in crate::app) fn resume(&self, actor: &str) -> Result<(), String> {
        self.named(actor)?.send_modify(|control| control.paused = false);
        Ok(())
    }

    pub(in crate::app) fn restart(&self, actor: &str) -> Result<(), String> {
        self.named(actor)?.send_modify(|control| control.restarts += 1);
        Ok(())
    }

    fn named(&self, actor: &str) -> Result<&watch::Sender<Control>, String> {
        self.0.get(actor).ok_or_else(|| {
            let known: Vec<&String> = self.0.keys().collect();
            format!("there is no actor {actor:?} here; this app has {known:?}")
        })
    }
}
