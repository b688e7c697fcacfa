//! The handlers of an app, as `list` prints them.

use serde::Serialize;

use crate::app::builder::App;
use crate::app::config::Config;
use crate::app::entry::Entry;
use crate::handler::{Guarantee, Lane, Scope};

/// One handler, as `list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ManifestRow {
    /// The service.
    pub service: String,
    /// The actor's type.
    pub actor: String,
    /// The key or pattern.
    pub key: String,
    /// Command, event, query or channel.
    pub kind: String,
    /// The queue its messages arrive through; `…` stands for the part that differs between instances.
    pub queue: String,
    /// The delivery guarantee.
    pub guarantee: Guarantee,
    /// Which instances get a copy.
    pub scope: Scope,
    /// `exclusive` (`&mut self`) or `concurrent` (`&self`).
    pub mode: String,
    /// When a failed message is retried, as in `retry = "…"`; absent for queries.
    pub retry: Option<String>,
    /// The permission that the sender needs.
    pub permission: Option<String>,
    /// The method.
    pub method: String,
    /// Its file.
    pub file: String,
    /// Its line.
    pub line: u32,
}

impl App {
    /// Every handler of the app: what `list` prints.
    #[must_use]
    pub fn list(&self) -> Vec<ManifestRow> {
        manifest_in(self, &self.config)
    }
}

pub(crate) fn manifest_in(app: &App, config: &Config) -> Vec<ManifestRow> {
    let rows = app.entries.iter().flat_map(|entry| {
        let queue = config.namespace.queue(entry.attributes.service, entry.attributes.queue);
        entry.handlers.iter().enumerate().map(move |(index, listed)| {
            let (attributes, spec) = (&entry.attributes, &listed.spec);
            let queue = match spec.lane() {
                Lane::Durable => queue.clone(),
                Lane::Query => config.namespace.query_queue(&queue),
                Lane::Instance => format!("{queue}.instance.…"),
            };
            ManifestRow {
                service: attributes.service.to_owned(),
                actor: attributes.actor.to_owned(),
                key: spec.key.to_owned(),
                kind: spec.kind.to_string(),
                queue,
                guarantee: if spec.lane() == Lane::Durable { attributes.guarantee } else { Guarantee::AtMostOnce },
                scope: spec.scope,
                mode: if listed.exclusive { "exclusive" } else { "concurrent" }.to_owned(),
                retry: retries(entry, config, index).filter(|_| spec.lane() != Lane::Query),
                permission: spec.permission.map(str::to_owned),
                method: spec.method.to_owned(),
                file: spec.file.to_owned(),
                line: spec.line,
            }
        })
    });
    rows.collect()
}

fn retries(entry: &Entry, config: &Config, index: usize) -> Option<String> {
    entry.policies(config).ok()?.of_handlers.get(index).map(|policy| policy.retry.to_string())
}
