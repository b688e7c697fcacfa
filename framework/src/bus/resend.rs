//! Sends a handler's message again if it was not taken. The handler has succeeded and does not run again for it.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::broker::{Addressed, BrokerError};
use crate::bus::outlet::judge;
use crate::bus::route::route;
use crate::bus::{Counters, Outlet, SendError};
use crate::message::{Envelope, Kind, MessageId, is_logged};
use crate::supervise::Backoff;

/// The first pause before a message is sent again. Each pause doubles, up to `LAST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before a message is sent again.
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// How long a message is sent again. After that the delivery goes back to its queue, and its handler runs again.
const RESEND_FOR: Duration = Duration::from_secs(300);

/// The messages of an actor's handlers that are not taken right now.
#[derive(Debug, Clone, Default)]
pub struct Unsent(Arc<Mutex<(usize, String)>>);

impl Unsent {
    /// How many messages there are and why the last one is not taken, if there are any.
    #[must_use]
    pub fn shown(&self) -> Option<String> {
        let (count, why) = &*self.lock();
        let messages = if *count == 1 { "message that a handler sent is" } else { "messages that handlers sent are" };
        (*count > 0).then(|| format!("{count} {messages} not taken, and sent again: {why}"))
    }

    /// Counts one more, until the returned guard is dropped.
    fn add(&self, why: String) -> Resent {
        let mut unsent = self.lock();
        *unsent = (unsent.0 + 1, why);
        Resent(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, (usize, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one message that is being sent again.
struct Resent(Unsent);

impl Drop for Resent {
    fn drop(&mut self) {
        self.0.lock().0 -= 1;
    }
}

/// What sending again needs.
#[derive(Debug, Clone)]
pub struct Resend {
    /// The actor whose handlers send.
    pub actor: &'static str,
    /// Fires when the app stops; then nothing is sent again.
    pub stopping: CancellationToken,
    /// Shows people what is not taken.
    pub unsent: Unsent,
}

/// A message as it is sent, perhaps more than once.
struct Sealed {
    message: Addressed,
    kind: Kind,
    id: MessageId,
}

impl Outlet {
    /// Publishes a handler's message. With `resend`, a message that was rejected, or may not have arrived, is sent again with the
    /// same id until it is taken, the app stops, or five minutes have passed.
    ///
    /// # Errors
    /// As [`Outlet::publish`]: the error of the last try.
    pub fn publish_held(
        self: &Arc<Self>,
        envelope: Box<Envelope>,
        timeout: Duration,
        resend: Option<Resend>,
    ) -> impl Future<Output = Result<(), SendError>> + 'static {
        let span = tracing::debug_span!("send", key = %envelope.key, kind = %envelope.kind, message_id = %envelope.id,
            service = envelope.source.as_ref().map(|name| name.as_str()));
        let outlet = Arc::clone(self);
        let mut copies = self.sealed(envelope);
        let (first, others) = (copies.next(), copies.collect::<Vec<_>>());
        async move {
            let Some(first) = first else { return Ok(()) };
            let resend = resend.as_ref();
            let sent = if others.is_empty() {
                outlet.until_taken(first, timeout, resend).await
            } else {
                let sends = std::iter::once(first).chain(others);
                let sent = join_all(sends.map(|sealed| outlet.until_taken(sealed, timeout, resend))).await;
                sent.into_iter().collect()
            };
            match sent {
                Ok(()) => Ok(()),
                Err(error) => Err(outlet.explained(error, Instant::now() + timeout).await),
            }
        }
        .instrument(span)
    }

    fn sealed(&self, envelope: Box<Envelope>) -> impl Iterator<Item = Sealed> {
        let (kind, id, delayed) = (envelope.kind, envelope.id.clone(), envelope.delay.is_some());
        // The broker keeps a delayed message until it is due. If it does not take even an event, that is a failure.
        let kind = if delayed { Kind::Command } else { kind };
        route(envelope).map(move |message| Sealed { message, kind, id: id.clone() })
    }

    async fn send_once(&self, sealed: &Sealed, deadline: Instant) -> Result<(), SendError> {
        let publication = self.publisher.publish(sealed.message.clone(), deadline).await?;
        judge(publication, sealed.kind, &sealed.message.to, &sealed.id, &self.counters)
    }

    async fn until_taken(&self, sealed: Sealed, timeout: Duration, resend: Option<&Resend>) -> Result<(), SendError> {
        let sent = self.send_once(&sealed, Instant::now() + timeout).await;
        let (Err(error), Some(resend)) = (&sent, resend) else { return sent };
        if !may_be_taken_later(error) {
            return sent;
        }
        let (until, mut backoff) = (Instant::now() + RESEND_FOR, Backoff::new(FIRST_PAUSE, LAST_PAUSE));
        let (mut sent, mut shown) = (sent, None);
        while let Err(error) = &sent
            && may_be_taken_later(error)
            && Instant::now() + backoff.pause() < until
        {
            if is_logged("what a handler sent is not taken", resend.actor) {
                tracing::warn!(actor = resend.actor, %error, pause = ?backoff.pause(), "what a handler sent is not taken; it is sent again");
            }
            shown = Some(resend.unsent.add(error.to_string()));
            tokio::select! {
                biased;
                () = resend.stopping.cancelled() => return sent,
                () = sleep(backoff.pause()) => backoff.grow(),
            }
            Counters::add(&self.counters.resent);
            sent = tokio::select! {
                biased;
                // A stopping app does not wait for a broker that does not answer.
                () = resend.stopping.cancelled() => return sent,
                again = self.send_once(&sealed, Instant::now() + timeout) => again,
            };
        }
        drop(shown);
        sent
    }
}

/// Whether a later try may succeed: a queue is full, or the broker is away.
fn may_be_taken_later(error: &SendError) -> bool {
    match error {
        SendError::Rejected { .. } | SendError::Unknown { .. } => true,
        SendError::Broker(error) => !error.is_permanent() && !matches!(error, BrokerError::Stopped),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
