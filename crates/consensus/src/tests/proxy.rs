//! A connection between two members that can be cut: while it is, bytes stay where they are and nobody is told.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    open: watch::Sender<bool>,
    target: watch::Sender<SocketAddr>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub(super) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, gate) = watch::channel(true);
        let (target, leads) = watch::channel(target);
        let task = tokio::spawn(async move {
            let mut pumps = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                pumps.spawn(relay(client, leads.clone(), gate.clone()));
            }
        });
        Self { address, open, target, task }
    }

    /// From now on it leads to `target`; what led elsewhere ends.
    pub(super) fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }

    pub(super) fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(client: TcpStream, mut target: watch::Receiver<SocketAddr>, mut gate: watch::Receiver<bool>) {
    if gate.wait_for(|open| *open).await.is_err() {
        return;
    }
    let to = *target.borrow_and_update();
    let Ok(server) = TcpStream::connect(to).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // Either end closes the whole: enough for connections that only ever end as a whole.
    tokio::select! {
        () = pump(from_client, to_server, gate.clone()) => {}
        () = pump(from_server, to_client, gate) => {}
        _ = target.changed() => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut gate: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if gate.wait_for(|open| *open).await.is_err() || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
