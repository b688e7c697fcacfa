//! A client for RabbitMQ's management API, which shows what AMQP does not. Only `postrider doctor` uses it.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use ureq::Agent;

use crate::adapter::amqp::{Binding, Destination};
use crate::message::Secret;

/// The timeout of one request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The management API of one virtual host.
#[derive(Clone)]
pub struct Management {
    agent: Agent,
    /// `http://host:15672`, without user and password.
    base: String,
    credentials: Secret,
    vhost: String,
}

/// A queue as the management API describes it.
#[derive(Debug, Clone, Deserialize)]
pub struct QueueInfo {
    /// The name of the policy that applies, if any.
    #[serde(default)]
    pub policy: Option<String>,
    /// The merged settings of all policies that apply.
    #[serde(default)]
    pub effective_policy_definition: Json,
    /// The nodes that have a replica; empty for a queue that is not replicated.
    #[serde(default)]
    pub members: Vec<String>,
    /// The members that are up.
    #[serde(default)]
    pub online: Vec<String>,
}

impl QueueInfo {
    /// The settings of the policies, by name.
    #[must_use]
    pub fn policies(&self) -> BTreeMap<String, Json> {
        // RabbitMQ writes an empty definition as a list.
        serde_json::from_value(self.effective_policy_definition.clone()).unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct BindingInfo {
    source: String,
    routing_key: String,
    destination: String,
}

impl Management {
    /// Parses `http://user:password@host:15672/vhost`. The default virtual host is `/`.
    ///
    /// # Errors
    /// If the address cannot be used. The text does not contain the password.
    pub fn new(address: &Secret) -> Result<Self, String> {
        let wrong = || "--management: write it as http://user:password@host:15672/vhost".to_owned();
        let (scheme, rest) = address.reveal().split_once("://").ok_or_else(wrong)?;
        let (credentials, rest) = rest.rsplit_once('@').ok_or_else(wrong)?;
        let (host, vhost) = rest.split_once('/').unwrap_or((rest, ""));
        let known = scheme == "http" || (scheme == "https" && tls::AVAILABLE);
        if !known || host.is_empty() || !credentials.contains(':') {
            return Err(wrong());
        }
        let vhost = if vhost.is_empty() { "%2F".to_owned() } else { vhost.trim_end_matches('/').to_owned() };
        let config = tls::configured(Agent::config_builder().timeout_global(Some(ANSWER_TIMEOUT)));
        Ok(Self {
            agent: config.build().new_agent(),
            base: format!("{scheme}://{host}"),
            credentials: Secret::new(credentials),
            vhost,
        })
    }

    /// Asks for a queue. Blocks.
    ///
    /// # Errors
    /// If the request fails, or the answer is not as expected.
    pub fn queue(&self, name: &str) -> Result<QueueInfo, String> {
        self.get(&self.path(name))
    }

    /// The bindings of a queue, in the JSON form of recorded bindings, without the default exchange's. Blocks.
    ///
    /// # Errors
    /// As [`Management::queue`].
    pub fn bindings(&self, name: &str) -> Result<Vec<Json>, String> {
        let found: Vec<BindingInfo> = self.get(&format!("{}/bindings", self.path(name)))?;
        let binding = |info: BindingInfo| Binding {
            source: info.source,
            routing_key: info.routing_key,
            destination: Destination::Queue(info.destination),
        };
        let bindings = found.into_iter().map(binding).filter(|binding| !binding.source.is_empty());
        Ok(bindings.filter_map(|binding| serde_json::to_value(binding).ok()).collect())
    }

    /// The API path of a queue. Findings quote it.
    #[must_use]
    pub fn path(&self, queue: &str) -> String {
        format!("/api/queues/{}/{}", self.vhost, escaped(queue))
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let (user, password) = self.credentials.reveal().split_once(':').unwrap_or_default();
        let basic = BASE64_STANDARD.encode(format!("{}:{}", plain(user), plain(password)));
        let url = format!("{}{path}", self.base);
        let answer = self.agent.get(&url).header("authorization", format!("Basic {basic}")).call();
        let failed = |error: ureq::Error| format!("GET {url}: {error}");
        answer.map_err(failed)?.body_mut().read_json().map_err(failed)
    }
}

/// Percent-encodes a part of a path.
fn escaped(part: &str) -> String {
    percent_encoding::utf8_percent_encode(part, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Decodes a percent-encoded user or password.
fn plain(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(feature = "tls")]
mod tls {
    use ureq::config::ConfigBuilder;
    use ureq::tls::{RootCerts, TlsConfig};
    use ureq::typestate::AgentScope;

    pub(super) const AVAILABLE: bool = true;

    /// Trusts the system's root certificates, as the connection to the broker does.
    pub(super) fn configured(config: ConfigBuilder<AgentScope>) -> ConfigBuilder<AgentScope> {
        config.tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
    }
}

#[cfg(not(feature = "tls"))]
mod tls {
    use ureq::config::ConfigBuilder;
    use ureq::typestate::AgentScope;

    pub(super) const AVAILABLE: bool = false;

    pub(super) fn configured(config: ConfigBuilder<AgentScope>) -> ConfigBuilder<AgentScope> {
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_its_password_never_shown() {
        let management = Management::new(&Secret::new("http://me:hunter2%40@host:15672/prod")).unwrap();
        assert_eq!(management.path("a.b/c"), "/api/queues/prod/a%2Eb%2Fc");
        assert_eq!(Management::new(&Secret::new("http://u:p@h")).unwrap().vhost, "%2F");
        for wrong in ["hunter2", "ftp://u:hunter2@h", "http://hunter2@h", "http://u:hunter2@", "http://h"] {
            let error = Management::new(&Secret::new(wrong)).err().unwrap();
            assert!(error.contains("--management") && !error.contains("hunter2"), "{wrong}: {error}");
        }
        let unreachable = Management::new(&Secret::new("http://u:hunter2@127.0.0.1:1")).unwrap();
        let error = unreachable.queue("q").unwrap_err();
        assert!(error.contains("127.0.0.1:1/api/queues/%2F/q") && !error.contains("hunter2"), "{error}");
    }
}
