//! Messages leave the outbox as they entered it.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::broker::any as anything;
use crate::store::{OutboxRow, StoredRow};

/// What a held message can have: nobody waits for it, and it was not handled yet.
fn held(mut envelope: Envelope) -> Envelope {
    envelope.reply_to = envelope.reply_to.filter(|to| matches!(to, ReplyTo::Queue(_)));
    envelope.attempt = 1;
    (envelope.timeout, envelope.status) = (None, None);
    envelope.call_path.clear();
    // To the second and to the millisecond, as on the wire.
    let seconds =
        |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).ok().map(|at| Duration::from_secs(at.as_secs()));
    envelope.sent_at = envelope.sent_at.and_then(seconds).and_then(|at| SystemTime::UNIX_EPOCH.checked_add(at));
    let millis = |time: Duration| Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    envelope.delay = envelope.delay.map(millis).filter(|delay| !delay.is_zero());
    envelope.expiration = envelope.expiration.map(millis);
    envelope
}

proptest! {
    #[test]
    fn a_held_message_leaves_the_outbox_as_it_entered(envelope in anything::envelope()) {
        let envelope = held(envelope);
        let stored = StoredRow { number: 1, age_millis: 0, row: OutboxRow::of(&envelope) };
        prop_assert_eq!(stored.message().unwrap(), envelope);
    }

    #[test]
    fn damaged_bytes_are_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(VERSION, &bytes);
    }
}

#[test]
fn a_delay_goes_on_while_a_row_waits() {
    let mut envelope = Envelope::new(Kind::Command, Key::from_wire("a.b"), MediaType::JSON, Bytes::new());
    envelope.delay = Some(Duration::from_secs(10));
    let row = OutboxRow::of(&envelope);
    let after = |age_millis| StoredRow { number: 1, age_millis, row: row.clone() }.message().unwrap().delay;
    assert_eq!(after(4_000), Some(Duration::from_secs(6)));
    assert_eq!(after(10_000), None);
}

#[test]
fn a_row_of_a_newer_release_is_refused_with_both_versions() {
    let error = decode(VERSION + 1, &[]).unwrap_err().to_string();
    assert!(error.contains("version 2") && error.contains("up to 1"), "{error}");
}

#[test]
fn a_row_of_an_earlier_release_has_the_defaults_of_fields_it_did_not_know() {
    #[derive(serde::Serialize)]
    struct Earlier<'a> {
        kind: &'a str,
        key: &'a str,
        id: &'a str,
        media_type: &'a str,
        payload: Bytes,
        since_removed: bool,
    }
    let earlier = Earlier {
        kind: "event",
        key: "a.b",
        id: "7",
        media_type: "text/plain",
        payload: "x".into(),
        since_removed: true,
    };
    let envelope = decode(VERSION, &rmp_serde::to_vec_named(&earlier).unwrap()).unwrap();
    assert_eq!((envelope.kind, envelope.id.as_str(), &envelope.payload[..]), (Kind::Event, "7", &b"x"[..]));
}
