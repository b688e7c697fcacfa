//! The channel of one publisher. The fault script can make it lose messages, or confirm them late or never.

use std::sync::Arc;

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::adapter::amqp::Routed;
use crate::adapter::in_process::connection::Connection;
use crate::adapter::in_process::faults::{FaultKind, Script, Step};
use crate::adapter::in_process::publish::publish;
use crate::adapter::in_process::queue_faults::silence_ended;
use crate::adapter::in_process::replies::Replies;
use crate::adapter::in_process::strangers;
use crate::broker::{BrokerError, ConnectionState, Publication};

pub(super) struct PublishingChannel {
    pub(super) connection: Arc<Connection>,
    /// The reply address of the publisher.
    pub(super) address: Arc<str>,
    /// How often the channel has ended alone. A new one replaces it at once.
    pub(super) ends: watch::Sender<u64>,
    /// Until when writes are blocked. The lock is fair, so waiting messages keep their order.
    pub(super) blocked_until: Mutex<Option<Instant>>,
}

/// What a late confirm waits for, and what may end the wait early.
struct Unconfirmed {
    queues: Arc<[Arc<str>]>,
    not_before: Option<Instant>,
    connection: watch::Receiver<ConnectionState>,
    channel: watch::Receiver<u64>,
}

impl PublishingChannel {
    pub(super) async fn publish(&self, message: Routed, deadline: Instant) -> Result<Publication, BrokerError> {
        self.connection.open()?;
        let fault = match &self.connection.faults {
            Some(script) => Box::pin(self.enter(script, deadline)).await?,
            None => None,
        };
        match fault {
            Some(FaultKind::DropMessage) => return unknown("the fault script swallowed it"),
            Some(FaultKind::FailedWrite) => return Err(not_sent("the fault script let the write fail")),
            Some(FaultKind::PublisherChannel) => return self.end_while_publishing(message),
            Some(FaultKind::Stranger) => self.let_a_stranger_send(&message),
            Some(FaultKind::SourceDeleted) => self.connection.inner.lock().delete_exchange(&message.way.exchange),
            _ => {}
        }
        let unconfirmed = self.unconfirmed(&message, fault);
        let publication = publish(&self.connection, message, fault == Some(FaultKind::Duplicate));
        match fault {
            Some(FaultKind::DropConfirm) => return unknown("the fault script swallowed its confirm"),
            Some(FaultKind::CrashAfter) => {
                self.connection.shut();
                return Err(BrokerError::Stopped);
            }
            _ => {}
        }
        match unconfirmed {
            Some(unconfirmed) if publication.is_ok() => {
                Box::pin(self.confirmed(unconfirmed, deadline)).await.unwrap_or(publication)
            }
            _ => publication,
        }
    }

    /// Waits in line while writes are blocked. Returns the fault for this message.
    async fn enter(&self, script: &Script, deadline: Instant) -> Result<Option<FaultKind>, BrokerError> {
        let mut state = self.connection.state.subscribe();
        let written = async {
            let mut blocked_until = self.blocked_until.lock().await;
            if let Some(until) = *blocked_until {
                sleep_until(until).await;
            }
            let fault = self.connection.fault(Step::Publish, None);
            if fault == Some(FaultKind::BlockedWrite) {
                let until = Instant::now() + script.silence();
                *blocked_until = Some(until);
                sleep_until(until).await;
            }
            *blocked_until = None;
            fault
        };
        let fault = tokio::select! {
            biased;
            fault = timeout_at(deadline, written) => fault,
            // The connection may be closed meanwhile.
            _ = state.wait_for(|state| !state.up) => return Err(BrokerError::Stopped),
        };
        self.connection.open()?;
        fault.map_err(|_| not_sent("nothing was written until the deadline"))
    }

    /// Starts the fault of the message's queues. Returns what the confirm waits for, or `None` if it comes at once.
    fn unconfirmed(&self, message: &Routed, fault: Option<FaultKind>) -> Option<Unconfirmed> {
        let mut state = self.connection.inner.lock();
        if fault.is_none() && !state.troubled {
            return None;
        }
        let queues = state.targets(message);
        let mut not_before = None;
        if let (Some(fault), Some(script)) = (fault, &self.connection.faults) {
            let chosen = |script: &Script| queues.get(script.pick(queues.len())).map(Arc::clone);
            match fault {
                FaultKind::NoConfirm => {
                    if let Some(queue) = chosen(script) {
                        state.silence(&queue, Instant::now() + script.silence());
                    }
                }
                FaultKind::QueueFull => {
                    if let Some(queue) = chosen(script) {
                        state.fill(&queue, Instant::now() + script.silence());
                    }
                }
                FaultKind::LateConfirm => not_before = Some(Instant::now() + script.silence()),
                _ => {}
            }
        }
        let (connection, channel) = (self.connection.state.subscribe(), self.ends.subscribe());
        let waits = not_before.is_some() || state.is_silent(&queues);
        waits.then_some(Unconfirmed { queues, not_before, connection, channel })
    }

    /// Waits for the confirm. Returns `None` when it has come, else the outcome without it.
    async fn confirmed(&self, unconfirmed: Unconfirmed, deadline: Instant) -> Option<Result<Publication, BrokerError>> {
        let Unconfirmed { queues, not_before, mut connection, mut channel } = unconfirmed;
        let confirm = async {
            if let Some(not_before) = not_before {
                sleep_until(not_before).await;
            }
            silence_ended(&self.connection.inner, &queues).await;
        };
        tokio::select! {
            biased;
            confirm = timeout_at(deadline, confirm) => match confirm {
                Ok(()) => None,
                Err(_) => Some(unknown("no confirm came until the deadline")),
            },
            _ = channel.changed() => Some(unknown("the channel ended before its confirm came")),
            _ = connection.changed() => Some(match self.connection.open() {
                Ok(()) => unknown("the connection ended before its confirm came"),
                Err(error) => Err(error),
            }),
        }
    }

    /// Publishes a stranger's message to where this message goes.
    fn let_a_stranger_send(&self, message: &Routed) {
        if let Some(script) = &self.connection.faults {
            let stranger = strangers::message(script.pick(strangers::KINDS), message);
            let _ = publish(&self.connection, stranger, false);
        }
    }

    /// Ends the channel during a publish. The message may have arrived, but its outcome is unknown.
    fn end_while_publishing(&self, message: Routed) -> Result<Publication, BrokerError> {
        if self.connection.faults.as_ref().is_some_and(|script| script.pick(2) == 0) {
            let _ = publish(&self.connection, message, false);
        }
        self.ends.send_modify(|ends| *ends += 1);
        Replies::interrupt_at(&self.address);
        unknown("the channel ended before its confirm came")
    }
}

fn unknown(why: &str) -> Result<Publication, BrokerError> {
    Ok(Publication::Unknown(why.into()))
}

fn not_sent(why: &str) -> BrokerError {
    BrokerError::Lost { reason: format!("{why}; the message was not sent") }
}
