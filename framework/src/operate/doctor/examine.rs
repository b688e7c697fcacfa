//! Runs all checks of the doctor.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tokio::time::Instant;

use crate::adapter::http::Management;
use crate::app::ProcessReport;
use crate::app::record;
use crate::broker::{Addressed, Broker, BrokerError, Names, Source, Subscription, Topology, due_topology};
use crate::bus::{Bus, SendError};
use crate::inbound::CONTROL;
use crate::inbound::is_migrating;
use crate::message::{Envelope, MediaType, MessageId};
use crate::operate::actors::{Actors, ControlError};
use crate::operate::dead_letters::DeadError;
use crate::operate::doctor::finding::{Check, Finding, NOT_FINISHED};

/// How long a confirm may take.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
/// How long running processes may take to answer.
const WINDOW: Duration = Duration::from_secs(2);

/// Checks whether a running system and the broker keep the promises of the actors. It changes nothing that exists and
/// creates nothing that is missing.
///
/// ```no_run
/// # async fn example(bus: postrider::Bus) -> Result<(), Box<dyn std::error::Error>> {
/// use postrider::operate::{Doctor, Verdict};
///
/// let findings = Doctor::new(&bus).examine().await?;
/// assert!(findings.iter().all(|finding| finding.verdict != Verdict::Problem), "{findings:#?}");
/// # Ok(())
/// # }
/// ```
pub struct Doctor {
    pub(super) bus: Bus,
    pub(super) management: Option<Management>,
    window: Duration,
}

impl Doctor {
    /// A doctor for the broker of a bus.
    #[must_use]
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone(), management: None, window: WINDOW }
    }

    /// Uses the management API too, for what AMQP does not show.
    #[must_use]
    pub fn management(mut self, management: Management) -> Self {
        self.management = Some(management);
        self
    }

    /// How long to wait for the answers of running processes. Default: 2 s.
    #[must_use]
    pub fn waiting(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    pub(super) fn broker(&self) -> &dyn Broker {
        &*self.bus.broker
    }

    pub(super) fn names(&self) -> &Names {
        &self.bus.identity.names
    }

    /// Runs every check and returns the results.
    ///
    /// # Errors
    /// When the broker cannot be reached. A refusal by the broker is a finding.
    pub async fn examine(&self) -> Result<Vec<Finding>, DeadError> {
        let mut findings = vec![self.confirms().await];
        let publishes = findings[0].verdict == super::Verdict::Ok;
        findings.push(self.exchanges().await?);
        self.delays(&mut findings).await?;
        let claims = match self.broker().registry().claims().await {
            Ok(claims) => claims,
            Err(error @ BrokerError::Forbidden { .. }) => {
                let subject = self.names().domain("claims");
                let check = Check { name: "process", subject: &subject, source: "basic.consume" };
                findings.push(check.refused(&error, "read the queue"));
                return Ok(findings);
            }
            Err(error) => return Err(error.into()),
        };
        let services: BTreeSet<String> = claims.into_iter().map(|claim| claim.service).collect();
        let asked = join_all(services.iter().map(|service| self.ask(service, publishes))).await;
        let mut lanes = BTreeMap::new();
        for (service, asked) in services.iter().zip(asked) {
            match asked {
                Ok(reports) => self.service(service, &reports, &mut lanes, &mut findings).await?,
                Err(finding) => self.absent(service, finding, &mut findings).await?,
            }
        }
        findings.extend(lanes.into_values().flatten());
        Ok(findings)
    }

    async fn confirms(&self) -> Finding {
        let source = "basic.publish to the default exchange, basic.ack";
        let check = Check { name: "confirms", subject: "broker", source };
        let began = Instant::now();
        // A broker that is short of memory still takes the first message of a connection, so two are sent.
        let probed = match self.probe(began + CONFIRM_TIMEOUT).await {
            Ok(()) => self.probe(began + CONFIRM_TIMEOUT).await,
            error => error,
        };
        match probed {
            Ok(()) => check.ok(format!("two messages were confirmed within {} ms", began.elapsed().as_millis())),
            Err(error) if self.broker().connection().borrow().blocked => {
                let why = "the broker takes no messages, because it is short of memory or disk space";
                check.problem(format!("{why}: {error}"))
            }
            Err(SendError::Broker(error)) => check.refused(&error, "write to amq.default"),
            Err(error) => check.problem(error.to_string()),
        }
    }

    async fn probe(&self, deadline: Instant) -> Result<(), SendError> {
        let probe = Addressed {
            mandatory: false,
            // No such queue exists: the broker confirms the message and drops it.
            ..Addressed::to_queue(
                format!("{}.doctor.{}", self.names().namespace(), MessageId::new()),
                Envelope::note(MediaType::BYTES, Bytes::new()),
            )
        };
        self.bus.outlet.forward(probe, deadline).await
    }

    async fn exchanges(&self) -> Result<Finding, DeadError> {
        let source = "exchange.declare (passive), then equal";
        let check = Check { name: "exchanges", subject: self.names().namespace(), source };
        let shared = crate::inbound::shared_sources();
        let missing = self.broker().absent(&shared).await?;
        if !missing.is_empty() {
            // A newly declared exchange has no bindings, so restart all services.
            let missing = missing.join(", ");
            return Ok(check.problem(format!("missing: {missing}; restart all services, which declare and bind them")));
        }
        Ok(match self.broker().compare(&shared).await {
            Ok(()) => check.ok("the exchanges of all kinds stand and have the right types"),
            Err(error) => check.refused(&error, "configure what is compared"),
        })
    }

    /// Checks the delay levels. They are all declared before the first delay.
    async fn delays(&self, findings: &mut Vec<Finding>) -> Result<(), DeadError> {
        let source = "exchange.declare and queue.declare (passive), then equal";
        let check = Check { name: "delays", subject: &self.names().delay_out(), source };
        let levels = Topology { sources: vec![Source::Delays], ..Topology::default() };
        let missing = self.broker().absent(&levels).await?;
        if missing.contains(&self.names().delay_out()) {
            findings.push(check.ok("no delay has been asked for yet"));
            return Ok(());
        }
        findings.push(if !missing.is_empty() {
            check
                .problem(format!("missing: {}; restart a service that delays, which declares them", missing.join(", ")))
        } else if let Err(error) = self.broker().compare(&levels).await {
            check.refused(&error, "configure what is compared")
        } else {
            check.ok("25 levels stand, with their arguments")
        });
        let due = self.names().due();
        let waiting = Check { name: "due", subject: &due, source: "queue.declare-ok" };
        let dead = self.names().dead_queue(&due);
        match self.broker().inspect(&due).await? {
            Some(state) if state.consumers > 0 => {
                findings.push(waiting.ok(format!("{} processes publish what is due", state.consumers)));
            }
            Some(state) if state.ready > 0 => findings.push(
                waiting.problem(format!("{} messages are due and no process publishes them; start one", state.ready)),
            ),
            _ => findings.push(waiting.warning("no process is there to publish what is due")),
        }
        if due_topology(self.names()).queues.iter().any(|queue| queue.name == dead) {
            findings.extend(self.letters(&dead).await?);
        }
        Ok(())
    }

    /// The reports of a service's running processes; a finding if there are none.
    async fn ask(&self, service: &str, publishes: bool) -> Result<Vec<ProcessReport>, Finding> {
        let source = format!("answers on channel {service}:{CONTROL}");
        let check = Check { name: "process", subject: service, source: &source };
        if !publishes {
            return Err(check.not_checked("not checked (nothing can be published)"));
        }
        match Actors::new(&self.bus).waiting(self.window).about(service).await {
            Ok(reports) => Ok(reports),
            Err(error @ ControlError::Nobody { .. }) => Err(check.warning(error.to_string())),
            Err(error) => Err(check.problem(error.to_string())),
        }
    }

    /// Checks a service that does not answer. Only its record can be examined.
    async fn absent(&self, service: &str, mut said: Finding, findings: &mut Vec<Finding>) -> Result<(), DeadError> {
        let recorded = record::read(self.broker(), self.names(), service).await?;
        let recorded = recorded.unwrap_or_default();
        let queues: BTreeSet<&str> = recorded.iter().filter_map(Subscription::queue).collect();
        let mut waiting = 0;
        for queue in &queues {
            if is_migrating(self.broker(), queue).await? {
                let check = Check { name: "queue", subject: queue, source: "queue.declare (passive)" };
                findings.push(check.problem(NOT_FINISHED));
            }
            let Some(state) = self.broker().inspect(queue).await? else { continue };
            if state.consumers == 0 {
                waiting += state.ready;
            }
            let dead = self.names().dead_queue(queue);
            if self.broker().inspect(&dead).await?.is_some() {
                findings.extend(self.letters(&dead).await?);
            }
        }
        if waiting > 0 {
            said.verdict = super::Verdict::Problem;
            said.text = format!("{}; {waiting} messages wait in its queues", said.text);
        }
        findings.push(said);
        Ok(())
    }
}
