//! Names that only RabbitMQ needs in a namespace: of exchanges and of delay levels. See `docs/wire.md`, "Names".

use std::sync::Arc;

use crate::broker::Names;
use crate::message::Kind;

impl Names {
    /// The exchange for messages of a kind; replies use the default exchange.
    #[must_use]
    pub fn exchange(&self, kind: Kind) -> Arc<str> {
        Arc::clone(self.kind(kind))
    }

    /// The kind of the messages in an exchange; `None` if no kind has such an exchange.
    #[must_use]
    pub fn kind_of(&self, exchange: &str) -> Option<Kind> {
        Kind::from_word(exchange.strip_prefix(self.namespace())?.strip_prefix('.')?).filter(|kind| *kind != Kind::Reply)
    }

    /// The exchange of the wire tap.
    #[must_use]
    pub fn tap(&self) -> String {
        self.of("tap")
    }

    /// The exchange whose declaration claims a domain.
    #[must_use]
    pub fn domain(&self, domain: &str) -> String {
        self.of(&format!("domain.{domain}"))
    }

    /// The alternate exchange that names the owner in a claim. It never exists.
    #[must_use]
    pub fn owner(&self, service: &str) -> String {
        self.of(&format!("owner.{service}"))
    }

    /// The name of both the exchange and the queue of a delay level.
    #[must_use]
    pub fn delay_level(&self, level: u32) -> String {
        self.of(&format!("delay.{level}"))
    }

    /// The exchange that messages reach when their delay is over.
    #[must_use]
    pub fn delay_out(&self) -> String {
        self.of("delay.out")
    }

    /// Whether a delivery from this exchange comes out of a delay.
    #[must_use]
    pub fn is_delay(&self, exchange: &str) -> bool {
        let rest = exchange.strip_prefix(self.namespace()).and_then(|rest| rest.strip_prefix('.'));
        rest.is_some_and(|rest| rest == "due" || rest.starts_with("delay."))
    }
}
