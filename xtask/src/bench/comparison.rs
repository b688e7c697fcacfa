//! The comparisons, and the results of the two sides.

use crate::bench::work::{Books, Sample, Side, Work};

/// The figure that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Messages a second: more is better.
    PerSecond,
    /// Median in microseconds: less is better.
    P50,
    /// 90th percentile in microseconds: less is better.
    P90,
    /// 99th percentile in microseconds: less is better.
    P99,
}

impl Metric {
    pub const fn name(self) -> &'static str {
        match self {
            Metric::PerSecond => "rate",
            Metric::P50 => "p50",
            Metric::P90 => "p90",
            Metric::P99 => "p99",
        }
    }
}

/// Two sides at the same work.
#[derive(Debug, Clone, Copy)]
pub struct Comparison {
    /// The part of the name before the first blank is what `--only` takes.
    pub name: &'static str,
    pub work: Work,
    pub against: Side,
    pub metric: Metric,
    /// The wanted ratio: at least this for a rate, at most for a time.
    pub wanted: Option<f64>,
    /// The wanted ratio of processor time, at most.
    pub wanted_cpu: Option<f64>,
}

const fn compare(name: &'static str, work: Work, against: Side, metric: Metric) -> Comparison {
    Comparison { name, work, against, metric, wanted: None, wanted_cpu: None }
}

impl Comparison {
    const fn wants(mut self, ratio: f64) -> Self {
        self.wanted = Some(ratio);
        self
    }

    const fn wants_cpu(mut self, ratio: f64) -> Self {
        self.wanted_cpu = Some(ratio);
        self
    }

    pub fn value(&self, sample: &Sample) -> f64 {
        match self.metric {
            Metric::PerSecond => sample.per_second,
            Metric::P50 => sample.p50,
            Metric::P90 => sample.p90,
            Metric::P99 => sample.p99,
        }
    }
}

/// All comparisons; those of the same work share its runs.
pub const COMPARISONS: [Comparison; 26] = [
    compare("publish", Work::Publish, Side::Plain, Metric::PerSecond).wants(1.2).wants_cpu(0.5),
    compare("publish / confirms in bulk", Work::Publish, Side::Clever, Metric::PerSecond).wants_cpu(1.2),
    compare("publish / in bulk, same promises", Work::Publish, Side::Promising, Metric::PerSecond),
    compare("publish fired / confirms in bulk", Work::Fire, Side::Clever, Metric::PerSecond).wants_cpu(1.1),
    compare("publish fired / in bulk, same promises", Work::Fire, Side::Promising, Metric::PerSecond),
    compare("consume", Work::Consume, Side::Plain, Metric::PerSecond).wants(2.0),
    compare("consume / acks in bulk", Work::Consume, Side::Clever, Metric::PerSecond).wants(0.85).wants_cpu(1.6),
    compare("consume / in bulk, same properties", Work::Consume, Side::Promising, Metric::PerSecond),
    compare("both", Work::Both, Side::Plain, Metric::PerSecond).wants(1.3).wants_cpu(0.6),
    compare("rpc / 1 outstanding, p50", Work::Rpc(1), Side::Plain, Metric::P50).wants(1.2),
    compare("rpc / 1 outstanding, p90", Work::Rpc(1), Side::Plain, Metric::P90),
    compare("rpc / 1 outstanding, p99", Work::Rpc(1), Side::Plain, Metric::P99),
    compare("rpc / 1 outstanding, same promises, p50", Work::Rpc(1), Side::Promising, Metric::P50),
    compare("rpc / 64 outstanding", Work::Rpc(64), Side::Plain, Metric::PerSecond).wants(1.4),
    compare("rpc / 64 outstanding, same promises", Work::Rpc(64), Side::Promising, Metric::PerSecond),
    compare("fanout / to 3 services", Work::Fanout, Side::Plain, Metric::PerSecond).wants(1.3).wants_cpu(0.5),
    compare("low-rate / p50", Work::LowRate, Side::Plain, Metric::P50),
    compare("low-rate / p90", Work::LowRate, Side::Plain, Metric::P90),
    compare("low-rate / p99", Work::LowRate, Side::Plain, Metric::P99).wants(2.0),
    compare("once / one after the other, PostgreSQL", Work::Books(Books::Exclusive), Side::Plain, Metric::PerSecond)
        .wants(3.0),
    compare("once / the same, shared commits by hand", Work::Books(Books::Exclusive), Side::Clever, Metric::PerSecond)
        .wants(0.85),
    compare("once / one after the other, SQLite", Work::Books(Books::ExclusiveSqlite), Side::Plain, Metric::PerSecond)
        .wants(1.8),
    compare("once / 16 at once, PostgreSQL", Work::Books(Books::Sixteen), Side::Plain, Metric::PerSecond).wants(1.1),
    compare("once / each alone, PostgreSQL", Work::Books(Books::Alone), Side::Plain, Metric::PerSecond).wants(1.0),
    compare("once / only sends, PostgreSQL", Work::Books(Books::OnlySends), Side::Plain, Metric::PerSecond).wants(1.8),
    // 1.3 times as long.
    compare("in-process", Work::InProcess, Side::Plain, Metric::PerSecond).wants(0.77),
];

/// The result of one comparison: the median of each figure over the rounds.
#[derive(Debug)]
pub struct Compared {
    pub comparison: Comparison,
    pub ours: f64,
    pub plain: f64,
    pub ratio: f64,
    /// The lowest and the highest ratio of a round.
    pub spread: (f64, f64),
    pub cpu_us_ours: f64,
    pub cpu_us_plain: f64,
    pub cpu_ratio: f64,
    pub peak_kib_ours: f64,
    pub peak_kib_plain: f64,
}

impl Compared {
    /// Of the samples of each round, ours first.
    pub fn of(comparison: Comparison, rounds: &[(Sample, Sample)]) -> Self {
        let all = |pick: &dyn Fn(&(Sample, Sample)) -> f64| rounds.iter().map(pick).collect::<Vec<_>>();
        let ratios = all(&|(ours, plain)| comparison.value(ours) / comparison.value(plain));
        let spread = (ratios.iter().copied().fold(f64::INFINITY, f64::min), ratios.iter().copied().fold(0.0, f64::max));
        Self {
            comparison,
            ours: median(all(&|(ours, _)| comparison.value(ours))),
            plain: median(all(&|(_, plain)| comparison.value(plain))),
            ratio: median(ratios),
            spread,
            cpu_us_ours: median(all(&|(ours, _)| ours.cpu_us)),
            cpu_us_plain: median(all(&|(_, plain)| plain.cpu_us)),
            peak_kib_ours: median(all(&|(ours, _)| ours.peak_kib as f64)),
            peak_kib_plain: median(all(&|(_, plain)| plain.peak_kib as f64)),
            cpu_ratio: median(all(&|(ours, plain)| ours.cpu_us / plain.cpu_us)),
        }
    }

    /// Whether the target is met.
    pub fn holds(&self) -> bool {
        let more = self.comparison.metric == Metric::PerSecond;
        let fits = |wanted: f64| if more { self.ratio >= wanted } else { self.ratio <= wanted };
        self.comparison.wanted.is_none_or(fits) && self.comparison.wanted_cpu.is_none_or(|most| self.cpu_ratio <= most)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
