//! The pure steps of a message's path, one by one: `cargo bench -p postrider-benches`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use postrider::broker::{To, matches, write_headers};
use postrider::bus::route;
use postrider::codec::{self, Limits};
use postrider::handler::{Asked, Outcome, Policy};
use postrider::host::{Case, SkewPolicy, verdict};
use postrider::message::{Key, Kind};
use postrider::testing::ForeignMessage;
use postrider::{Context, Envelope, Headers, MediaType, Payload};
use postrider_benches::work::Work;

/// Bytes of the payload.
const BYTES: usize = 256;

/// An envelope as stamping leaves it.
fn envelope() -> Envelope {
    let cx = Context::for_test();
    // A context for tests takes every message that can be encoded.
    let _ = cx.send_key("load.work", Payload::msgpack(&Work::of_bytes(BYTES)));
    let nothing = || Envelope::new(Kind::Command, Key::from_wire("none"), MediaType::MSGPACK, Default::default());
    cx.sent().pop().unwrap_or_else(nothing)
}

fn steps(c: &mut Criterion) {
    let (envelope, limits) = (envelope(), Limits::default());
    c.bench_function("decode", |b| {
        b.iter(|| codec::decode::<Work>(black_box(&envelope.payload), &envelope.media_type, &limits))
    });
    let work = Work::of_bytes(BYTES);
    c.bench_function("encode", |b| b.iter(|| codec::encode(black_box(&work), &MediaType::MSGPACK, &limits)));
    c.bench_function("match", |b| b.iter(|| matches(black_box("load.*.#"), black_box("load.work.done.twice"))));
    let (outcome, policy) = (Outcome::Done(None), Policy::default());
    let skew = SkewPolicy { window: Duration::from_secs(600), pause: Duration::from_secs(5) };
    let case = Case {
        outcome: &outcome,
        asked: Asked::OneWay,
        attempt: 1,
        policy: &policy,
        skewed_for: Duration::ZERO,
        skew: &skew,
        stops: false,
        chance: 0.5,
    };
    c.bench_function("verdict", |b| b.iter(|| verdict(black_box(&case))));
    c.bench_function("route", |b| {
        b.iter_batched(|| Box::new(envelope.clone()), route, criterion::BatchSize::SmallInput)
    });
    c.bench_function("stamp", |b| {
        let payload = Payload::msgpack(&work);
        b.iter_batched(
            || (Context::for_test(), payload.clone()),
            // Dropping the context is not measured.
            |(cx, payload)| (cx.send_key("load.work", payload), cx),
            criterion::BatchSize::SmallInput,
        )
    });
    let written = || {
        let mut headers = Headers::new();
        write_headers(black_box(&envelope), |name, value| drop(headers.set(name, value.to_value())));
        headers
    };
    c.bench_function("write headers", |b| b.iter(written));
    let message = ForeignMessage { headers: written(), ..ForeignMessage::default() };
    let to = To::key(Kind::Command, &"load.work".into());
    c.bench_function("read", |b| b.iter(|| message.envelope(black_box(&to), envelope.payload.clone())));
}

criterion_group!(micro, steps);
criterion_main!(micro);
