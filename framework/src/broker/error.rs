//! Errors between this process and a broker.

/// An error between this process and the broker. The texts name the value and the remedy, never a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The address cannot be used.
    #[error("broker address {address:?}: {reason}")]
    Address {
        /// The address without its password.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No broker answers there, or the connection broke while it was being opened.
    #[error("cannot reach the broker at {address}: {reason}; is it running, and is the address right?")]
    Unreachable {
        /// The address without its password.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The broker refused user, password or virtual host.
    #[error("the broker at {address} refused us: {reason}; check user, password and virtual host in the address")]
    Refused {
        /// The address without its password.
        address: String,
        /// What the broker said.
        reason: String,
    },
    /// The broker accepts no more connections at the moment, in this virtual host or for this user.
    #[error(
        "the broker at {address} takes no more connections for now: {reason}; raise that limit, or end other clients"
    )]
    Full {
        /// The address without its password.
        address: String,
        /// The limit, in the broker's words.
        reason: String,
    },
    /// There is no secure connection: one side does not accept the other.
    #[error("no secure connection to the broker at {address}: {reason}")]
    Untrusted {
        /// The address without its password.
        address: String,
        /// What to do about it, and what the TLS library said.
        reason: String,
    },
    /// The file with certificates to trust cannot be used.
    #[error("broker_ca {file:?}: {reason}")]
    Certificates {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The program's log would show secrets.
    #[error(
        "not connecting, because the log of this program shows the trace of the broker's client ({target}), which holds user and password; add the layer postrider::operate::without_secrets() to it, or leave {target} out"
    )]
    LogShowsSecrets {
        /// The part of the client.
        target: &'static str,
    },
    /// The user may not do this.
    #[error(
        "the broker does not allow it: {reason}; docs/operations.md, \"Rights that each part needs\", says what the user needs"
    )]
    Forbidden {
        /// What the broker said.
        reason: String,
    },
    /// It already exists with other arguments.
    #[error(
        "{what} exists with other arguments: {reason}; `topology migrate` gives a queue new arguments and keeps its messages; or use another namespace or name"
    )]
    Inequivalent {
        /// The exchange or queue.
        what: String,
        /// What the broker said: the argument and both values.
        reason: String,
    },
    /// Another service owns the domain.
    #[error(
        "service {claimant:?} cannot own the domain {domain:?}: {reason}; use another domain, or run `postrider domain release {domain}` when its owner is gone for good"
    )]
    DomainOwned {
        /// The domain.
        domain: String,
        /// The service that asked for it.
        claimant: String,
        /// Names the present owner.
        reason: String,
    },
    /// Another connection consumes the queue exclusively.
    #[error("{what} is in use by another connection: {reason}")]
    Locked {
        /// The queue.
        what: String,
        /// What the broker said.
        reason: String,
    },
    /// It exists, but the broker node that holds it is down; or it has been deleted.
    #[error("{what} cannot be used for now: {reason}")]
    Absent {
        /// The exchange or queue.
        what: String,
        /// What the broker said.
        reason: String,
    },
    /// The broker closed the channel because a delivery was not acknowledged in time.
    #[error(
        "a delivery was not settled within the broker's consumer_timeout of {limit:?}; set POSTRIDER_CONSUMER_TIMEOUT to it"
    )]
    Unsettled {
        /// The time that the broker allows.
        limit: std::time::Duration,
    },
    /// The connection or the channel is gone; a new one may work.
    #[error("the connection to the broker was lost: {reason}")]
    Lost {
        /// What is known about it.
        reason: String,
    },
    /// The broker permanently refused the message or the request.
    #[error("the broker refused: {reason}")]
    Protocol {
        /// What the broker said.
        reason: String,
    },
    /// The broker did not answer in time.
    #[error("the broker did not answer within {seconds} s: {what}")]
    TimedOut {
        /// The request.
        what: String,
        /// How long we waited.
        seconds: u64,
    },
    /// We closed the connection ourselves.
    #[error("the app has stopped")]
    Stopped,
}

impl BrokerError {
    /// Whether trying again without a change is pointless.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Address { .. }
            | Self::Refused { .. }
            | Self::Untrusted { .. }
            | Self::Certificates { .. }
            | Self::LogShowsSecrets { .. }
            | Self::Forbidden { .. }
            | Self::Inequivalent { .. }
            | Self::DomainOwned { .. }
            | Self::Protocol { .. }
            | Self::Stopped => true,
            Self::Unreachable { .. }
            | Self::Full { .. }
            | Self::Unsettled { .. }
            | Self::Lost { .. }
            | Self::TimedOut { .. }
            | Self::Locked { .. }
            | Self::Absent { .. } => false,
        }
    }
}
