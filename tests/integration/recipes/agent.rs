//! What stands for Patroni's REST API and for Galera's clustercheck: their answers are the recipes' only interest in them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Answers with 200 or 503.
pub(super) struct Agent {
    address: SocketAddr,
    /// The path that is answered with 200.
    good: Arc<Mutex<&'static str>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    /// One that looks at the path, as Patroni does.
    pub(super) fn patroni(address: impl Into<SocketAddr>, good: &'static str) -> Self {
        Self::start(address.into(), good, |stream, good| {
            let mut head = Vec::new();
            while !head.windows(4).any(|four| four == b"\r\n\r\n") {
                let mut buffer = [0; 1024];
                match stream.read(&mut buffer) {
                    Ok(count @ 1..) => head.extend_from_slice(&buffer[..count]),
                    _ => return,
                }
            }
            let head = String::from_utf8_lossy(&head);
            answer(stream, head.split(' ').nth(1) == Some(good));
        })
    }

    /// One that answers whoever connects at once and closes, as a script behind inetd does; while `good` is no empty text,
    /// with 200.
    pub(super) fn clustercheck(address: impl Into<SocketAddr>, good: &'static str) -> Self {
        Self::start(address.into(), good, |stream, good| answer(stream, !good.is_empty()))
    }

    fn start(address: SocketAddr, good: &'static str, serve: fn(&mut TcpStream, &str)) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let (good, stop) = (Arc::new(Mutex::new(good)), Arc::new(AtomicBool::new(false)));
        let (now, stopped) = (good.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let good = *now.lock().unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                serve(&mut stream, good);
            }
        });
        Self { address, good, stop, thread: Some(thread) }
    }

    /// From now on this path is good.
    pub(super) fn set(&self, good: &'static str) {
        *self.good.lock().unwrap() = good;
    }
}

/// The client may have gone.
fn answer(stream: &mut TcpStream, good: bool) {
    let status = if good { "200 OK" } else { "503 Service Unavailable" };
    let _ = write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the accept.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
