//! An app of many handlers and actors, to see what their number costs.

use clap::Args;
use postrider_benches::Failed;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long, default_value_t = 1)]
    actors: usize,
    #[arg(long, default_value_t = 1)]
    handlers: usize,
}

pub(crate) async fn run(_: Option<String>, _: &Options) -> Result<(), Failed> {
    Ok(())
}
