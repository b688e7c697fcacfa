//! Properties of every payload.

use std::collections::HashMap;
use std::fmt::Debug;

use proptest::prelude::*;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::*;

const ALL: [MediaType; 5] =
    [MediaType::JSON, MediaType::MSGPACK, MediaType::TEXT, MediaType::BYTES, MediaType::from_static("x/y")];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only read, never looked at")]
struct Order {
    id: u8,
    note: Option<String>,
    state: State,
    parts: Vec<Vec<bool>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only read, never looked at")]
enum State {
    New,
    Paid(u8),
    Sent { to: String },
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1.0e12_f64..1.0e12).prop_map(Value::from),
        "[\\[\\]{}\"\\\\a é]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z\"{\\[]{0,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn depth_of(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth_of).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth_of).max().unwrap_or(0),
        _ => 0,
    }
}

/// MessagePack whose lengths, of all widths, promise more than there is.
fn lying() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![Just(vec![0xff_u8; 4]), prop::collection::vec(any::<u8>(), 4), Just(vec![0, 0, 0, 2])];
    let marker = prop_oneof![
        prop::sample::select(vec![0xc4_u8, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf]),
        any::<u8>(),
    ];
    let item = (marker, length).prop_map(|(marker, length)| [vec![marker], length].concat());
    prop::collection::vec(item, 1..12).prop_map(|items| items.concat())
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        lying(),
        "[\\[\\]{}\":,0-9a-z\\\\ .eE+-]{0,80}".prop_map(String::into_bytes),
        (value(), any::<bool>(), any::<u16>(), any::<u8>()).prop_map(|(value, json, place, byte)| {
            let media_type = if json { MediaType::JSON } else { MediaType::MSGPACK };
            let mut bytes = encode(&value, &media_type, &Limits::default()).unwrap().to_vec();
            let place = usize::from(place) % bytes.len();
            bytes[place] = byte;
            bytes
        }),
    ]
}

fn tried<T: DeserializeOwned + Debug>(bytes: &[u8], media_type: &MediaType, limits: &Limits) {
    if let Err(error) = decode::<T>(bytes, media_type, limits) {
        let text = error.to_string();
        assert!(text.contains(media_type.as_str()) && text.len() < 1_000, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn any_bytes_become_a_value_or_an_error_that_names_the_content_type(bytes in bytes(), most in 0..120_usize) {
        let limits = Limits { max_nesting: most, ..Limits::default() };
        for media_type in &ALL {
            tried::<Value>(&bytes, media_type, &limits);
            tried::<IgnoredAny>(&bytes, media_type, &limits);
            tried::<Vec<()>>(&bytes, media_type, &limits);
            tried::<Vec<u8>>(&bytes, media_type, &limits);
            tried::<String>(&bytes, media_type, &limits);
            tried::<f64>(&bytes, media_type, &limits);
            tried::<HashMap<String, Vec<(u64, Option<char>)>>>(&bytes, media_type, &limits);
            tried::<Order>(&bytes, media_type, &limits);
        }
    }

    #[test]
    fn any_value_is_refused_exactly_if_it_is_nested_too_deeply(value in value(), most in 0..8_usize) {
        let deep = depth_of(&value) > most;
        for media_type in [MediaType::JSON, MediaType::MSGPACK] {
            let bytes = encode(&value, &media_type, &Limits::default()).unwrap();
            let limits = Limits { max_nesting: most, ..Limits::default() };
            prop_assert_eq!(limits.check(&bytes, &media_type).is_err(), deep);
            prop_assert_eq!(decode::<Value>(&bytes, &media_type, &limits).is_err(), deep);
            prop_assert_eq!(encode(&value, &media_type, &limits).is_err(), deep);
        }
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_no_value(value in value(), cut in any::<u16>(), more in 0x20..0x7f_u8) {
        let bytes = encode(&value, &MediaType::MSGPACK, &Limits::default()).unwrap();
        let cut = usize::from(cut) % bytes.len();
        prop_assert!(decode::<Value>(&bytes[..cut], &MediaType::MSGPACK, &Limits::default()).is_err());
        let longer = [&bytes[..], &[more]].concat();
        prop_assert!(decode::<Value>(&longer, &MediaType::MSGPACK, &Limits::default()).is_err());
    }

    #[test]
    fn no_error_quotes_what_was_sent(place in 0..8_usize, number in 918_273_645_000_u64..918_273_645_999, text in ", expected |`|: |") {
        use serde_json::json;
        let (secret, hidden) = (json!(format!("hunter2{text}hunter2")), json!(number));
        let good = json!({ "id": 1, "note": null, "state": "new", "parts": [] });
        let mut sent = good.clone();
        match place {
            0 => sent["id"] = secret,
            1 => sent["id"] = hidden,
            2 => sent["note"] = hidden,
            3 => sent["state"] = secret,
            4 => sent["parts"] = secret,
            5 => sent["hunter2"] = hidden,
            6 => sent["state"] = json!({ "hunter2": hidden }),
            _ => sent = secret,
        }
        for media_type in [MediaType::JSON, MediaType::MSGPACK] {
            let read = |value: &Value| {
                let bytes = encode(value, &media_type, &Limits::default()).unwrap();
                decode::<Order>(&bytes, &media_type, &Limits::default())
            };
            prop_assert!(read(&good).is_ok());
            let error = read(&sent).unwrap_err().to_string();
            prop_assert!(!error.contains("hunter2") && !error.contains("918273645"), "{}", error);
        }
    }

    #[test]
    fn any_media_type_is_read_without_its_parameters(essence in "\\PC{0,20}", parameters in "\\PC{0,20}") {
        let (bare, full) = (MediaType::new(essence.clone()), MediaType::new(format!("{essence} ; {parameters}")));
        prop_assert_eq!(Codec::for_media_type(&bare), Codec::for_media_type(&full));
    }
}

#[test]
fn an_error_says_what_was_expected_and_where() {
    let read =
        |text: &str| decode::<Order>(text.as_bytes(), &MediaType::JSON, &Limits::default()).unwrap_err().to_string();
    let error = read("{\"id\": \"hunter2\"}");
    assert!(error.starts_with("a value of another type or range, expected u8 at line 1 column 16"), "{error}");
    let error = read("{\"id\": 1, \"state\": \"hunter2\"}");
    assert!(error.contains("an unknown variant, expected one of `new`, `paid`, `sent` at line 1"), "{error}");
    let error = read("{}");
    assert!(error.starts_with("missing field `id` at line 1 column 2"), "{error}");
}

#[test]
fn nesting_beyond_every_limit_is_refused_before_anything_is_built() {
    for (media_type, byte) in [(MediaType::JSON, b'['), (MediaType::MSGPACK, 0x91), (MediaType::MSGPACK, 0x81)] {
        for depth in [101, 1_000, 1_000_000] {
            let error = decode::<Value>(&vec![byte; depth], &media_type, &Limits::default()).unwrap_err().to_string();
            assert!(error.contains("nested deeper") || error.contains("IO error"), "{error}");
        }
    }
}

#[test]
fn the_deepest_nesting_that_can_be_allowed_is_read_or_refused() {
    let deepest = Limits { max_nesting: 1_000, ..Limits::default() };
    for depth in [100, DEEPEST, DEEPEST + 1, 1_000] {
        let packed = [vec![0x91; depth], vec![0xc0]].concat();
        let json = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for (media_type, bytes) in [(MediaType::MSGPACK, packed), (MediaType::JSON, json.into_bytes())] {
            let read = decode::<Value>(&bytes, &media_type, &deepest);
            assert_eq!(read.is_ok(), depth <= DEEPEST, "{depth} {read:?}");
        }
    }
}
