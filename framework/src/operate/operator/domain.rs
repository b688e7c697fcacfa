//! `postrider domain list|release`.

use clap::Subcommand;
use serde_json::json;

use crate::broker::{Broker, BrokerError, Claim, Names, Topology};
use crate::operate::output;
use crate::operate::printable::{json_line, one_line};

#[derive(Subcommand)]
pub(super) enum DomainCommand {
    /// Print claimed domains and their owners
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Release a domain whose owner is gone for good
    Release {
        /// The domain
        domain: String,
    },
}

/// Runs a command.
///
/// # Errors
/// One sentence.
pub(super) async fn obey(command: DomainCommand, broker: &dyn Broker, names: &Names) -> Result<(), String> {
    match command {
        DomainCommand::List { json } => list_domains(broker, json).await,
        DomainCommand::Release { domain } => release_domain(broker, names, &domain).await,
    }
}

async fn list_domains(broker: &dyn Broker, as_json: bool) -> Result<(), String> {
    let claims = broker.registry().claims().await.map_err(|error| error.to_string())?;
    let mut standing = Vec::new();
    for claim in claims {
        let claimed = Topology { claims: vec![claim.clone()], ..Topology::default() };
        if !broker.absent(&claimed).await.map_err(|error| error.to_string())?.is_empty() {
            continue;
        }
        // Comparing the claim under this owner succeeds if the owner is right, and fails with `DomainOwned` if not.
        match broker.compare(&claimed).await {
            // A user who may not configure cannot compare: the claim is there, and was listed for this service.
            Ok(()) | Err(BrokerError::Forbidden { .. }) => standing.push(claim),
            Err(BrokerError::DomainOwned { .. }) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    if as_json {
        let shown = |claim: &Claim| json!({ "domain": claim.domain, "service": claim.service });
        output::line(json_line(&json!(standing.iter().map(shown).collect::<Vec<_>>())));
    } else {
        standing
            .iter()
            .for_each(|claim| output::line(format_args!("{}  {}", one_line(&claim.domain), one_line(&claim.service))));
    }
    Ok(())
}

async fn release_domain(broker: &dyn Broker, names: &Names, domain: &str) -> Result<(), String> {
    postrider_grammar::check_word("domain", domain).map_err(|error| error.to_string())?;
    // The owner does not matter.
    let claim = Claim { domain: domain.to_owned(), service: String::new() };
    let claimed = Topology { claims: vec![claim], ..Topology::default() };
    if !broker.absent(&claimed).await.map_err(|error| error.to_string())?.is_empty() {
        return Err(format!("nobody has claimed the domain {domain:?} in namespace {:?}", names.namespace()));
    }
    broker.remove(&claimed).await.map_err(|error| error.to_string())?;
    output::line(format_args!("released {domain}"));
    Ok(())
}
