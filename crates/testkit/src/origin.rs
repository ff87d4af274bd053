//! A backend: a small HTTP server that answers with a name.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A server that answers every request with its name, or, when it has none, with the address that was dialled.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    /// Starts a server on `address`; port 0 picks one.
    ///
    /// # Panics
    /// When the address cannot be bound.
    pub fn start(address: impl Into<SocketAddr>, name: &str) -> Self {
        let address = address.into();
        let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("origin {address}: {error}"));
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, name) = (stop.clone(), name.to_owned());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                if let Ok(stream) = stream {
                    let name = name.clone();
                    std::thread::spawn(move || answer(stream, &name));
                }
            }
        });
        Self { address, stop, thread: Some(thread) }
    }

    /// One server for 127.128.0.0 and all addresses after it, which answers with the IP address that was dialled: any
    /// number of backends at the price of one socket.
    pub fn everywhere() -> Self {
        Self::start(([0, 0, 0, 0], 0), "")
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening; connections are refused when this returns.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the accept.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
        }
    }
}

/// Answers requests until the client is done. Errors are the client's to notice.
fn answer(mut stream: TcpStream, name: &str) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
    let name = match (name, stream.local_addr()) {
        ("", Ok(address)) => address.ip().to_string(),
        _ => name.to_owned(),
    };
    let mut seen = Vec::new();
    let mut buffer = [0_u8; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(1..) if seen.len() > 64 * 1024 => return,
            Ok(count @ 1..) => seen.extend_from_slice(&buffer[..count]),
            _ => return,
        }
        if let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            let keep = seen[..end].windows(8).any(|eight| eight == b"HTTP/1.1");
            seen.drain(..end + 4);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", name.len() + 1);
            let close = if keep { "" } else { "Connection: close\r\n" };
            if stream.write_all(format!("{head}{close}\r\n{name}\n").as_bytes()).is_err() {
                return;
            }
            if !keep {
                let _ = stream.shutdown(Shutdown::Write);
                return;
            }
        }
    }
}
