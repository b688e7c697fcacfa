//! What a message costs with more handlers, actors, instances, bytes or messages, and what an idle
//! process costs.

use crate::bench::role::{Measured, OURS, PLAIN, Role, done, run};
use crate::bench::work::{Bench, Side, queue};

/// Messages handled per second of a measurement.
const RATE: f64 = 30_000.0;
/// The heartbeat, in seconds: the broker must tolerate a halted process this long.
const HEARTBEAT: &str = "?heartbeat=120";
/// One spare message for this many counted ones: each instance takes some that would be another's part.
const SPARE: u64 = 5;

/// One measured point.
#[derive(Debug)]
pub struct Point {
    /// What is scaled.
    pub of: &'static str,
    /// To which number.
    pub much: u64,
    pub per_second: f64,
    pub cpu_us: f64,
    pub peak_mib: f64,
}

impl Point {
    fn new(of: &'static str, much: u64, measured: &[Measured]) -> Self {
        let messages: u64 = measured.iter().map(|one| one.messages).sum();
        let seconds = measured.iter().map(|one| one.seconds).fold(0.0, f64::max);
        let cpu: f64 = measured.iter().map(|one| one.cpu_seconds).sum();
        let peak = measured.iter().map(|one| one.peak_kib).max().unwrap_or_default();
        Self {
            of,
            much,
            per_second: messages as f64 / seconds,
            cpu_us: cpu * 1e6 / messages as f64,
            peak_mib: peak as f64 / 1024.0,
        }
    }
}

/// All points; each is printed as soon as it is measured.
pub fn points(bench: &Bench) -> Result<Vec<Point>, String> {
    let messages = (RATE * bench.seconds) as u64;
    let mut points: Vec<Point> = Vec::new();
    let mut add = |point: Point| {
        let Point { of, much, per_second, cpu_us, peak_mib } = &point;
        println!("{of:<22} {much:>9}  {per_second:>9.0} /s  CPU {cpu_us:>9.1} µs  {peak_mib:>6.1} MiB");
        points.push(point);
    };
    for handlers in [1, 10, 100, 1_000] {
        add(Point::new("handlers", handlers, &[wide(bench, 1, handlers, messages)?.1]));
    }
    for actors in [1, 10, 100] {
        add(Point::new("actors", actors, &[wide(bench, actors, 1, messages)?.1]));
    }
    for instances in [1, 2, 4] {
        add(Point::new("instances", instances, &competing(bench, Side::Ours, instances, messages)?));
    }
    for instances in [1, 2, 4] {
        let measured = competing(bench, Side::Clever, instances, messages)?;
        add(Point::new("instances (the bare client, acks in bulk)", instances, &measured));
    }
    for bytes in [100, 1_024, 16_384, 131_072, 1_048_576] {
        let messages = (messages * 1_024 / bytes).clamp(100, messages);
        add(Point::new("bytes", bytes, &consumed(bench, messages, bytes, true)?));
    }
    for prefetch in [16, 256, 4_096] {
        add(Point::new("prefetch (16 KiB each)", prefetch, &[prefetched(bench, prefetch)?]));
    }
    for times in [1, 10] {
        add(Point::new("messages", messages * times, &consumed(bench, messages * times, 256, false)?));
    }
    // Ten bindings for each of a hundred queues; the figure is the mean over ten seconds.
    let (start, idle) = wide(bench, 100, 10, 0)?;
    add(Point::new("starting", 1_000, &[start]));
    add(Point::new("idle 10 s", 1_000, &[idle]));
    add(Point::new("starting", 100, &[wide(bench, 1, 100, 0)?.0]));
    // The baseline with one handler: the connections, and what every app declares.
    add(Point::new("starting anyway", 1, &[wide(bench, 1, 1, 0)?.0]));
    Ok(points)
}

/// The broker, for a process that is halted for a while.
fn patient(bench: &Bench) -> Bench {
    Bench { url: format!("{}{HEARTBEAT}", bench.url), postgres: None, seconds: bench.seconds }
}

/// Fills the queues of halted processes. So the figure is the cost of messages, and
/// not how often the sender's pace wakes a thread for a single one.
fn filled(roles: &[Role], fill: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    roles.iter().try_for_each(Role::halt)?;
    fill()?;
    roles.iter().try_for_each(Role::go_on)
}

/// Starts an app of this many actors with this many handlers each, and lets it handle; the cost of starting, and of handling.
fn wide(bench: &Bench, actors: u64, handlers: u64, messages: u64) -> Result<(Measured, Measured), String> {
    wide_with(bench, [actors, handlers, messages], &[], &[])
}

/// Handles more messages of 16 KiB than may be with the process at once.
fn prefetched(bench: &Bench, prefetch: u64) -> Result<Measured, String> {
    let messages = (2 * prefetch).max(4_000);
    let handled = wide_with(bench, [1, 1, messages], &["--prefetch", &prefetch.to_string()], &["--bytes", "16384"])?;
    Ok(handled.1)
}

/// [`wide`], of actors, handlers and messages, with more words for the app and for the process that fills its queues.
fn wide_with(bench: &Bench, numbers: [u64; 3], app: &[&str], filler: &[&str]) -> Result<(Measured, Measured), String> {
    let messages = numbers[2];
    let [actors, handlers, count] = numbers.map(|number| number.to_string());
    let url = if messages > 0 { patient(bench).url } else { bench.url.clone() };
    let of = ["--messages", &count, "--actors", &actors, "--handlers", &handlers];
    let mut role = Role::start(OURS, &[&["--broker", &url, "wide"], &of[..], app].concat())?;
    let started = role.measured()?;
    role.is_ready()?;
    if messages > 0 {
        let fill = || run(OURS, &[&["--broker", &bench.url, "publish"], &of[..], filler].concat()).map(drop);
        filled(std::slice::from_ref(&role), fill)?;
    }
    let measured = role.measured()?;
    role.ended()?;
    Ok((started, measured))
}

/// Consumes messages of this many bytes, halted while the queue is filled or beside the sender.
fn consumed(bench: &Bench, messages: u64, bytes: u64, halted: bool) -> Result<Vec<Measured>, String> {
    let (messages, bytes) = (messages.to_string(), bytes.to_string());
    let mut role = patient(bench).consumer(Side::Ours, &["--messages", &messages])?;
    let publish = ["--broker", &bench.url, "publish", "--messages", &messages, "--bytes", &bytes];
    let fill = || run(OURS, &publish).map(drop);
    if halted {
        filled(std::slice::from_ref(&role), fill)?
    } else {
        fill()?
    }
    let measured = role.measured()?;
    role.ended()?;
    Ok(vec![measured])
}

/// Instances of one service share its queue; each ends when it has had its part.
fn competing(bench: &Bench, side: Side, instances: u64, messages: u64) -> Result<Vec<Measured>, String> {
    let part = (messages / instances).to_string();
    let all = (messages + messages / SPARE).to_string();
    let patient = patient(bench);
    let consumers = (0..instances).map(|_| patient.consumer(side, &["--messages", &part]));
    let mut roles = consumers.collect::<Result<Vec<_>, _>>()?;
    filled(&roles, || bench.fill(side, &all))?;
    let measured = roles.iter().map(Role::measured).collect::<Result<Vec<_>, _>>()?;
    roles.iter_mut().try_for_each(Role::ended)?;
    done(PLAIN, &["--broker", &bench.url, "purge", queue(side)])?;
    Ok(measured)
}
