//! A relay between a TLS session and a plain socket, with the TLS library that checks use: half-close, back-pressure, resets and
//! streams that break off come through as they do between two plain sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::observe::close_reason::CloseReason;
use crate::relay::reactor::tests::on_worker;
use crate::relay::{Relay, RelayedBytes};

const DEADLINE: Duration = Duration::from_secs(20);

/// The server's side of a TLS session.
#[derive(Debug)]
struct TlsTransport {
    session: ServerConnection,
    socket: Socket,
    is_finished: bool,
}

/// The socket as the TLS library sees it: what would block says so.
struct Records<'a, 'b> {
    socket: &'a mut Socket,
    cx: &'a Context<'b>,
}

fn or_would_block<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(result) => result,
        Poll::Pending => Err(ErrorKind::WouldBlock.into()),
    }
}

impl Read for Records<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        or_would_block(Socket::poll_read(self.socket, self.cx, buffer))
    }
}

impl Write for Records<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        or_would_block(Socket::poll_write(self.socket, self.cx, bytes, false))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn or_pending<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        other => Poll::Ready(other),
    }
}

impl TlsTransport {
    fn new(socket: Socket, config: Arc<ServerConfig>) -> Self {
        Self { session: ServerConnection::new(config).unwrap(), socket, is_finished: false }
    }

    fn poll_records_out(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            let mut records = Records { socket: &mut self.socket, cx };
            match or_pending(self.session.write_tls(&mut records)) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Transport for TlsTransport {
    fn socket(&self) -> &Socket {
        &self.socket
    }

    fn poll_read(&mut self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
                }
                read => return Poll::Ready(read),
            }
            let mut records = Records { socket: &mut self.socket, cx };
            match or_pending(self.session.read_tls(&mut records)) {
                Poll::Ready(Ok(_)) => {
                    let was_handshaking = self.session.is_handshaking();
                    let processed = self.session.process_new_packets();
                    processed.map_err(|error| io::Error::new(ErrorKind::ConnectionAborted, error))?;
                    if was_handshaking && !self.session.is_handshaking() {
                        // Bytes for this side may have waited for that.
                        cx.waker().wake_by_ref();
                    }
                    // Its answer in the handshake; what is left of that is written with whatever comes next.
                    if let Poll::Ready(Err(error)) = self.poll_records_out(cx) {
                        return Poll::Ready(Err(error));
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn is_at_end(&self) -> bool {
        false
    }

    fn poll_write(&mut self, cx: &Context<'_>, bytes: &[u8], _ends: bool) -> Poll<io::Result<usize>> {
        if self.poll_records_out(cx)?.is_pending() || self.session.is_handshaking() {
            return Poll::Pending;
        }
        let taken = self.session.writer().write(bytes)?;
        let _ = self.poll_records_out(cx)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.poll_records_out(cx)
    }

    fn poll_finish(&mut self, cx: &Context<'_>, last: bool) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.is_finished, true) {
            self.session.send_close_notify();
        }
        match self.poll_records_out(cx)? {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => self.socket.poll_finish(cx, last),
        }
    }

    fn has_unsent(&self) -> bool {
        self.session.wants_write() || self.socket.has_unsent()
    }
}

type TlsClient = StreamOwned<ClientConnection, TcpStream>;

/// The configurations of a server and of a client that trusts it.
fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

/// A connected socket of this worker, and its peer.
async fn pair() -> (Socket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let socket = Socket::connect(Socket::unconnected(address).unwrap(), address).unwrap();
    socket.connected().await.unwrap();
    let peer = listener.accept().unwrap().0;
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    peer.set_write_timeout(Some(DEADLINE)).unwrap();
    (socket, peer)
}

/// Relays between a TLS client and a plain backend, which run on threads of their own. Returns how the relay ended, what it
/// moved, and what the two came to.
fn relayed<C: Send + 'static, B: Send + 'static>(
    client: impl FnOnce(TlsClient) -> C + Send + 'static,
    backend: impl FnOnce(TcpStream) -> B + Send + 'static,
) -> (CloseReason, RelayedBytes, C, B) {
    let (server, trusting) = configs();
    let (reason, moved, client, backend) = on_worker(async move {
        let ((from_client, client_end), (to_backend, backend_end)) = (pair().await, pair().await);
        let session = ClientConnection::new(trusting, ServerName::try_from("a.example").unwrap()).unwrap();
        let client = thread::spawn(move || client(StreamOwned::new(session, client_end)));
        let backend = thread::spawn(move || backend(backend_end));
        let mut relay = Relay::new(TlsTransport::new(from_client, server), to_backend, Vec::new());
        let mut moved = RelayedBytes::default();
        let reason = poll_fn(|cx| relay.poll(cx, &mut moved)).await;
        drop(relay);
        (reason, moved, client, backend)
    });
    (reason, moved, client.join().unwrap(), backend.join().unwrap())
}

/// Everything until the end of the stream, and how that came.
fn read_all(stream: &mut impl Read) -> (Vec<u8>, io::Result<usize>) {
    let mut bytes = Vec::new();
    let result = stream.read_to_end(&mut bytes);
    (bytes, result)
}

#[test]
fn each_side_may_finish_before_the_other() {
    let (reason, moved, answer, question) = relayed(
        |mut client| {
            client.write_all(b"question").unwrap();
            client.conn.send_close_notify();
            client.flush().unwrap();
            // Its half is over; the answer comes all the same, and with an end of its own.
            let (answer, ended) = read_all(&mut client);
            ended.unwrap();
            answer
        },
        |mut backend| {
            let (question, ended) = read_all(&mut backend);
            ended.unwrap();
            backend.write_all(b"answer").unwrap();
            question
        },
    );
    assert_eq!((question.as_slice(), answer.as_slice()), (&b"question"[..], &b"answer"[..]));
    assert_eq!((reason, moved.up, moved.down), (CloseReason::ClientClosed, 8, 6));
}

#[test]
fn a_backend_that_finishes_first_is_told_to_the_client_which_goes_on() {
    let (reason, _, answer, question) = relayed(
        |mut client| {
            let (answer, ended) = read_all(&mut client);
            ended.unwrap();
            client.write_all(b"afterwards").unwrap();
            client.conn.send_close_notify();
            client.flush().unwrap();
            client.sock.shutdown(Shutdown::Write).unwrap();
            answer
        },
        |mut backend| {
            backend.write_all(b"that is all").unwrap();
            backend.shutdown(Shutdown::Write).unwrap();
            read_all(&mut backend).0
        },
    );
    assert_eq!((question.as_slice(), answer.as_slice()), (&b"afterwards"[..], &b"that is all"[..]));
    assert_eq!(reason, CloseReason::BackendClosed);
}

#[test]
fn a_client_that_does_not_read_slows_the_backend_down_and_loses_nothing() {
    const BYTES: usize = 24 << 20;
    let (stalled, go_on) = std::sync::mpsc::channel();
    let (reason, moved, received, sent_before) = relayed(
        move |mut client| {
            client.write_all(b"go").unwrap();
            // Reads once the backend has come to a halt.
            let () = go_on.recv_timeout(DEADLINE).unwrap();
            let (bytes, ended) = read_all(&mut client);
            ended.unwrap();
            client.conn.send_close_notify();
            client.flush().unwrap();
            bytes.iter().enumerate().all(|(i, byte)| *byte == (i % 251) as u8).then_some(bytes.len())
        },
        move |mut backend| {
            let mut go = [0; 2];
            backend.read_exact(&mut go).unwrap();
            let bytes: Vec<u8> = (0..BYTES).map(|i| (i % 251) as u8).collect();
            backend.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
            let mut sent = 0;
            let halted = loop {
                match backend.write(&bytes[sent..]) {
                    Ok(0) => break sent,
                    Ok(written) => sent += written,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break sent,
                    Err(error) => panic!("{error}"),
                }
            };
            backend.set_write_timeout(Some(DEADLINE)).unwrap();
            stalled.send(()).unwrap();
            backend.write_all(&bytes[sent..]).unwrap();
            halted
        },
    );
    assert_eq!(received, Some(BYTES), "bytes were lost or changed");
    assert!(sent_before < BYTES, "the backend was never held up");
    assert_eq!((reason, moved.down), (CloseReason::BackendClosed, BYTES as u64));
}

#[test]
fn a_reset_of_either_side_is_a_reset_of_the_other() {
    let reset = |stream: &TcpStream| {
        rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
    };
    let (reason, _, (), backend) = relayed(
        move |mut client| {
            client.write_all(b"half").unwrap();
            let mut byte = [0; 1];
            client.read_exact(&mut byte).unwrap();
            reset(&client.sock);
        },
        |mut backend| {
            let mut half = [0; 4];
            backend.read_exact(&mut half).unwrap();
            backend.write_all(b"x").unwrap();
            read_all(&mut backend).1.map_err(|error| error.kind())
        },
    );
    assert_eq!((reason, backend), (CloseReason::ClientReset, Err(ErrorKind::ConnectionReset)));
    let (reason, _, client, ()) = relayed(
        |mut client| {
            client.write_all(b"half").unwrap();
            read_all(&mut client).1.map_err(|error| error.kind())
        },
        move |mut backend| {
            let mut half = [0; 4];
            backend.read_exact(&mut half).unwrap();
            reset(&backend);
        },
    );
    assert_eq!((reason, client), (CloseReason::BackendReset, Err(ErrorKind::ConnectionReset)));
}

#[test]
fn a_session_that_breaks_off_without_its_end_is_no_end_of_the_stream() {
    let (reason, _, (), backend) = relayed(
        |mut client| {
            client.write_all(b"half").unwrap();
            let mut byte = [0; 1];
            client.read_exact(&mut byte).unwrap();
            // TCP's end without that of TLS (RFC 8446 §6.1).
            client.sock.shutdown(Shutdown::Write).unwrap();
            let _ = read_all(&mut client);
        },
        |mut backend| {
            let mut half = [0; 4];
            backend.read_exact(&mut half).unwrap();
            backend.write_all(b"x").unwrap();
            read_all(&mut backend).1.map_err(|error| error.kind())
        },
    );
    assert_eq!((reason, backend), (CloseReason::ClientReset, Err(ErrorKind::ConnectionReset)));
}
