//! A TCP proxy in front of a broker that makes the network fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// How the network behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Bytes pass.
    Fine,
    /// Connections stay open, but no byte passes, and neither side notices.
    BlackHole,
    /// Connections break, and new ones are refused.
    Cut,
    /// The broker's bytes arrive this much later.
    Late(Duration),
}

/// The most chunks that are on their way back at once.
const MOST_LATE: usize = 1_024;

/// A proxy on a port of its own.
pub struct Proxy {
    port: u16,
    network: watch::Sender<Network>,
    accepted: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A proxy in front of a port of this machine.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (network, seen) = watch::channel(Network::Fine);
        let accepted = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(accept(listener, target, seen, Arc::clone(&accepted)));
        Self { port, network, accepted, task }
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address for a client.
    #[must_use]
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}", self.port)
    }

    /// Changes what the network does.
    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }

    /// How many connections it has taken.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: u16, network: watch::Receiver<Network>, accepted: Arc<AtomicU64>) {
    while let Ok((client, _)) = listener.accept().await {
        if *network.borrow() == Network::Cut {
            continue;
        }
        accepted.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(connect(client, target, network.clone()));
    }
}

async fn connect(client: TcpStream, target: u16, mut network: watch::Receiver<Network>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = pump(from_client, to_server, network.clone());
    let back = pump_back(from_server, to_client, network.clone());
    tokio::select! {
        () = there => {}
        () = back => {}
        // Both halves are dropped, which closes both connections.
        _ = network.wait_for(|network| *network == Network::Cut) => {}
    }
}

/// As [`pump`], but each chunk may be delayed; they keep their order.
async fn pump_back(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut network: watch::Receiver<Network>) {
    let (put, mut take) = mpsc::channel::<(Instant, Vec<u8>)>(MOST_LATE);
    let read = async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let Ok(late) = network.wait_for(|network| *network != Network::BlackHole).await.map(|now| match *now {
                Network::Late(late) => late,
                _ => Duration::ZERO,
            }) else {
                return;
            };
            if put.send((Instant::now() + late, buffer[..read].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((at, bytes)) = take.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut network: watch::Receiver<Network>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if network.wait_for(|network| *network != Network::BlackHole).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
