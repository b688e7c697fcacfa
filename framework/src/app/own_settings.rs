//! The services' own settings: factories read them, and settings that no factory reads are reported.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;

use crate::app::config::Config;
use crate::app::read_config::{merge, nearest};
use crate::app::settings::{self, Reads};
use crate::handler::Failure;

/// Which settings the services of a process have read. A setting that nothing reads may be misspelled.
#[derive(Debug, Clone, Default)]
pub(super) struct SettingsReads(Arc<Mutex<BTreeMap<String, Reads>>>);

impl SettingsReads {
    /// Reads a service's settings into a type.
    ///
    /// # Errors
    /// With the field, and where it was set.
    pub(super) fn read<T: DeserializeOwned>(&self, config: &Config, service: &str) -> Result<T, Failure> {
        let table = config.services.get(service).cloned().unwrap_or_default();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read = settings::read(table, all.entry(service.to_owned()).or_default());
        read.map_err(|error| {
            let path = format!("service.{service}.{}", error.field);
            Failure::permanent(format!("{}: {}", config.origins.shown(path.trim_end_matches('.')), error.problem))
        })
    }

    /// The settings that were set for a service but are in no type it reads, each with a suggestion.
    pub(super) fn unknown(&self, config: &Config, services: &[&str]) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut problems = Vec::new();
        for service in services {
            let Some(reads) = all.get(*service) else {
                if config.services.contains_key(*service) {
                    tracing::warn!(service, "nothing in this process reads the settings of the service");
                }
                continue;
            };
            for field in reads.passed_over.difference(&reads.read) {
                let path = format!("service.{service}.{field}");
                let meant = nearest(field, reads.known.iter().map(String::as_str));
                let meant = meant.map(|meant| config.origins.written(&path, &format!("service.{service}.{meant}")));
                let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
                let meant = if meant.is_empty() { ".".to_owned() } else { meant };
                let known: Vec<&String> = reads.known.iter().collect();
                let shown = config.origins.shown(&path);
                problems.push(format!("{shown}: service {service:?} has no such setting{meant} It has {known:?}"));
            }
        }
        problems
    }
}

/// Adds settings given in code.
///
/// # Errors
/// When they are not a table, or cannot be written as one.
pub(super) fn add(config: &mut Config, service: &str, settings: &impl serde::Serialize) -> Result<(), String> {
    let table = toml::Table::try_from(settings);
    let table = table.map_err(|error| format!("settings of service {service:?}: {error}"))?;
    merge(config.services.entry(service.to_owned()).or_default(), table);
    Ok(())
}
