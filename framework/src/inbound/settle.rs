//! Carries out the decision about a delivery and consumes its receipt.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::{Addressed, Queue, Topology, is_direct_reply};
use crate::bus::{Bus, Counters, SendError, route};
use crate::codec;
use crate::handler::{Failed, HandlerSpec, Lane, Outcome};
use crate::host::{AttemptRecord, End, Handled, Nameless, Settlement, Turn};
use crate::inbound::callers::Callers;
use crate::inbound::forward::{DeadLetter, dead_letter, retried, skewed};
use crate::inbound::suspects::AloneRun;
use crate::message::{Envelope, MediaType, Problem, Status, is_logged};

/// The pauses between tries to forward a dead letter, a retry or a message that is put off. After the last one the message is
/// given back to its queue.
const FORWARD_PAUSES: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
];

/// A delivery that is held: its receipt, and what settling it needs.
pub(super) struct HeldDelivery {
    pub(super) receipt: Option<crate::broker::Receipt>,
    /// Whether it may have been delivered before.
    pub(super) redelivered: bool,
    /// Identifies its redelivery, if it came without an id.
    pub(super) nameless: Option<Nameless>,
    /// The message as received; the attempts share it. Retries and dead letters forward this one, whatever a handler or
    /// middleware changes.
    pub(super) envelope: Arc<Envelope>,
    /// Whether its handling has ended, on the channel that delivered it.
    pub(super) ended: bool,
    /// The right to handle it, and how it was handled, until it is settled.
    pub(super) handled: Option<(Turn, Handled)>,
    /// Its run as a suspect, which is handled alone because it may end its process.
    pub(super) alone: Option<AloneRun>,
}

/// How the receipt is used in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receive {
    Ack,
    GiveBack,
}

/// What an actor's lanes need to settle deliveries.
#[derive(Clone)]
pub(super) struct Settler {
    pub(super) bus: Bus,
    pub(super) counters: Arc<Counters>,
    pub(super) actor: &'static str,
    pub(super) queue: Rc<str>,
    pub(super) dead_queue: Rc<str>,
    pub(super) confirm_timeout: Duration,
    pub(super) stopping: CancellationToken,
    pub(super) handlers: Rc<[HandlerSpec]>,
    pub(super) callers: Rc<Callers>,
}

impl Settler {
    /// Whether settling publishes anything before it uses the receipt.
    pub(super) fn needs_io(settlement: Settlement) -> bool {
        settlement.answer || !matches!(settlement.end, End::Ack | End::GiveBack)
    }

    /// Answers and forwards as decided, and returns how to use the receipt. A forwarded message is confirmed before the receipt
    /// is used, so that the message is in two places rather than in none.
    pub(super) async fn settle(&self, handled: Handled, lane: Lane, held: &HeldDelivery) -> Receive {
        let Handled { outcome, made, settlement } = handled;
        let mut end = settlement.end;
        if end == End::AckIfAnswered {
            if self.refused(&outcome, &held.envelope).await {
                return Receive::Ack;
            }
            end = End::DeadLetter;
        } else if settlement.answer {
            // The first answer to a query was sent on the channel of the query, which has closed.
            let is_second = lane == Lane::Query && held.redelivered;
            self.answer(&outcome, &held.envelope, is_second).await;
        }
        let forward = match end {
            End::Ack | End::AckIfAnswered => return Receive::Ack,
            End::GiveBack | End::Stop => return Receive::GiveBack,
            End::Discard => {
                self.discarded(&outcome, &made, held);
                return Receive::Ack;
            }
            // An instance's queue ends with the instance; the message cannot come again later.
            End::Later(_) | End::Retry(_) if lane == Lane::Instance => return Receive::Ack,
            End::Later(_) => skewed(&held.envelope, &self.queue),
            End::Retry(_) => {
                let error = made.first_error.as_deref().map_or_else(|| in_short(&outcome), str::to_owned);
                retried(&held.envelope, &self.queue, made.attempt + 1, &error)
            }
            End::DeadLetter => self.dead_letter(&outcome, &made, held),
        };
        // A message that cannot be moved has not failed: its handler does not run again for it.
        for pause in FORWARD_PAUSES {
            let Err(error) = self.forward(forward.clone(), end).await else {
                match end {
                    End::DeadLetter => Counters::add(&self.counters.dead_lettered),
                    End::Retry(_) => Counters::add(&self.counters.delayed),
                    _ => {}
                }
                return Receive::Ack;
            };
            if is_logged("a message could not be moved", &self.queue) {
                tracing::error!(queue = %self.queue, message_id = %held.envelope.id, error, ?pause, "a message could not be moved; it stays in its queue");
            }
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        Receive::GiveBack
    }

    fn discarded(&self, outcome: &Outcome, made: &AttemptRecord, held: &HeldDelivery) {
        Counters::add(&self.counters.discarded);
        if is_logged("message given up: discarded", &self.queue) {
            tracing::warn!(service = self.bus.identity.service.as_str(), actor = self.actor, key = %held.envelope.key,
            message_id = %held.envelope.id, attempts = made.attempt, error = in_short(outcome), "message given up: discarded, as its policy says");
        }
    }

    fn dead_letter(&self, outcome: &Outcome, made: &AttemptRecord, held: &HeldDelivery) -> Addressed {
        let unknown = Failed {
            class: crate::handler::FailureClass::Permanent,
            problem: Problem::new(Problem::FAILED, "no reason is known"),
            log: "no reason is known".into(),
        };
        let failed = if let Outcome::Failed(failed) = outcome { failed } else { &unknown };
        let service = self.bus.identity.service.as_str();
        let handler = made.handler.and_then(|index| self.handlers.get(index)).copied();
        let attempts = made.attempt;
        if is_logged("message given up: dead-lettered", &self.queue) {
            tracing::error!(service, actor = self.actor, key = %held.envelope.key, message_id = %held.envelope.id, attempts,
            reason = failed.class.as_str(), error = %failed.log, queue = %self.dead_queue, "message given up: dead-lettered");
        }
        let first_error = made.first_error.as_deref();
        let why = DeadLetter { service, actor: self.actor, handler, attempts, first_error, failed };
        dead_letter(&held.envelope, &self.dead_queue, &why)
    }

    async fn forward(&self, addressed: Addressed, end: End) -> Result<(), String> {
        let (outlet, deadline) = (&self.bus.outlet, Instant::now() + self.confirm_timeout);
        let forwarded = match end {
            End::Later(delay) | End::Retry(delay) => outlet.forward_later(addressed, delay, deadline).await,
            End::DeadLetter => match outlet.forward(addressed.clone(), deadline).await {
                // Somebody deleted the dead-letter queue.
                Err(SendError::Unroutable { .. }) => {
                    let dead_queue = Topology::of_queues([Queue::replicated(&*self.dead_queue)]);
                    let declared = self.bus.broker.declare(&dead_queue).await;
                    declared.map_err(|error| error.to_string())?;
                    outlet.forward(addressed, deadline).await
                }
                other => other,
            },
            _ => outlet.forward(addressed, deadline).await,
        };
        forwarded.map_err(|error| error.to_string())
    }

    /// Replies are best effort: the caller may be gone. The confirm is awaited all the same, so that the delivery is not settled
    /// before its answer is sent.
    async fn answer(&self, outcome: &Outcome, request: &Envelope, is_second: bool) {
        let deadline = Instant::now() + self.confirm_timeout;
        let answered = if is_second {
            let Some(answer) = self.addressed_reply(outcome, request) else { return };
            self.bus.outlet.answer_again(answer, deadline).await
        } else {
            let Some(reply) = self.reply(outcome, request) else { return };
            self.bus.outlet.publish(Box::new(reply), deadline).await
        };
        let Err(error) = answered else { return };
        Counters::add(&self.counters.lost_replies);
        if is_logged("the answer could not be sent", &self.queue) {
            tracing::warn!(message_id = %request.id, key = %request.key, %error, "the answer could not be sent");
        }
    }

    /// Tells the caller that its request was rejected. Returns whether the caller got the answer; if not, nobody would know of
    /// the rejection.
    async fn refused(&self, outcome: &Outcome, request: &Envelope) -> bool {
        let Some(mut reply) = self.addressed_reply(outcome, request) else { return false };
        // The broker returns every mandatory message sent to a direct address.
        let address = reply.to.name();
        if !is_direct_reply(&address) {
            reply.mandatory = true;
        } else if !self.callers.are_at(&address, &*self.bus.broker).await {
            if is_logged("whoever is to hear that it was rejected is gone", &self.queue) {
                tracing::warn!(message_id = %request.id, key = %request.key, "whoever is to hear that it was rejected is gone");
            }
            return false;
        }
        let answered = self.bus.outlet.forward(reply, Instant::now() + self.confirm_timeout).await;
        if let Err(error) = &answered
            && is_logged("whoever is to hear that it was rejected does not", &self.queue)
        {
            tracing::warn!(message_id = %request.id, key = %request.key, %error, "whoever is to hear that it was rejected does not");
        }
        answered.is_ok()
    }

    /// The answer, addressed to the reply queue of the caller.
    pub(super) fn addressed_reply(&self, outcome: &Outcome, request: &Envelope) -> Option<Addressed> {
        route(Box::new(self.reply(outcome, request)?)).next()
    }

    fn reply(&self, outcome: &Outcome, request: &Envelope) -> Option<Envelope> {
        let identity = &self.bus.identity;
        let encoded = |answer: &dyn Fn(&MediaType) -> Result<Bytes, codec::EncodeError>| {
            let media_type = codec::media_type_of_answer(&request.media_type).unwrap_or(MediaType::MSGPACK);
            let payload = answer(&media_type).ok()?;
            identity.reply(request, media_type, payload)
        };
        match outcome {
            Outcome::Done(Some(reply)) => identity.reply(request, reply.media_type.clone(), reply.payload.clone()),
            // Middleware that ended the attempt itself has no answer, but the caller waits for one.
            Outcome::Done(None) => encoded(&|media_type| codec::encode(&(), media_type, &identity.limits)),
            Outcome::Failed(failed) => {
                let mut reply = encoded(&|media_type| codec::encode(&failed.problem, media_type, &identity.limits))?;
                reply.status = Some(Status::Error);
                Some(reply)
            }
            Outcome::Expired => None,
        }
    }
}

fn in_short(outcome: &Outcome) -> String {
    if let Outcome::Failed(failed) = outcome { failed.in_short() } else { outcome.as_str().to_owned() }
}
