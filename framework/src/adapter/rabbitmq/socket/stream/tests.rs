//! Reads and writes through a socket that splits the bytes anywhere.

use std::collections::VecDeque;

use futures::io::{AsyncReadExt, AsyncWriteExt};
use proptest::prelude::*;

use super::*;
use crate::adapter::rabbitmq::socket::content::tests::content;
use crate::adapter::rabbitmq::socket::escape::{escape, needs_escape};
use crate::adapter::rabbitmq::socket::frame::put_frame;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// A socket that gives and takes pieces of certain sizes, and is busy between them.
#[derive(Default)]
struct Pieces {
    to_read: VecDeque<u8>,
    written: Vec<u8>,
    sizes: VecDeque<usize>,
    busy: bool,
}

impl Pieces {
    fn size(&mut self) -> usize {
        let size = self.sizes.pop_front().unwrap_or(usize::MAX);
        self.sizes.push_back(size);
        size.max(1)
    }

    fn is_busy(&mut self, cx: &mut Context<'_>) -> bool {
        self.busy = !self.busy;
        if self.busy {
            cx.waker().wake_by_ref();
        }
        self.busy
    }
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.is_busy(cx) {
            return Poll::Pending;
        }
        let count = self.size().min(to.len()).min(self.to_read.len());
        for place in &mut to[..count] {
            *place = self.to_read.pop_front().unwrap();
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_busy(cx) {
            return Poll::Pending;
        }
        let count = self.size().min(bytes.len());
        self.written.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[derive(Debug, Clone)]
enum Sent {
    Body(Vec<u8>),
    Content(Vec<u8>),
    Deliver(Vec<u8>),
    Heartbeat,
}

fn sent() -> impl Strategy<Value = Sent> {
    let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
    // Bytes that are text about half the time.
    let text = prop_oneof![bytes(40), "[a-zä�]{0,20}".prop_map(String::into_bytes)];
    prop_oneof![
        bytes(300).prop_map(Sent::Body),
        text.clone().prop_map(Sent::Content),
        text.prop_map(Sent::Deliver),
        Just(Sent::Heartbeat),
    ]
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put_frame(&mut frame, &[kind, 0, 1, 0, 0, 0, 0], payload);
    frame
}

/// The frame of `sent`, with its string encoded by `string`.
fn encoded(sent: &Sent, string: impl Fn(&[u8]) -> Vec<u8>, method: [u8; 7]) -> Vec<u8> {
    match sent {
        Sent::Body(bytes) => frame(3, bytes),
        Sent::Heartbeat => frame(8, &[]),
        Sent::Content(id) => frame(2, &content(&string(id), b"\x01aV")),
        Sent::Deliver(key) => {
            let (mut payload, key) = (method.to_vec(), string(key));
            if method[3] == 60 {
                payload.extend_from_slice(&[0; 7]);
                payload.push(0);
            }
            payload.push(key.len() as u8);
            payload.extend_from_slice(&key);
            frame(1, &payload)
        }
    }
}

/// basic.deliver up to the first bytes of its delivery tag; basic.publish including its empty exchange.
const DELIVER: [u8; 7] = [0, 60, 0, 60, 0, 0, 0];
const PUBLISH: [u8; 7] = [0, 60, 0, 40, 0, 0, 0];

fn escaped(bytes: &[u8]) -> Vec<u8> {
    if needs_escape(bytes) { escape(bytes).into_bytes() } else { bytes.to_vec() }
}

proptest! {
    #[test]
    fn what_comes_is_readable_however_it_is_cut_into_pieces(
        all in prop::collection::vec(sent(), 0..12), sizes in prop::collection::vec(1_usize..90, 1..6), buffer in 1_usize..200
    ) {
        let raw: Vec<u8> = all.iter().flat_map(|sent| encoded(sent, <[u8]>::to_vec, DELIVER)).collect();
        let wanted: Vec<u8> = all.iter().flat_map(|sent| encoded(sent, escaped, DELIVER)).collect();
        let socket = Pieces { to_read: raw.into(), sizes: sizes.into(), ..Pieces::default() };
        let mut stream = ReadableStream::new(socket, 128 * 1024);
        let (mut got, mut room) = (Vec::new(), vec![0; buffer]);
        block_on(async {
            loop {
                let count = stream.read(&mut room).await.unwrap();
                if count == 0 { break }
                got.extend_from_slice(&room[..count]);
            }
        });
        prop_assert_eq!(got, wanted);
    }

    #[test]
    fn what_leaves_has_its_own_bytes_however_it_is_cut_into_pieces(
        all in prop::collection::vec(sent(), 0..12), sizes in prop::collection::vec(1_usize..90, 1..6), given in 1_usize..200
    ) {
        let from_client: Vec<u8> = [b"AMQP\0\0\x09\x01".to_vec()].into_iter()
            .chain(all.iter().map(|sent| encoded(sent, escaped, PUBLISH))).flatten().collect();
        let wanted: Vec<u8> = [b"AMQP\0\0\x09\x01".to_vec()].into_iter()
            .chain(all.iter().map(|sent| encoded(sent, <[u8]>::to_vec, PUBLISH))).flatten().collect();
        let mut stream = ReadableStream::new(Pieces { sizes: sizes.into(), ..Pieces::default() }, 128 * 1024);
        block_on(async {
            for piece in from_client.chunks(given) {
                stream.write_all(piece).await.unwrap();
                stream.flush().await.unwrap();
            }
        });
        prop_assert_eq!(stream.socket.written, wanted);
    }
}

#[test]
fn a_message_with_headers_beyond_all_bounds_keeps_its_place_and_loses_its_properties() {
    let huge = frame(2, &content(b"id", &vec![0; 3 * 1024 * 1024]));
    let raw: Vec<u8> = [frame(8, &[]), huge, frame(3, b"ok"), frame(8, &[])].concat();
    let socket = Pieces { to_read: raw.into(), sizes: [70_000].into(), ..Pieces::default() };
    let mut stream = ReadableStream::new(socket, 128 * 1024);
    let mut got = Vec::new();
    block_on(stream.read_to_end(&mut got)).unwrap();
    assert!(got.len() < 500, "{} bytes", got.len());
    assert!(got.starts_with(&frame(8, &[])) && got.ends_with(&[frame(3, b"ok"), frame(8, &[])].concat()));
    assert!(String::from_utf8_lossy(&got).contains("postrider-unreadable"));
}
