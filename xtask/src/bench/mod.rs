//! `cargo xtask bench`: Postrider and the bare client do the same work, side by side in one run.

mod comparison;
pub mod instructions;
mod report;
mod role;
mod scale;
mod work;

use std::fs;
use std::path::Path;

use crate::bench::comparison::{COMPARISONS, Compared, Comparison};
use crate::bench::work::{Bench, Sample, Side, Work};
use crate::broker;
use crate::node::Node;
use crate::program;

/// How often each side works, in turn; the result is the median of the ratios.
const ROUNDS: usize = 5;
/// What can be named by `--only`.
pub const GROUPS: [&str; 9] =
    ["publish", "consume", "both", "rpc", "fanout", "low-rate", "once", "in-process", "scale"];
/// How long building the programs may take.
const BUILD_LIMIT: std::time::Duration = std::time::Duration::from_secs(1_800);

/// Measures and prints.
pub fn run(only: &[String], seconds: f64, json: Option<&Path>) -> Result<(), String> {
    let chosen: Vec<Comparison> = COMPARISONS.into_iter().filter(|one| is_chosen(one, only)).collect();
    build(&[])?;
    broker::installed()?;
    let node = Node::start()?;
    let keeps_books = chosen.iter().any(|one| matches!(one.work, Work::Books(_)));
    let postgres = if keeps_books { Some(crate::report::start_postgres()?) } else { None };
    let address = postgres.as_ref().map(|server| server.address("postgres"));
    let bench = Bench { url: node.url(), postgres: address, seconds };
    bench.prepare()?;
    let mut compared = Vec::new();
    for same_work in chosen.chunk_by(|a, b| a.work == b.work) {
        compared.extend(rounds(&bench, same_work)?);
        for row in &compared[compared.len() - same_work.len()..] {
            println!("{}", report::line(row));
        }
    }
    if !compared.is_empty() {
        println!("\n{}\n{}", report::table(&compared), report::latencies(&compared));
    }
    let mut points = Vec::new();
    if only.is_empty() || only.iter().any(|name| name == "scale") {
        points = scale::points(&bench)?;
        println!("\n{}", report::charts(&points));
    }
    if let Some(path) = json {
        fs::write(path, report::json(&compared, &points)).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Builds the programs, or some of them.
fn build(which: &[&str]) -> Result<(), String> {
    let words = [&["cargo", "build", "--quiet", "--release", "-p", "postrider-benches"], which].concat();
    program::run(&mut program::command(&words), BUILD_LIMIT)
}

fn is_chosen(comparison: &Comparison, only: &[String]) -> bool {
    only.is_empty() || only.iter().any(|name| Some(name.as_str()) == comparison.name.split(' ').next())
}

/// All sides of one kind of work take turns, so that other load on the machine meets all of them.
fn rounds(bench: &Bench, comparisons: &[Comparison]) -> Result<Vec<Compared>, String> {
    let mut samples: Vec<Vec<(Sample, Sample)>> = vec![Vec::new(); comparisons.len()];
    for _ in 0..ROUNDS {
        let ours = bench.once(comparisons[0].work, Side::Ours)?;
        let mut others: Vec<(Side, Sample)> = Vec::new();
        for (comparison, samples) in comparisons.iter().zip(&mut samples) {
            let side = comparison.against;
            let known = others.iter().find(|(known, _)| *known == side).map(|(_, sample)| *sample);
            let sample = match known {
                Some(sample) => sample,
                None => bench.once(comparison.work, side)?,
            };
            others.push((side, sample));
            samples.push((ours, sample));
        }
    }
    Ok(comparisons.iter().zip(&samples).map(|(comparison, samples)| Compared::of(*comparison, samples)).collect())
}
