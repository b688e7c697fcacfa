//! Hears orders in a running process, carries them out and reports.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::app::builder::App;
use crate::app::control::controls::Controls;
use crate::app::control::report::{ActorReport, Order, ProcessReport, Wanted};
use crate::app::health::HealthSource;
use crate::app::launched::Launched;
use crate::inbound::{ActorPlan, ControlSettings, obey_orders};
use crate::message::is_logged;

struct Listener {
    instance: String,
    actors: Vec<(String, ActorReport)>,
    controls: Controls,
    health: HealthSource,
}

/// Starts to hear orders. If the broker does not allow it, the app starts without orders.
pub(in crate::app) async fn start_listening(
    launched: &mut Launched,
    app: &App,
    plans: &[ActorPlan],
    deadline: Instant,
) {
    let services: Vec<String> = app.services().into_iter().map(str::to_owned).collect();
    if services.is_empty() {
        return;
    }
    let listener = Listener {
        instance: launched.bus.identity.instance.to_string(),
        actors: ActorReport::all(&*launched.broker, app, plans, &launched.config),
        controls: launched.controls.clone(),
        health: HealthSource::of(launched),
    };
    let settings = ControlSettings {
        broker: Arc::clone(&launched.broker),
        bus: launched.bus.clone(),
        services,
        obey: Arc::new(move |service, order| listener.obey(service, order)),
        bind: Arc::clone(&launched.bind),
        stall_after: launched.config.stall_after,
        confirm_timeout: launched.config.publish.confirm_timeout,
        stopping: launched.stops.stopping.clone(),
    };
    let (started, waiting) = oneshot::channel();
    launched.listening = Some(actix_rt::spawn(obey_orders(settings, started)));
    if let Ok(Ok(Err(error))) = timeout_at(deadline, waiting).await {
        tracing::warn!(%error, "orders such as `postrider actor pause` will not be heard");
    }
}

impl Listener {
    fn obey(&self, service: &str, order: &[u8]) -> Option<Vec<u8>> {
        let problem = match serde_json::from_slice::<Order>(order) {
            Ok(order) if order.instance.as_ref().is_some_and(|instance| *instance != self.instance) => return None,
            Ok(order) => {
                if order.order != Wanted::About && is_logged("an order", service) {
                    tracing::info!(service, order = order.order.as_str(), actor = order.actor, "an order");
                }
                self.carry_out(&order).err()
            }
            // A later version may send orders that this one does not know.
            Err(error) => Some(format!("this version does not understand the order: {error}")),
        };
        let health = self.health.health();
        let report = ProcessReport {
            service: service.to_owned(),
            instance: self.instance.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: health.ready,
            actors: self.of(service).map(|actor| self.now(actor)).collect(),
            lanes: health.lanes,
            bound_seconds: self.health.bound_at().map(|at| at.elapsed().as_secs()),
            problem,
        };
        serde_json::to_vec(&report).ok()
    }

    fn of<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a ActorReport> {
        self.actors.iter().filter(move |(of, _)| of == service).map(|(_, actor)| actor)
    }

    fn now(&self, actor: &ActorReport) -> ActorReport {
        ActorReport { paused: self.controls.is_paused(&actor.name), ..actor.clone() }
    }

    fn carry_out(&self, order: &Order) -> Result<(), String> {
        let actor = order.actor.as_deref().unwrap_or_default();
        match order.order {
            Wanted::About => Ok(()),
            Wanted::Pause => self.controls.pause(actor),
            Wanted::Resume => self.controls.resume(actor),
            Wanted::Restart => self.controls.restart(actor),
        }
    }
}
