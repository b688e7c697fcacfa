//! What was measured, for people and for programs.

use std::fmt::Write;

use serde_json::json;

use crate::bench::comparison::{Compared, Metric};

/// One comparison, as soon as it is there.
pub fn line(row: &Compared) -> String {
    let Compared { ours, plain, ratio, spread, cpu_us_ours, cpu_us_plain, cpu_ratio, .. } = row;
    let unit = unit(row);
    format!(
        "{:<28} {ours:>9.0} {plain:>9.0} {unit}  ratio {ratio:.2} ({:.2} to {:.2})  CPU {cpu_us_ours:.1} and {cpu_us_plain:.1} µs, ratio {cpu_ratio:.2}{}",
        row.comparison.name,
        spread.0,
        spread.1,
        if row.holds() { "" } else { "  NOT AS WANTED" }
    )
}

/// All of them, as Markdown.
pub fn table(rows: &[Compared]) -> String {
    let mut text = String::from(
        "| work | ours | plain | ratio | spread | wanted | CPU µs, ours | CPU µs, plain | ratio | wanted |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let Compared { comparison, ours, plain, ratio, spread, cpu_us_ours, cpu_us_plain, cpu_ratio, .. } = row;
        let sign = if comparison.metric == Metric::PerSecond { "≥" } else { "≤" };
        let wanted =
            |sign: &str, wanted: Option<f64>| wanted.map_or_else(String::new, |ratio| format!("{sign} {ratio}"));
        let unit = unit(row);
        // Writing into a text cannot fail.
        let _ = writeln!(
            text,
            "| {} | {ours:.0} {unit} | {plain:.0} {unit} | **{ratio:.2}** | {:.2} to {:.2} | {} | {cpu_us_ours:.1} | {cpu_us_plain:.1} | **{cpu_ratio:.2}** | {} |",
            comparison.name,
            spread.0,
            spread.1,
            wanted(sign, comparison.wanted),
            wanted("≤", comparison.wanted_cpu)
        );
    }
    text
}

fn unit(row: &Compared) -> &'static str {
    if row.comparison.metric == Metric::PerSecond { "/s" } else { "µs" }
}

/// An object for each comparison.
pub fn json(rows: &[Compared]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "name": row.comparison.name, "unit": unit(row), "ours": row.ours, "plain": row.plain,
                "ratio": row.ratio, "spread": [row.spread.0, row.spread.1],
                "cpu_us_ours": row.cpu_us_ours, "cpu_us_plain": row.cpu_us_plain, "cpu_ratio": row.cpu_ratio,
                "peak_kib_ours": row.peak_kib_ours, "peak_kib_plain": row.peak_kib_plain,
            })
        })
        .collect();
    format!("{:#}\n", json!(rows))
}
