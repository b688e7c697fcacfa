//! `postrider doctor`.

use std::time::Duration;

use clap::Args;

use crate::adapter::http::Management;
use crate::bus::Bus;
use crate::message::Secret;
use crate::operate::cli::duration;
use crate::operate::doctor::examine::Doctor;
use crate::operate::doctor::finding::{Finding, Verdict};
use crate::operate::output;
use crate::operate::printable::{json_line, one_line};

#[derive(Args)]
pub(in crate::operate) struct DoctorArgs {
    /// The management API too, http://user:password@host:15672/vhost, for what AMQP does not show
    #[arg(long, value_name = "URL", env = "POSTRIDER_MANAGEMENT", hide_env_values = true)]
    management: Option<String>,
    /// How long running processes may take to answer
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2s")]
    wait: Duration,
    /// As JSON, one finding a line
    #[arg(long)]
    json: bool,
}

/// Runs the doctor and prints its findings.
///
/// # Errors
/// One sentence, when a promise is broken.
pub(in crate::operate) async fn obey(args: DoctorArgs, bus: &Bus) -> Result<(), String> {
    let mut doctor = Doctor::new(bus).waiting(args.wait);
    if let Some(address) = args.management {
        doctor = doctor.management(Management::new(&Secret::new(address))?);
    }
    let findings = doctor.examine().await.map_err(|error| error.to_string())?;
    if args.json {
        findings.iter().for_each(|finding| output::line(json_line(&serde_json::json!(finding))));
    } else {
        print(&findings);
    }
    let problems = findings.iter().filter(|finding| finding.verdict == Verdict::Problem).count();
    if problems == 0 { Ok(()) } else { Err(format!("{problems} of {} checks found a problem", findings.len())) }
}

fn print(findings: &[Finding]) {
    output::line(format_args!("{:<12} {:<18} {:<40} FOUND  [FROM]", "", "CHECK", "OF"));
    for Finding { verdict, check, subject, text, source } in findings {
        let (subject, text, source) = (one_line(subject), one_line(text), one_line(source));
        output::line(format_args!("{:<12} {check:<18} {subject:<40} {text}  [{source}]", verdict.to_string()));
    }
}
