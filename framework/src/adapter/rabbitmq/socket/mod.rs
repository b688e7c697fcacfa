//! The socket, and the layer between it and the client. The client closes the whole connection over one string that is not UTF-8,
//! and ends the process over headers that are nested too deeply. The broker then delivers the message again, for ever. So this
//! layer makes frames readable before the client sees them: [`incoming`] and [`outgoing`], which do not know the socket. Nearly all
//! frames are readable as they are; those are checked and not copied.

mod content;
mod escape;
mod frame;
mod incoming;
mod method;
mod outgoing;
mod stream;
mod walk;

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures::Stream;
use futures::io::{AsyncRead, AsyncWrite};
use lapin::AsyncTcpStream;
use lapin::tcp::{AMQPUriTcpExt, OwnedTLSConfig};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};
use tokio::runtime::Handle;

use crate::adapter::rabbitmq::socket::stream::ReadableStream;

pub(super) use method::MIN_FRAME_MAX;

type Plain = <Tokio as Reactor>::TcpStream;
/// Plain or TLS, with readable frames.
type Socket = ReadableStream<AsyncTcpStream<Plain>>;

/// Tells the client the type of its socket. Timers are tokio's; the client needs nothing else from it.
#[derive(Debug, Clone)]
struct SocketType(Tokio);

impl Reactor for SocketType {
    type TcpStream = Socket;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Plain, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(time)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        async move { Ok(ReadableStream::new(AsyncTcpStream::Plain(connecting.await?), MIN_FRAME_MAX)) }
    }
}

/// Connects to one node. The address states the largest frame.
pub(super) async fn connect(
    uri: AMQPUri,
    properties: ConnectionProperties,
    tls: OwnedTLSConfig,
    handle: Handle,
) -> lapin::Result<Connection> {
    let tokio = Tokio::default().with_handle(handle);
    let runtime = Runtime::new(RuntimeParts::new(tokio.clone(), SocketType(tokio.clone())));
    let dial = async move |mut uri: AMQPUri, _| {
        let frame_max = uri.query.frame_max.map_or(MIN_FRAME_MAX, |most| most as usize);
        // The brackets of an IPv6 address belong to the URI, not to the host.
        let host = uri.authority.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        uri.authority.host = host;
        let socket = uri.connect_with_config_async(tls.as_ref(), &Runtime::new(tokio.clone())).await?;
        Ok(AsyncTcpStream::Plain(ReadableStream::new(socket, frame_max)))
    };
    Connection::connector(uri, runtime, dial, properties).await
}
