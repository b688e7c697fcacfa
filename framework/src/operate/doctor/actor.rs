//! Checks the actors of one service.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use crate::app::control::{ActorReport, ProcessReport, QueueReport};
use crate::app::record;
use crate::broker::{BrokerError, Claim, Queue, Subscription, Topology};
use crate::inbound::is_migrating;
use crate::inbound::{CONTROL, REBIND_AFTER};
use crate::operate::dead_letters::{DeadError, DeadLetters, age};
use crate::operate::doctor::examine::Doctor;
use crate::operate::doctor::finding::{Check, Finding, NOT_FINISHED};

/// Whether an existing queue is as it is declared.
enum Equal {
    Yes,
    /// Why not.
    No(String),
    /// The user may not ask.
    NotTold(BrokerError),
}

/// Policy keys that lose or refuse messages of a queue that promises to keep them.
const BREAKING_POLICIES: [&str; 5] = ["delivery-limit", "message-ttl", "max-length", "max-length-bytes", "expires"];

/// Findings on lanes by process, so that a process with several services is listed once.
pub(super) type Lanes = BTreeMap<String, Vec<Finding>>;

impl Doctor {
    pub(super) async fn service(
        &self,
        service: &str,
        reports: &[ProcessReport],
        lanes: &mut Lanes,
        findings: &mut Vec<Finding>,
    ) -> Result<(), DeadError> {
        let source = format!("answers on channel {service}:{CONTROL}");
        let check = Check { name: "process", subject: service, source: &source };
        findings.push(check.ok(format!("{} running", reports.len())));
        for report in reports {
            lanes.entry(report.instance.clone()).or_insert_with(|| lanes_of(report, &source));
        }
        // Instances of different versions may differ; each distinct report is checked once.
        let mut actors: Vec<ActorReport> = Vec::new();
        for actor in reports.iter().flat_map(|report| &report.actors) {
            let same = |other: &ActorReport| other.queues == actor.queues && other.name == actor.name;
            if !actors.iter().any(same) {
                actors.push(actor.clone());
            }
        }
        let domains: BTreeSet<&String> = actors.iter().flat_map(|actor| &actor.domains).collect();
        for domain in domains {
            findings.push(self.claim(service, domain).await?);
        }
        for actor in &actors {
            for queue in &actor.queues {
                self.queue(actor, queue, findings).await?;
                if !self.managed(queue, findings).await {
                    findings.push(bound(queue, reports, &source));
                }
            }
            self.dead_queue(actor, findings).await?;
        }
        self.stale(service, &actors, findings).await
    }

    async fn claim(&self, service: &str, domain: &str) -> Result<Finding, DeadError> {
        let check = Check { name: "claim", subject: domain, source: "exchange.declare (passive), then as its owner" };
        let claim = Claim { domain: domain.to_owned(), service: service.to_owned() };
        let claimed = Topology { claims: vec![claim], ..Topology::default() };
        if !self.broker().absent(&claimed).await?.is_empty() {
            return Ok(check.problem(format!(
                "the claim of {service:?} is gone, so that another service could take the domain; restart {service:?}"
            )));
        }
        Ok(match self.broker().compare(&claimed).await {
            Ok(()) => check.ok(format!("owned by {service:?}")),
            Err(error) => check.refused(&error, "configure the exchange of the claim"),
        })
    }

    async fn queue(
        &self,
        actor: &ActorReport,
        report: &QueueReport,
        findings: &mut Vec<Finding>,
    ) -> Result<(), DeadError> {
        let standing = Check { name: "queue", subject: &report.name, source: "queue.declare (passive)" };
        let Some(state) = self.broker().inspect(&report.name).await? else {
            findings.push(standing.problem(format!("it does not stand; restart the consumer of {:?}", actor.name)));
            return Ok(());
        };
        findings.push(match (state.consumers, actor.paused) {
            (0, false) => standing.problem(format!("nobody consumes it; {} messages wait", state.ready)),
            (0, true) => standing.warning(format!("its actor is paused; {} messages wait", state.ready)),
            (consumers, _) => standing.ok(format!("{consumers} consumers, {} messages wait", state.ready)),
        });
        if is_migrating(self.broker(), &report.name).await? {
            findings.push(standing.problem(NOT_FINISHED));
        }
        let equal = self.equal(&report.queue(self.broker())).await?;
        let source = "queue.declare with the actor's arguments";
        let durable = Check { name: "durability", subject: &report.name, source };
        findings.push(match &equal {
            Equal::Yes if report.name == self.query_queue(actor) => {
                durable.ok("durable; queries are answered at most once")
            }
            Equal::Yes => durable.ok(format!("durable, as {} needs it", actor.guarantee)),
            Equal::No(reason) => {
                durable.problem(format!("{reason}; `topology migrate {}` moves its messages", report.name))
            }
            Equal::NotTold(error) => durable.refused(error, "configure the queue"),
        });
        if let Some(limit) = report.arguments.get("x-delivery-limit").and_then(serde_json::Value::as_i64) {
            let check = Check { name: "delivery limit", subject: &report.name, source };
            let attempts = actor.most_attempts;
            findings.push(match &equal {
                Equal::No(reason) if reason.contains("x-delivery-limit") => {
                    check.problem(format!("{reason}; up to {attempts} attempts are to be made"))
                }
                Equal::No(_) => check.not_checked("not checked (another argument differs first)"),
                Equal::NotTold(error) => check.refused(error, "configure the queue"),
                Equal::Yes => check.ok(format!("{limit}, far above the {attempts} attempts that are made at most")),
            });
        }
        Ok(())
    }

    fn query_queue(&self, actor: &ActorReport) -> String {
        let (service, queue) =
            actor.name.split_once('.').map_or((&*actor.name, None), |(service, queue)| (service, Some(queue)));
        self.names().query_queue(&self.names().queue(service, queue))
    }

    async fn equal(&self, queue: &Queue) -> Result<Equal, DeadError> {
        match self.broker().compare(&Topology::of_queues([queue.clone()])).await {
            Ok(()) => Ok(Equal::Yes),
            Err(BrokerError::Inequivalent { reason, .. }) => Ok(Equal::No(reason)),
            Err(error @ BrokerError::Forbidden { .. }) => Ok(Equal::NotTold(error)),
            Err(error) if error.is_permanent() => Ok(Equal::No(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// Checks that need the management API: policies, replicas, bindings. Returns whether it knew of the bindings.
    async fn managed(&self, report: &QueueReport, findings: &mut Vec<Finding>) -> bool {
        let names = ["policies", "replicas"];
        let Some(management) = self.management.clone() else {
            let check =
                |name| Check { name, subject: &report.name, source: "AMQP does not show it" }.needs_management();
            findings.extend(names.map(check));
            return false;
        };
        let (queue, path) = (report.name.clone(), format!("GET {}", management.path(&report.name)));
        let asked = tokio::task::spawn_blocking(move || Ok((management.queue(&queue)?, management.bindings(&queue)?)));
        let (info, bound) = match asked.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(found) => found,
            Err(problem) => {
                let check = |name| Check { name, subject: &report.name, source: &path }.not_checked(problem.clone());
                findings.extend(names.map(check));
                return false;
            }
        };
        let check = |name| Check { name, subject: &report.name, source: &path };
        let breaking: Vec<String> = info
            .policies()
            .into_iter()
            .filter(|(word, _)| BREAKING_POLICIES.contains(&word.as_str()))
            .map(|(word, value)| format!("{word} = {value}"))
            .collect();
        let policy = info.policy.as_deref().unwrap_or("an operator policy");
        findings.push(if breaking.is_empty() {
            check("policies").ok("none that drops or refuses messages")
        } else {
            check("policies").problem(format!("{policy:?} drops or refuses messages: {}", breaking.join(", ")))
        });
        let away: Vec<&String> = info.members.iter().filter(|node| !info.online.contains(node)).collect();
        findings.push(if away.is_empty() {
            check("replicas").ok(format!("{} of {} up", info.online.len(), info.members.len()))
        } else {
            check("replicas").problem(format!("not up: {away:?}"))
        });
        let source = format!("{path}/bindings");
        let check = Check { name: "bindings", subject: &report.name, source: &source };
        let missing: Vec<String> =
            report.bindings.iter().filter(|binding| !bound.contains(binding)).map(|json| self.shown(json)).collect();
        findings.push(if missing.is_empty() {
            check.ok(format!("all {} stand", report.bindings.len()))
        } else {
            check.problem(format!("missing: {}; restart the consumer", missing.join(", ")))
        });
        true
    }

    async fn dead_queue(&self, actor: &ActorReport, findings: &mut Vec<Finding>) -> Result<(), DeadError> {
        let source = "queue.declare (passive), then equal";
        let check = Check { name: "dead-letter queue", subject: &actor.dead_queue, source };
        if self.broker().inspect(&actor.dead_queue).await?.is_none() {
            findings
                .push(check.problem("it does not stand; what is given up now would wait for it: restart a process"));
            return Ok(());
        }
        findings.push(match self.equal(&Queue::replicated(&actor.dead_queue)).await? {
            Equal::Yes => check.ok("durable and replicated"),
            Equal::No(reason) => check.problem(reason),
            Equal::NotTold(error) => check.refused(&error, "configure the queue"),
        });
        findings.extend(self.letters(&actor.dead_queue).await?);
        Ok(())
    }

    /// Counts the dead letters in a queue.
    pub(super) async fn letters(&self, queue: &str) -> Result<Option<Finding>, DeadError> {
        let check =
            Check { name: "dead letters", subject: queue, source: "queue.declare-ok, basic.deliver of the first" };
        if is_migrating(self.broker(), queue).await? {
            return Ok(Some(check.problem(NOT_FINISHED)));
        }
        let Some(state) = self.broker().inspect(queue).await? else { return Ok(None) };
        if state.ready == 0 {
            return Ok(Some(check.ok("none")));
        }
        let first = DeadLetters::new(&self.bus).first(queue).await?;
        let since = first.and_then(|letter| SystemTime::now().duration_since(letter.at()?).ok());
        let since = since.map_or("some time".to_owned(), age);
        let text = format!("{} wait, for up to {since}; `postrider dead list --queue {queue}` shows them", state.ready);
        Ok(Some(check.warning(text)))
    }

    /// A recorded subscription in one line.
    fn shown(&self, recorded: &serde_json::Value) -> String {
        let subscription = self.broker().recorded_subscription(recorded);
        subscription.map_or_else(|| recorded.to_string(), |subscription| record::shown(self.broker(), &subscription))
    }

    /// Finds bindings that were declared once and that no running process wants.
    async fn stale(&self, service: &str, actors: &[ActorReport], findings: &mut Vec<Finding>) -> Result<(), DeadError> {
        let source = format!("the message in {}", self.names().topology(service));
        let check = Check { name: "stale bindings", subject: service, source: &source };
        let Some(recorded) = record::read(self.broker(), self.names(), service).await? else {
            findings.push(check.not_checked("not checked (nothing was recorded)"));
            return Ok(());
        };
        let wanted: BTreeSet<Subscription> = actors
            .iter()
            .flat_map(|actor| &actor.queues)
            .flat_map(|queue| &queue.bindings)
            .filter_map(|json| self.broker().recorded_subscription(json))
            .collect();
        let stale: Vec<String> = recorded
            .difference(&wanted)
            .filter(|subscription| subscription.queue().is_some())
            .map(|subscription| record::shown(self.broker(), subscription))
            .collect();
        findings.push(if stale.is_empty() {
            check.ok("none")
        } else {
            check.problem(format!(
                "no process handles what comes through {}; `topology gc --apply` of the service removes them",
                stale.join(", ")
            ))
        });
        Ok(())
    }
}

/// AMQP does not show bindings. Each process redeclares its own regularly and reports when it last succeeded.
fn bound(queue: &QueueReport, reports: &[ProcessReport], source: &str) -> Finding {
    let check = Check { name: "bindings", subject: &queue.name, source };
    let ours =
        |report: &&ProcessReport| report.actors.iter().flat_map(|actor| &actor.queues).any(|other| other == queue);
    let last = reports.iter().filter(ours).filter_map(|report| report.bound_seconds).min();
    match last {
        Some(seconds) if seconds <= 2 * REBIND_AFTER.as_secs() => {
            check.ok(format!("all {} were declared again {seconds} s ago by a process", queue.bindings.len()))
        }
        Some(seconds) => check.problem(format!("no process could declare them for {seconds} s; `lanes` says why")),
        None => check.needs_management(),
    }
}

fn lanes_of(report: &ProcessReport, source: &str) -> Vec<Finding> {
    let process = format!("{}@{}", report.service, report.instance);
    let check = Check { name: "lanes", subject: &process, source };
    let silent: Vec<String> = report
        .lanes
        .iter()
        .filter(|lane| !lane.consuming)
        .map(|lane| format!("{} ({})", lane.queue, lane.problem.as_deref().unwrap_or("no reason is known")))
        .collect();
    let paused = report.lanes.iter().filter(|lane| lane.consuming && lane.problem.is_some()).count();
    vec![match (silent.is_empty(), paused, report.ready) {
        (false, ..) => check.problem(format!("not consuming: {}", silent.join(", "))),
        (true, _, false) => check.problem("it is not ready: it stops, or has no connection"),
        (true, 0, true) => check.ok(format!("all {} consume", report.lanes.len())),
        (true, paused, true) => check.warning(format!("{paused} of {} are paused", report.lanes.len())),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operate::doctor::finding::Verdict;

    #[test]
    fn bindings_are_what_the_process_that_declared_them_last_says() {
        let queue = QueueReport { name: "app.alpha".into(), arguments: BTreeMap::new(), bindings: vec![] };
        let process = |bound_seconds, queues| {
            let (name, domains, dead_queue) = ("alpha".into(), vec![], "app.alpha.dead".into());
            let guarantee = "at_least_once".into();
            let actor = ActorReport { name, paused: false, guarantee, domains, dead_queue, most_attempts: 1, queues };
            let [service, instance, version] = ["alpha", "i1", "0"].map(str::to_owned);
            let (lanes, actors) = (vec![], vec![actor]);
            ProcessReport { service, instance, version, ready: true, actors, lanes, bound_seconds, problem: None }
        };
        let ours = |seconds| process(seconds, vec![queue.clone()]);
        let limit = 2 * REBIND_AFTER.as_secs();
        for (reports, expected) in [
            (vec![], Verdict::NotChecked),
            (vec![ours(None)], Verdict::NotChecked),
            (vec![process(Some(1), vec![])], Verdict::NotChecked),
            (vec![ours(Some(limit))], Verdict::Ok),
            (vec![ours(Some(limit + 1))], Verdict::Problem),
            (vec![ours(Some(limit + 1)), ours(None), ours(Some(3))], Verdict::Ok),
        ] {
            let finding = bound(&queue, &reports, "a process");
            assert_eq!(finding.verdict, expected, "{finding:?} of {reports:?}");
        }
    }
}
