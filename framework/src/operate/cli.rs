//! The command line of every service binary.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};
use postrider_grammar::parse_duration;

/// Flags whose value may be empty, because it is message content.
const MAY_BE_EMPTY: [&str; 2] = ["--text", "--header"];

/// Parses the command line. On a mistake, prints it and ends the program with exit code 2.
pub(super) fn parse<C: Parser>() -> C {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if let Some(flag) = empty_flag(&arguments, &C::command()) {
        let text = format!("{flag} is given and empty; give it a value or leave it out");
        C::command().error(clap::error::ErrorKind::InvalidValue, text).exit();
    }
    C::parse_from(arguments)
}

/// The first flag with an empty value, probably from an unset variable of a script.
fn empty_flag(arguments: &[std::ffi::OsString], known: &clap::Command) -> Option<String> {
    let texts = arguments.iter().map(|argument| argument.to_string_lossy());
    let mut before = String::new();
    for text in texts.take_while(|text| text != "--") {
        let empty = match text.strip_suffix('=') {
            Some(flag) if flag.starts_with("--") => Some(flag.to_owned()),
            _ => (text.trim().is_empty() && takes_value(&before, known)).then_some(before),
        };
        if let Some(flag) = empty.filter(|flag| !flag.contains('=') && !MAY_BE_EMPTY.contains(&flag.as_str())) {
            return Some(flag);
        }
        before = text.into_owned();
    }
    None
}

/// Whether this is a flag with a value, of the program or of one of its commands.
fn takes_value(flag: &str, known: &clap::Command) -> bool {
    let Some(name) = flag.strip_prefix("--") else { return false };
    let takes = |argument: &clap::Arg| argument.get_long() == Some(name) && argument.get_action().takes_values();
    known.get_arguments().any(takes) || known.get_subcommands().any(|command| takes_value(flag, command))
}

#[derive(Parser)]
#[command(about = "A Postrider service", disable_help_subcommand = true, version = env!("CARGO_PKG_VERSION"))]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    pub(super) limits: LimitArgs,
}

#[derive(Args)]
pub(super) struct Common {
    /// The broker's address, amqp://user:password@host/vhost; several hosts separated by commas
    #[arg(long, global = true, value_name = "URL")]
    pub(super) broker: Option<String>,
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Log more: -v debug, -vv trace, -vvv trace of everything
    #[arg(short, action = ArgAction::Count, global = true)]
    pub(super) verbose: u8,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Run the services (the default), or one of them
    Run {
        /// The only service to run
        service: Option<String>,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Print what is handled
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show, declare and compare exchanges, queues and bindings
    #[command(subcommand)]
    Topology(TopologyCommand),
}

#[derive(Subcommand)]
pub(super) enum TopologyCommand {
    /// Print what this binary needs at the broker
    Show {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Declare it without running anything
    Apply,
    /// Compare it with what was declared before; exit code 1 if something is stale
    Diff,
    /// Give a queue of this binary its present arguments; its messages are kept. Its service must be stopped
    Migrate {
        /// The queue, such as postrider.invoice
        queue: String,
    },
    /// Remove bindings of handlers that have disappeared
    Gc {
        /// Do it; without it they are only printed
        #[arg(long)]
        apply: bool,
    },
}

#[derive(Args, Clone, Copy, Default)]
pub(super) struct LimitArgs {
    /// Stop after this many handled messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    messages: Option<u64>,
    /// Stop after this long, such as 30s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
    /// Stop when the process has more than this much memory
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    memory: Option<u64>,
    /// Stop when nothing was handled for this long, such as 5s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    idle: Option<Duration>,
    /// Stop with exit code 1 when a message is given up or rejected
    #[arg(long)]
    first_failure: bool,
}

impl LimitArgs {
    pub(super) fn apply(self, limits: &mut crate::app::config::RunLimits) {
        limits.messages = self.messages.or(limits.messages);
        limits.time = self.time.or(limits.time);
        limits.memory_mib = self.memory.or(limits.memory_mib);
        limits.idle = self.idle.or(limits.idle);
        limits.first_failure |= self.first_failure;
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .ok_or_else(|| format!("{text:?} is not a duration above zero with a unit, such as 500ms, 30s, 2m, 1h"))
}

#[cfg(test)]
pub(in crate::operate) mod property_tests;
