//! One confirm channel and the requests that wait on it: everything a thread sends goes through its outlet.

use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use crate::broker::{Addressed, Broker, BrokerError, Publication, Publisher, ReplySink, To, fit_into_frame, size};
use crate::bus::explain::explained;
use crate::bus::requests::{Refused, Requests, Waited};
use crate::bus::route::route;
use crate::bus::{Counters, RemoteError, RequestError, SendError};
use crate::codec::{self, Limits};
use crate::message::{Envelope, Kind, Problem, ReplyTo, Status};

/// Limits on publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishSettings {
    /// How long a publication may take, reconnects included. Default: 30 s.
    pub confirm_timeout: Duration,
    /// How long a request waits unless it says otherwise. Default: 30 s.
    pub request_timeout: Duration,
    /// The most requests that may be open per outlet. Default: 4 096.
    pub max_open_requests: usize,
}

impl Default for PublishSettings {
    fn default() -> Self {
        let patience = Duration::from_secs(30);
        Self { confirm_timeout: patience, request_timeout: patience, max_open_requests: 4_096 }
    }
}

/// Publishes envelopes and awaits replies on one confirm channel. Each arbiter thread has one; all other threads share one.
pub struct Outlet {
    pub(super) publisher: Arc<dyn Publisher>,
    requests: Arc<Requests>,
    pub(super) counters: Arc<Counters>,
    limits: Limits,
    pub(crate) settings: PublishSettings,
}

impl Outlet {
    /// Opens a publisher on the broker.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses.
    pub async fn open(
        broker: &Arc<dyn Broker>,
        limits: Limits,
        settings: PublishSettings,
        counters: Arc<Counters>,
    ) -> Result<Arc<Self>, BrokerError> {
        let requests = Requests::new(settings.max_open_requests, Arc::clone(&counters));
        let sink = Arc::clone(&requests);
        let sink: ReplySink = Arc::new(move |event| sink.receive(event));
        let publisher = broker.publisher(sink).await?;
        Ok(Arc::new(Self { publisher, requests, counters, limits, settings }))
    }

    /// Publishes a stamped envelope and waits until the broker has accepted it. Messages leave in the order in
    /// which the futures are first polled.
    ///
    /// # Errors
    /// When no queue takes it, the broker refuses it, or the deadline passes.
    pub fn publish(
        &self,
        envelope: Box<Envelope>,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), SendError>> + 'static {
        let span = tracing::debug_span!("send", key = %envelope.key, kind = %envelope.kind, message_id = %envelope.id,
            service = envelope.source.as_ref().map(|name| name.as_str()));
        let counters = Arc::clone(&self.counters);
        let (kind, id, delayed) = (envelope.kind, envelope.id.clone(), envelope.delay.is_some());
        let mut publications =
            route(envelope).map(|message| (message.to.clone(), self.publisher.publish(message, deadline)));
        let (first, others) = (publications.next(), publications.collect::<Vec<_>>());
        // The broker keeps a delayed message until it is due. If it does not take even an event, that is a failure.
        let kind = if delayed { Kind::Command } else { kind };
        async move {
            let Some((to, publication)) = first else { return Ok(()) };
            if others.is_empty() {
                return judge(publication.await?, kind, &to, &id, &counters);
            }
            let publications = std::iter::once((to, publication)).chain(others);
            let publications = publications.map(|(to, publication)| async { (to, publication.await) });
            for (to, publication) in join_all(publications).await {
                judge(publication?, kind, &to, &id, &counters)?;
            }
            Ok(())
        }
        .instrument(span)
    }

    /// Improves the error of a message that no queue takes: if its key belongs to a query, the error says so.
    pub(crate) async fn explained(&self, error: SendError, deadline: Instant) -> SendError {
        explained(error, &*self.publisher, deadline).await
    }

    /// Publishes a received message straight into a queue.
    ///
    /// # Errors
    /// When it is not certain that the queue took it.
    pub async fn forward(&self, mut addressed: Addressed, deadline: Instant) -> Result<(), SendError> {
        self.fit(&mut addressed);
        let id = addressed.envelope.id.clone();
        let to = addressed.to.clone();
        let publication = self.publisher.publish(addressed, deadline).await?;
        judge(publication, Kind::Command, &to, &id, &self.counters)
    }

    /// Drops headers until the message fits: this connection may have smaller frames than the one on which the message came.
    fn fit(&self, addressed: &mut Addressed) {
        let most = self.publisher.max_properties_bytes();
        if size(&addressed.envelope) > most {
            fit_into_frame(Arc::make_mut(&mut addressed.envelope), most);
        }
    }

    /// Publishes an answer a second time. It may have been the answer that closed its first channel.
    ///
    /// # Errors
    /// As [`Outlet::publish`].
    pub async fn answer_again(&self, answer: Addressed, deadline: Instant) -> Result<(), SendError> {
        let id = answer.envelope.id.clone();
        let to = answer.to.clone();
        let publication = self.publisher.publish_suspect(answer, deadline).await?;
        judge(publication, Kind::Reply, &to, &id, &self.counters)
    }

    /// Publishes a message whose delay is over.
    ///
    /// # Errors
    /// As [`Outlet::publish`].
    pub async fn publish_due(&self, mut addressed: Addressed, deadline: Instant) -> Result<(), SendError> {
        self.fit(&mut addressed);
        let id = addressed.envelope.id.clone();
        let to = addressed.to.clone();
        let kind = if let To::Key { kind, .. } = to { kind } else { Kind::Reply };
        let publication = self.publisher.publish(addressed, deadline).await?;
        judge(publication, kind, &to, &id, &self.counters)
    }

    /// Publishes a received message so that it arrives in a queue after a delay.
    ///
    /// # Errors
    /// As [`Outlet::forward`].
    pub async fn forward_later(
        &self,
        addressed: Addressed,
        delay: Duration,
        deadline: Instant,
    ) -> Result<(), SendError> {
        self.forward(Addressed { delay: Some(delay), ..addressed }, deadline).await
    }

    /// Publishes a stamped request and waits for its reply until the deadline. `patience` is the timeout that the error names.
    ///
    /// # Errors
    /// When it is not sent, the other side answers with an error, the channel is lost, or the deadline passes.
    pub async fn request(
        &self,
        envelope: Box<Envelope>,
        patience: Duration,
        deadline: Instant,
    ) -> Result<Envelope, RequestError> {
        let key = envelope.key.to_string();
        if deadline <= Instant::now() {
            return Err(RequestError::TimedOut { key, after: patience });
        }
        let id = envelope.correlation_id.as_ref().unwrap_or(&envelope.id).clone();
        let published = self.publish(envelope, deadline);
        self.answered(published, id.as_str(), key, deadline, patience).await
    }

    /// Publishes a received message straight into a queue, and waits for its handler's answer.
    ///
    /// # Errors
    /// As [`Outlet::request`].
    pub async fn ask(
        &self,
        mut addressed: Addressed,
        id: &str,
        key: &str,
        patience: Duration,
    ) -> Result<Envelope, RequestError> {
        let envelope = Arc::make_mut(&mut addressed.envelope);
        envelope.reply_to = Some(ReplyTo::Caller);
        envelope.correlation_id = Some(id.into());
        let deadline = Instant::now() + patience;
        self.answered(self.forward(addressed, deadline), id, key.to_owned(), deadline, patience).await
    }

    /// Publishes a stamped question and collects all answers that arrive within `window`, error answers included.
    ///
    /// # Errors
    /// When it is not sent, no queue takes it, or the channel is lost.
    pub async fn ask_all(&self, envelope: Box<Envelope>, window: Duration) -> Result<Vec<Envelope>, RequestError> {
        let (key, id) = (envelope.key.to_string(), envelope.id.clone());
        let mut waiting =
            self.requests.open_for_many(id.as_str()).map_err(|refused| not_opened(refused, id.as_str()))?;
        if let Err(error) = self.publish(envelope, Instant::now() + self.settings.confirm_timeout).await {
            return Err(match waiting.answer.try_recv() {
                Ok(Waited::Lost) => RequestError::ConnectionLost { key },
                _ => error.into(),
            });
        }
        let (deadline, mut answers) = (Instant::now() + window, Vec::new());
        while let Ok(waited) = timeout_at(deadline, waiting.answer.recv()).await {
            match waited {
                Some(Waited::Reply(reply)) => answers.push(*reply),
                Some(Waited::Lost) | None => return Err(RequestError::ConnectionLost { key }),
            }
        }
        Ok(answers)
    }

    async fn answered(
        &self,
        published: impl Future<Output = Result<(), SendError>>,
        id: &str,
        key: String,
        deadline: Instant,
        patience: Duration,
    ) -> Result<Envelope, RequestError> {
        let mut waiting = self.requests.open(id).map_err(|refused| not_opened(refused, id))?;
        tokio::pin!(published);
        // The first poll sends the request. It ignores the task's budget, so that requests leave in the order of their calls.
        let sent = match tokio::task::unconstrained(async { futures::poll!(&mut published) }).await {
            Poll::Ready(result) => result,
            Poll::Pending => tokio::select! {
                biased;
                // The reply may arrive before the confirm. A failed confirm still ends the request at once. A lost channel ends
                // both; then the result of the reply counts.
                waited = &mut waiting.answer => return self.read(waited.ok(), key),
                result = &mut published => result,
            },
        };
        sent?;
        match timeout_at(deadline, &mut waiting.answer).await {
            Ok(waited) => self.read(waited.ok(), key),
            Err(_) => Err(RequestError::TimedOut { key, after: patience }),
        }
    }

    fn read(&self, waited: Option<Waited>, key: String) -> Result<Envelope, RequestError> {
        match waited {
            Some(Waited::Reply(reply)) => self.read_status(*reply, key),
            Some(Waited::Lost) | None => Err(RequestError::ConnectionLost { key }),
        }
    }

    fn read_status(&self, reply: Envelope, key: String) -> Result<Envelope, RequestError> {
        if reply.status != Some(Status::Error) {
            return Ok(reply);
        }
        let problem: Problem = codec::decode_content(&reply, &self.limits)
            .map_err(|error| RequestError::Decode { key: key.clone(), error })?;
        if problem.code == Problem::WOULD_WAIT {
            return Err(RequestError::WouldWaitForItself { key, text: problem.text });
        }
        let service = reply.source.map_or_else(|| "somebody".to_owned(), |name| name.to_string());
        Err(RequestError::Remote(RemoteError { service, key, problem }))
    }
}

fn not_opened(refused: Refused, id: &str) -> RequestError {
    match refused {
        Refused::TooMany(open) => RequestError::TooManyOpen { open },
        Refused::SameId => {
            let reason = format!("a request with the id {id:?} is open already; wait for its answer");
            RequestError::Send(SendError::Option { option: "id", reason })
        }
    }
}

pub(super) fn judge(
    publication: Publication,
    kind: Kind,
    to: &To,
    id: &crate::message::MessageId,
    counters: &Counters,
) -> Result<(), SendError> {
    match publication {
        Publication::Confirmed => {}
        // An event without a subscriber is no error; it is only counted.
        Publication::Returned if kind == Kind::Event => Counters::add(&counters.unrouted),
        Publication::Returned => {
            return Err(SendError::Unroutable { kind, key: to.name().to_string(), id: id.clone() });
        }
        Publication::Rejected => return Err(SendError::Rejected { kind, key: to.name().to_string(), id: id.clone() }),
        Publication::Unknown(reason) => {
            return Err(SendError::Unknown { kind, key: to.name().to_string(), id: id.clone(), reason });
        }
    }
    Counters::add(&counters.sent);
    Ok(())
}
