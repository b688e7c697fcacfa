//! A client that puts any bytes into a message, which client libraries do not allow: just enough hand-written AMQP 0-9-1 to publish.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long the broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The properties of a message, each as its bytes. The flag says which ones are present; see [`RawMessage::property`].
#[derive(Debug, Clone, Default)]
pub struct RawMessage {
    /// The exchange.
    pub exchange: Vec<u8>,
    /// The routing key.
    pub routing_key: Vec<u8>,
    /// Properties by the bit of their flag, as they are encoded.
    pub properties: Vec<(u16, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Properties that are short strings, and the bits of their flags.
pub const SHORT_STRINGS: [(&str, u16); 10] = [
    ("content_type", 15),
    ("content_encoding", 14),
    ("correlation_id", 10),
    ("reply_to", 9),
    ("expiration", 8),
    ("message_id", 7),
    ("type", 5),
    ("user_id", 4),
    ("app_id", 3),
    ("cluster_id", 2),
];
const HEADERS: u16 = 13;

impl RawMessage {
    /// A message straight into a queue.
    #[must_use]
    pub fn to_queue(queue: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { routing_key: queue.into(), body: body.into(), ..Self::default() }
    }

    /// A message with a routing key.
    #[must_use]
    pub fn to_exchange(exchange: &str, routing_key: impl Into<Vec<u8>>, body: impl Into<Vec<u8>>) -> Self {
        Self { exchange: exchange.into(), routing_key: routing_key.into(), body: body.into(), ..Self::default() }
    }

    /// Sets a property that is a short string.
    ///
    /// # Panics
    /// When there is no such property, or the value is longer than 255 bytes.
    #[must_use]
    pub fn property(mut self, name: &str, value: &[u8]) -> Self {
        let (_, bit) = SHORT_STRINGS.iter().find(|(known, _)| *known == name).expect("a property of AMQP 0-9-1");
        self.properties.push((*bit, short(value)));
        self
    }

    /// Sets the headers, as an encoded table without its length.
    #[must_use]
    pub fn headers(mut self, table: &[u8]) -> Self {
        self.properties.push((HEADERS, long(table)));
        self
    }
}

/// A short string.
fn short(bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("a short string has at most 255 bytes");
    [&[length], bytes].concat()
}

/// Bytes with their length in front.
fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("less than 4 GiB");
    [&length.to_be_bytes()[..], bytes].concat()
}

/// A header with a text, encoded.
#[must_use]
pub fn text_header(name: &[u8], value: &[u8]) -> Vec<u8> {
    [short(name), vec![b'S'], long(value)].concat()
}

/// A header `deep`, encoded, with this many nested tables or lists.
#[must_use]
pub fn nested_header(depth: usize, tables: bool) -> Vec<u8> {
    let mut value = Vec::new();
    for level in 0..depth {
        let named = if level > 0 && tables { [vec![0], value].concat() } else { value };
        value = [vec![if tables { b'F' } else { b'A' }], long(&named)].concat();
    }
    [short(b"deep"), value].concat()
}

/// A connection with one channel that confirms.
pub struct RawClient {
    socket: TcpStream,
    frame_max: usize,
    published: u64,
    unconfirmed: BTreeSet<u64>,
}

impl RawClient {
    /// Connects as guest to the broker at `amqp://guest:guest@127.0.0.1:port`.
    ///
    /// # Panics
    /// When the broker does not answer as it should.
    #[must_use]
    pub fn connect(url: &str) -> Self {
        let host = url.rsplit('@').next().expect("an address").trim_end_matches('/');
        let socket = TcpStream::connect(host.split('/').next().expect("a host")).expect("the broker listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let mut client = Self { socket, frame_max: 0, published: 0, unconfirmed: BTreeSet::new() };
        client.write(b"AMQP\0\0\x09\x01");
        client.expect(10, 10);
        let start_ok = [long(b""), short(b"PLAIN"), long(b"\0guest\0guest"), short(b"en_US")].concat();
        client.method(0, 10, 11, &start_ok);
        let tune = client.expect(10, 30);
        client.frame_max = u32::from_be_bytes([tune[2], tune[3], tune[4], tune[5]]) as usize;
        client.method(0, 10, 31, &[&tune[..6], &[0, 0]].concat());
        client.method(0, 10, 40, &[short(b"/"), short(b""), vec![0]].concat());
        client.expect(10, 41);
        client.method(1, 20, 10, &short(b""));
        client.expect(20, 11);
        client.method(1, 85, 10, &[0]);
        client.expect(85, 11);
        client
    }

    /// Publishes without waiting.
    pub fn publish(&mut self, message: &RawMessage) {
        let publish = [vec![0, 0], short(&message.exchange), short(&message.routing_key), vec![0]].concat();
        self.method(1, 60, 40, &publish);
        let mut properties = message.properties.clone();
        properties.sort_by_key(|(bit, _)| std::cmp::Reverse(*bit));
        let flags = properties.iter().fold(0_u16, |flags, (bit, _)| flags | 1 << bit);
        let mut header =
            [&[0, 60, 0, 0][..], &(message.body.len() as u64).to_be_bytes(), &flags.to_be_bytes()].concat();
        properties.iter().for_each(|(_, value)| header.extend_from_slice(value));
        self.frame(2, 1, &header);
        let most = if self.frame_max == 0 { 128 * 1024 } else { self.frame_max } - 8;
        message.body.chunks(most).for_each(|piece| self.frame(3, 1, piece));
        self.published += 1;
        self.unconfirmed.insert(self.published);
    }

    /// Waits until the broker has confirmed all published messages.
    ///
    /// # Panics
    /// When it does not.
    pub fn confirmed(&mut self) {
        while !self.unconfirmed.is_empty() {
            let ack = self.expect(60, 80);
            let tag = u64::from_be_bytes(ack[..8].try_into().expect("eight bytes"));
            let multiple = ack[8] & 1 == 1;
            self.unconfirmed.retain(|number| if multiple { *number > tag } else { *number != tag });
        }
    }

    /// Deletes an exchange with its bindings, if it exists.
    ///
    /// # Panics
    /// When the broker refuses.
    pub fn delete_exchange(&mut self, name: &str) {
        self.method(1, 40, 20, &[vec![0, 0], short(name.as_bytes()), vec![0]].concat());
        self.expect(40, 21);
    }

    /// The content header of the next message in a queue, as its bytes. The message is removed.
    ///
    /// # Panics
    /// When none comes.
    pub async fn get(&mut self, queue: &str) -> Vec<u8> {
        let start = tokio::time::Instant::now();
        loop {
            self.method(1, 60, 70, &[vec![0, 0], short(queue.as_bytes()), vec![1]].concat());
            let (kind, payload) = self.next_frame();
            assert_eq!(kind, 1, "an answer");
            // get-ok, as opposed to get-empty.
            if payload[..4] == [0, 60, 0, 71] {
                let (_, header) = self.next_frame();
                let mut left = u64::from_be_bytes(header[4..12].try_into().expect("eight bytes"));
                while left > 0 {
                    left = left.saturating_sub(self.next_frame().1.len() as u64);
                }
                return header;
            }
            assert!(start.elapsed() < PATIENCE, "nothing came to {queue}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn next_frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 7];
        self.socket.read_exact(&mut head).expect("the broker answers");
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let mut payload = vec![0; size + 1];
        self.socket.read_exact(&mut payload).expect("the broker answers");
        payload.pop();
        (head[0], payload)
    }

    fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the broker reads");
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        self.write(&[&[kind], &channel.to_be_bytes()[..], &long(payload), &[0xce]].concat());
    }

    fn method(&mut self, channel: u16, class: u16, method: u16, fields: &[u8]) {
        self.frame(1, channel, &[&class.to_be_bytes()[..], &method.to_be_bytes(), fields].concat());
    }

    /// The fields of the next method, which must be the given one.
    fn expect(&mut self, class: u16, method: u16) -> Vec<u8> {
        loop {
            let (kind, mut payload) = self.next_frame();
            if kind != 1 {
                continue;
            }
            let got = (u16::from_be_bytes([payload[0], payload[1]]), u16::from_be_bytes([payload[2], payload[3]]));
            assert_eq!(got, (class, method), "{}", String::from_utf8_lossy(&payload));
            return payload.split_off(4);
        }
    }
}
