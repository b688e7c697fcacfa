//! Content headers, whole and broken.

use lapin::types::AMQPValue;
use lapin::types::parsing::parse_field_table;
use proptest::prelude::*;

use super::*;

const ROOM: usize = 128 * 1024;

/// A content header with a correlation id and headers.
pub(in crate::adapter::rabbitmq::socket) fn content(correlation_id: &[u8], table: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    payload.extend_from_slice(&(HEADERS | 1 << 12 | 1 << 10).to_be_bytes());
    put_long(&mut payload, table);
    payload.push(2);
    put_short(&mut payload, correlation_id);
    payload
}

fn text(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut entry = Vec::new();
    put_short(&mut entry, name);
    entry.push(b'S');
    put_long(&mut entry, value);
    entry
}

/// A header named `deep`, nested to this number of levels.
fn nested(depth: usize, tag: u8) -> Vec<u8> {
    let mut value = Vec::new();
    for level in 0..depth {
        let mut around = vec![tag];
        let inner = if level == 0 {
            Vec::new()
        } else if tag == b'F' {
            [vec![0], value].concat()
        } else {
            value
        };
        put_long(&mut around, &inner);
        value = around;
    }
    [b"\x04deep".to_vec(), value].concat()
}

/// The headers of a content header from [`content`], as the client reads them.
fn table(payload: &[u8]) -> lapin::types::FieldTable {
    let (rest, table) = parse_field_table(&payload[PREFIX + 2..]).unwrap();
    assert!(rest.len() < 300, "{} bytes behind the headers", rest.len());
    table
}

fn header(payload: &[u8], name: &str) -> Option<String> {
    match table(payload).inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        other => Some(format!("{other:?}")),
    }
}

#[test]
fn what_is_readable_stays() {
    for payload in
        [content(b"id", &text(b"a", b"\xff")), content("ä".as_bytes(), &nested(MAX_HEADER_NESTING - 1, b'A'))]
    {
        assert!(is_readable(&payload, ROOM));
        assert!(original(&payload).is_none());
    }
}

#[test]
fn a_property_and_a_headers_name_that_are_no_utf_8_are_escaped_and_come_back() {
    let payload = content(b"\xff\x01", &[text(b"n\xfe", b"v"), text(b"m", b"w")].concat());
    assert!(!is_readable(&payload, ROOM));
    let made = readable(&payload, ROOM);
    assert_eq!(header(&made, "n\u{fffd}fe").as_deref(), Some("v"));
    assert_eq!(header(&made, "m").as_deref(), Some("w"));
    assert_eq!(original(&made).unwrap(), payload);
}

#[test]
fn headers_of_any_depth_are_cut_to_what_the_client_can_read_and_say_so() {
    for (depth, tag) in [(MAX_HEADER_NESTING, b'A'), (MAX_HEADER_NESTING, b'F'), (1_500, b'F'), (9_000, b'A')] {
        let payload = content(b"id", &nested(depth, tag));
        assert!(!is_readable(&payload, ROOM), "{depth}");
        let made = readable(&payload, ROOM);
        assert!(header(&made, UNREADABLE).unwrap().contains("nested more than 128 levels"), "{depth}");
        assert!(table(&made).contains_key("deep"));
    }
}

#[test]
fn headers_that_cannot_be_understood_are_kept_as_bytes_and_said_to_be() {
    let payload = content(b"id", &[text(b"good", b"v"), b"\x03bad?whatever".to_vec()].concat());
    let made = readable(&payload, ROOM);
    assert_eq!(header(&made, "good").as_deref(), Some("v"));
    assert!(header(&made, UNREADABLE).is_some() && table(&made).contains_key("postrider-unreadable-headers"));
}

#[test]
fn headers_that_do_not_fit_into_the_frame_are_left_out_and_named() {
    let payload = content(b"id", &[text(b"big", &[b'x'; 9_000]), text(b"small", b"v")].concat());
    assert!(is_readable(&payload, ROOM) && !is_readable(&payload, 8_184));
    let made = readable(&payload, 8_184);
    assert_eq!(header(&made, CUT_HEADERS).as_deref(), Some("big"));
    assert_eq!(header(&made, "small").as_deref(), Some("v"));
}

#[test]
fn headers_in_great_numbers_are_cut_in_one_go() {
    let payload = content(b"id", &b"\x01\xffV".repeat(43_000));
    let made = readable(&payload, ROOM);
    assert!(made.len() <= ROOM, "{} bytes", made.len());
    assert!(header(&made, CUT_HEADERS).unwrap().starts_with('\u{fffd}'));
}

proptest! {
    #[test]
    fn any_bytes_become_a_content_header_that_the_client_reads(
        id in prop::collection::vec(any::<u8>(), 0..255), table in prop::collection::vec(any::<u8>(), 0..200),
        damage in prop::collection::vec((any::<u16>(), any::<u8>()), 0..6), room in 512_usize..2_000
    ) {
        let mut payload = content(&id, &table);
        for (place, byte) in damage {
            let place = usize::from(place) % payload.len();
            payload[place] = byte;
        }
        if !is_readable(&payload, room) {
            payload = readable(&payload, room);
        }
        prop_assert!(payload.len() <= room, "{}", payload.len());
        let mut frame = vec![2, 0, 1];
        put_long(&mut frame, &payload);
        frame.push(0xce);
        // Class and weight always come from the broker.
        frame[7..11].copy_from_slice(&[0, 60, 0, 0]);
        prop_assert!(amq_protocol_frame(&frame), "{:?}", payload);
    }
}

/// Whether the client's own parser accepts the frame.
fn amq_protocol_frame(frame: &[u8]) -> bool {
    lapin::protocol::basic::parse_properties(&frame[7 + PREFIX..frame.len() - 1]).is_ok_and(|(rest, _)| rest.is_empty())
}
