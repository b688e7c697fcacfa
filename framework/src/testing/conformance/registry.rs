//! Scenarios for the registry.

use std::time::Duration;

use super::Bench;
use crate::broker::{BrokerError, Claim, Topology};

/// Longer than a scenario takes.
const LONG: Duration = Duration::from_secs(3_600);

pub(super) async fn a_note_is_what_was_written_last(bench: Bench) {
    let (name, registry, other) = (bench.name("note"), bench.broker.registry(), bench.other.registry());
    assert_eq!(registry.note(&name).await.expect("the broker answers"), None);
    let set = registry.set_note(&name, None, "{\"n\":1}".into()).await.expect("written");
    assert!(set, "there was none");
    for _ in 0..3 {
        let note = other.note(&name).await.expect("the broker answers");
        assert_eq!(note.as_deref(), Some(&b"{\"n\":1}"[..]), "reading it takes nothing away");
    }
    assert_eq!(registry.note(&bench.name("another")).await.expect("the broker answers"), None);
}

pub(super) async fn a_note_is_replaced_only_by_who_knows_it(bench: Bench) {
    let (name, registry, other) = (bench.name("note"), bench.broker.registry(), bench.other.registry());
    let (first, second) = (&b"[1]"[..], &b"[2]"[..]);
    assert!(!registry.set_note(&name, Some(first), second.to_vec().into()).await.expect("the broker answers"));
    assert!(registry.set_note(&name, None, first.to_vec().into()).await.expect("written"));
    assert!(!other.set_note(&name, None, second.to_vec().into()).await.expect("the broker answers"), "there is one");
    assert!(other.set_note(&name, Some(first), second.to_vec().into()).await.expect("written"));
    assert!(!registry.set_note(&name, Some(first), b"[3]".to_vec().into()).await.expect("the broker answers"));
    assert_eq!(registry.note(&name).await.expect("the broker answers").as_deref(), Some(second));
    // Of two concurrent writes, one is told that it came too late.
    let (one, two) = tokio::join!(
        registry.set_note(&name, Some(second), b"[4]".to_vec().into()),
        other.set_note(&name, Some(second), b"[5]".to_vec().into()),
    );
    let (one, two) = (one.expect("the broker answers"), two.expect("the broker answers"));
    let expected = if one { &b"[4]"[..] } else { b"[5]" };
    assert!(one != two, "exactly one has replaced it, not {one} and {two}");
    assert_eq!(registry.note(&name).await.expect("the broker answers").as_deref(), Some(expected));
}

pub(super) async fn a_count_goes_up_and_down_and_is_forgotten(bench: Bench) {
    let (name, registry, other) = (bench.name("count"), bench.broker.registry(), bench.other.registry());
    assert_eq!(registry.count(&name).await.expect("the broker answers"), 0);
    registry.uncount_one(&name).await.expect("less than none is none");
    for _ in 0..3 {
        registry.count_one(&name, LONG).await.expect("counted");
    }
    assert_eq!(other.count(&name).await.expect("the broker answers"), 3);
    other.uncount_one(&name).await.expect("taken back");
    assert_eq!(registry.count(&name).await.expect("the broker answers"), 2);
    registry.forget_count(&name).await.expect("forgotten");
    registry.forget_count(&name).await.expect("what is not there is no error");
    assert_eq!(other.count(&name).await.expect("the broker answers"), 0);
}

pub(super) async fn claims_are_listed(bench: Bench) {
    let claim = |domain: &str, service: &str| Claim { domain: domain.to_owned(), service: service.to_owned() };
    let all = [claim("parcels", "depot"), claim("letters", "depot"), claim("desks", "office")];
    let topology = |claims: &[Claim]| Topology { claims: claims.to_vec(), ..Topology::default() };
    assert!(bench.broker.registry().claims().await.expect("the broker answers").is_empty());
    bench.broker.declare(&topology(&all[..2])).await.expect("declared");
    bench.broker.registry().list_claims(&all[..2]).await.expect("listed");
    for _ in 0..2 {
        bench.other.declare(&topology(&all[2..])).await.expect("declared, also again");
        bench.other.registry().list_claims(&all[2..]).await.expect("listed, also again");
    }
    let refused = bench.other.declare(&topology(&[claim("parcels", "office")])).await;
    assert!(matches!(refused, Err(BrokerError::DomainOwned { .. })), "{refused:?}");
    for broker in [&bench.broker, &bench.other] {
        let listed = broker.registry().claims().await.expect("the broker answers");
        assert_eq!(listed, all.iter().cloned().collect(), "each once, and not what was refused");
    }
}
