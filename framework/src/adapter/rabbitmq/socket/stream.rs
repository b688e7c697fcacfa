//! The socket as the client sees it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::io::{AsyncRead, AsyncWrite};

use crate::adapter::rabbitmq::socket::incoming::Incoming;
use crate::adapter::rabbitmq::socket::outgoing::Outgoing;

/// A socket that escapes unreadable strings for the client, and restores them on the way out.
pub(super) struct ReadableStream<S> {
    socket: S,
    incoming: Incoming,
    outgoing: Outgoing,
}

impl<S> ReadableStream<S> {
    /// Wraps a socket for a client that takes frames of at most `frame_max` bytes.
    pub(super) fn new(socket: S, frame_max: usize) -> Self {
        Self { socket, incoming: Incoming::new(frame_max), outgoing: Outgoing::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadableStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let mut given = this.incoming.take(buffer);
        while given == 0 && !buffer.is_empty() {
            let read = ready!(Pin::new(&mut this.socket).poll_read(cx, buffer))?;
            if read == 0 {
                this.incoming.end();
                return Poll::Ready(Ok(this.incoming.take(buffer)));
            }
            given = this.incoming.came(&buffer[..read]);
            if given == 0 {
                given = this.incoming.take(buffer);
            }
        }
        Poll::Ready(Ok(given))
    }
}

impl<S: AsyncWrite + Unpin> ReadableStream<S> {
    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.ready().is_empty() {
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, self.outgoing.ready()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.has_left(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadableStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_write_ready(cx))?;
        let plain = this.outgoing.plain(bytes);
        if plain == 0 {
            let kept = this.outgoing.keep(bytes);
            // The unsent rest leaves with the next write, or when the client flushes.
            return match this.poll_write_ready(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                _ => Poll::Ready(Ok(kept)),
            };
        }
        let written = ready!(Pin::new(&mut this.socket).poll_write(cx, &bytes[..plain]))?;
        this.outgoing.passed(bytes, written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_write_ready(cx))?;
        Pin::new(&mut this.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_write_ready(cx))?;
        Pin::new(&mut this.socket).poll_close(cx)
    }
}

#[cfg(test)]
mod tests;
