//! A server behind the members that says its name and who asked.

use std::net::SocketAddr;
use std::thread::JoinHandle;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::host::Host;

/// Answers each connection with its name and the address that the connection came from, which is a member's.
#[derive(Debug)]
pub(super) struct Backend {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    /// Starts a server on a host and returns when it listens.
    pub(super) fn start(host: &Host, name: &'static str) -> Self {
        let address = SocketAddr::from((host.ip, 8080));
        let listener = host.run(|| std::net::TcpListener::bind(address).unwrap());
        listener.set_nonblocking(true).unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = serve(listener, name) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(listener: TcpListener, name: &'static str) {
    loop {
        // Fails when a client has gone before it was accepted.
        if let Ok((stream, peer)) = listener.accept().await {
            // Its end may be any: health checks ask nothing.
            tokio::spawn(async move { answer(stream, name, peer).await });
        }
    }
}

async fn answer(mut stream: TcpStream, name: &str, peer: SocketAddr) -> std::io::Result<()> {
    let (mut request, mut length) = ([0; 1024], 0);
    while !request[..length].ends_with(b"\r\n\r\n") {
        match stream.read(&mut request[length..]).await? {
            0 => return Ok(()),
            read => length += read,
        }
    }
    stream.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{name} {}", peer.ip()).as_bytes()).await
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
