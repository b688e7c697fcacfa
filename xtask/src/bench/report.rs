//! Prints the measurements, for people and for programs.

use std::fmt::Write;

use serde_json::json;

use crate::bench::comparison::{Compared, Comparison, Metric};
use crate::bench::scale::Point;
use crate::bench::work::Side;

/// One comparison, printed as soon as it is measured.
pub fn line(row: &Compared) -> String {
    let Compared { ours, plain, ratio, spread, cpu_us_ours, cpu_us_plain, cpu_ratio, .. } = row;
    let unit = unit(row);
    format!(
        "{:<40} {ours:>9.0} {plain:>9.0} {unit}  ratio {ratio:.2} ({:.2} to {:.2})  CPU {cpu_us_ours:.1} and {cpu_us_plain:.1} µs, ratio {cpu_ratio:.2}{}",
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

/// An object for each comparison, and for each point, compared with the first of its kind.
pub fn json(rows: &[Compared], points: &[Point]) -> String {
    let mut objects: Vec<_> = rows
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
    objects.extend(points.iter().map(|point| {
        let first = points.iter().find(|first| first.of == point.of).unwrap_or(point);
        json!({
            "name": format!("scale / {} {}", point.much, point.of), "unit": "/s", "ours": point.per_second,
            "plain": first.per_second, "ratio": point.per_second / first.per_second, "cpu_us_ours": point.cpu_us,
            "cpu_us_plain": first.cpu_us, "cpu_ratio": point.cpu_us / first.cpu_us, "peak_mib_ours": point.peak_mib,
        })
    }));
    format!("{:#}\n", json!(objects))
}

/// Throughput and processor time against the scaled number, as charts that Markdown shows.
pub fn charts(points: &[Point]) -> String {
    let mut text = String::new();
    for same in points.chunk_by(|a, b| a.of == b.of).filter(|same| same.len() > 1) {
        chart(&mut text, same, "Messages a second", "/s", |point| point.per_second);
        chart(&mut text, same, "CPU µs for a message", "µs", |point| point.cpu_us);
    }
    text
}

fn chart(text: &mut String, same: &[Point], what: &str, unit: &str, value: impl Fn(&Point) -> f64) {
    let joined = |each: &dyn Fn(&Point) -> String| same.iter().map(each).collect::<Vec<_>>().join(", ");
    // Writing into a text cannot fail.
    let _ = writeln!(
        text,
        "```mermaid\nxychart-beta\n    title \"{what}, by {}\"\n    x-axis [{}]\n    y-axis \"{unit}\" 0 --> {:.0}\n    bar [{}]\n```\n",
        same[0].of,
        joined(&|point| format!("\"{}\"", point.much)),
        same.iter().map(|point| value(point) * 1.2).fold(1.0, f64::max),
        joined(&|point| format!("{:.1}", value(point))),
    );
}

/// How long single messages took on both sides, as charts.
pub fn latencies(rows: &[Compared]) -> String {
    let mut text = String::new();
    let is_timed = |one: &Comparison| one.metric != Metric::PerSecond && one.against == Side::Plain;
    let timed: Vec<&Compared> = rows.iter().filter(|row| is_timed(&row.comparison)).collect();
    for same in timed.chunk_by(|a, b| a.comparison.work == b.comparison.work) {
        let name = same[0].comparison.name;
        let joined =
            |each: &dyn Fn(&Compared) -> String| same.iter().map(|row| each(row)).collect::<Vec<_>>().join(", ");
        // Writing into a text cannot fail.
        let _ = writeln!(
            text,
            "```mermaid\nxychart-beta\n    title \"Latency of {}: the bare client (bars) and ours (line)\"\n    x-axis [{}]\n    y-axis \"µs\" 0 --> {:.0}\n    bar [{}]\n    line [{}]\n```\n",
            name.rsplit_once([',', '/']).map_or(name, |(work, _)| work.trim_end()),
            joined(&|row| row.comparison.metric.name().to_owned()),
            same.iter().map(|row| row.ours.max(row.plain) * 1.2).fold(1.0, f64::max),
            joined(&|row| format!("{:.0}", row.plain)),
            joined(&|row| format!("{:.0}", row.ours)),
        );
    }
    text
}
