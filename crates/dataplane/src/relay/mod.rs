//! Moving bytes between the client's and the backend's side of a connection.
//!
//! An idle connection holds no buffer. The connections of a worker share one buffer, which is used only within a poll, and a
//! pool of pipes, which a direction uses while it moves bulk. Bytes that the other side does not take are kept in a buffer of
//! their own, or in the pipe, and nothing more is read until they are written. So a slow reader slows the writer down, and
//! costs at most 64 KiB here, or 1 MiB in a pipe, for each direction.

mod flow;
pub(crate) mod keepalive;
mod peer_watch;
mod pipe;
pub(crate) mod reactor;
pub(crate) mod socket;
mod socket_options;
mod transport;

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll};

use crate::relay::keepalive::Keepalive;
pub(crate) use pipe::{count_pipes, sweep_pipes};

use crate::observe::close_reason::CloseReason;
use crate::relay::socket::Socket;
use flow::{Flow, FlowFault};
use transport::Transport;

/// Size of a worker's shared buffer. Costs per byte fall little beyond it, and it still fits a core's second cache.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Bytes that a poll moved.
#[derive(Debug, Default)]
pub(crate) struct RelayedBytes {
    /// From the client to the backend.
    pub(crate) up: u64,
    /// From the backend to the client.
    pub(crate) down: u64,
}

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Backend,
}

impl Side {
    fn closed(self) -> CloseReason {
        match self {
            Side::Client => CloseReason::ClientClosed,
            Side::Backend => CloseReason::BackendClosed,
        }
    }

    fn failed(self, error: &io::Error) -> CloseReason {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
        match (self, error.kind()) {
            (Side::Client, ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected) => {
                CloseReason::ClientReset
            }
            (Side::Backend, ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected) => {
                CloseReason::BackendReset
            }
            (Side::Client, _) => CloseReason::ClientLost,
            (Side::Backend, _) => CloseReason::BackendLost,
        }
    }
}

/// What a side that was reset had sent before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// Perhaps not all: its stream has no end.
    Midway,
    /// Everything, and its end.
    Finished,
}

/// The two sides of a connection, and what is under way between them.
#[derive(Debug)]
pub(crate) struct Relay<C: Transport = Socket, B: Transport = Socket> {
    client: C,
    backend: B,
    up: Flow,
    down: Flow,
    /// How the connection ends, as far as it is known: the first side to finish or to break decides.
    ending: Option<CloseReason>,
    /// One side no longer takes bytes because it was reset; the other one is reset once the bytes for it were sent.
    broken: Option<Broken>,
    /// Both sides are to end with a reset.
    is_reset: bool,
}

impl<C: Transport, B: Transport> Relay<C, B> {
    /// Relays between two connected sides. `first` goes to the backend before anything else: bytes that were read from
    /// the client to decide where it is led, or a header for the backend. It counts as bytes from the client.
    pub(crate) fn new(client: C, backend: B, first: Vec<u8>) -> Self {
        let up = if first.is_empty() { Flow::default() } else { Flow::starting_with(first) };
        Self { client, backend, up, down: Flow::default(), ending: None, broken: None, is_reset: false }
    }

    /// Moves what can be moved, and adds it to `moved`; ready when the connection has ended, and why.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, moved: &mut RelayedBytes) -> Poll<CloseReason> {
        if let Some(reason) = self.look_after() {
            return Poll::Ready(reason);
        }
        BUFFER.with_borrow_mut(|buffer| {
            // The backend's side first: an answer that came before a reset is still passed on.
            for source in [Side::Backend, Side::Client] {
                let (client, backend) = (&mut self.client, &mut self.backend);
                let polled = match source {
                    Side::Client if !self.up.done => {
                        self.up.poll(cx, (client, backend), self.down.done, buffer, &mut moved.up)
                    }
                    Side::Backend if !self.down.done => {
                        self.down.poll(cx, (backend, client), self.up.done, buffer, &mut moved.down)
                    }
                    Side::Client | Side::Backend => continue,
                };
                match polled {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => {
                        self.ending.get_or_insert(source.closed());
                    }
                    Poll::Ready(Err(fault)) => {
                        if let Some(reason) = self.fault(source, &fault) {
                            return Poll::Ready(reason);
                        }
                    }
                }
            }
            match self.ending {
                Some(reason) if self.up.done && self.down.done => {
                    match self.broken {
                        Some(Broken::Midway) => self.reset(),
                        Some(Broken::Finished) => self.reset_unless_owed(),
                        None => {}
                    }
                    Poll::Ready(reason)
                }
                _ => self.half_closed_failure(cx).map_or(Poll::Pending, Poll::Ready),
            }
        })
    }

    /// Sets options on sockets that have become old, and looks at peers; returns how the connection ends when one is dead.
    fn look_after(&mut self) -> Option<CloseReason> {
        let (client, backend) = (self.client.socket(), self.backend.socket());
        let (client_due, backend_due) = (client.take_due(), backend.take_due());
        if backend_due.is_aged {
            let keepalive = Keepalive::new(backend.dead_peer_timeout());
            // Both fail only on a socket that was reset, of which it tells itself.
            let _ = keepalive.apply(backend);
            if keepalive != Keepalive::default() {
                let _ = keepalive.apply(client);
            }
        }
        let reason = if client_due.look && client.is_peer_dead() {
            CloseReason::ClientLost
        } else if backend_due.look && backend.is_peer_dead() {
            CloseReason::BackendLost
        } else {
            return None;
        };
        self.reset();
        Some(reason)
    }

    /// Takes note of a fault in the direction from `source`; returns how the connection ends when it ends now.
    fn fault(&mut self, source: Side, fault: &FlowFault) -> Option<CloseReason> {
        let (flow, target) = match source {
            Side::Client => (&mut self.up, Side::Backend),
            Side::Backend => (&mut self.down, Side::Client),
        };
        match fault {
            FlowFault::Read(error) => {
                self.reset();
                Some(source.failed(error))
            }
            FlowFault::Write(error) => {
                // What the destination sent before it broke can still be read, so the other direction goes on. It ends
                // soon: a socket that was reset reads as finished after that. EPIPE says that the destination had
                // finished properly before (RFC 9293 §3.10.7.4, tcp_reset in Linux).
                flow.stop();
                let finished = error.kind() == io::ErrorKind::BrokenPipe;
                self.broken = Some(if finished { Broken::Finished } else { Broken::Midway });
                self.ending = Some(target.failed(error));
                None
            }
        }
    }

    /// Whether a side has failed that had finished before; returns how the connection ends then. While the other direction
    /// only waits for its source, nothing else looks at that side.
    fn half_closed_failure(&mut self, cx: &Context<'_>) -> Option<CloseReason> {
        let sockets = [
            (Side::Client, &self.up, self.client.socket()),
            (Side::Backend, &self.down, self.backend.socket()),
        ];
        let (side, socket) = sockets.into_iter().find_map(|(side, flow, socket)| {
            (flow.done && socket.poll_failed(cx)).then_some((side, socket))
        })?;
        let error =
            socket.take_error().ok().flatten().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
        let reason = self.ending.filter(|_| self.broken.is_some()).unwrap_or_else(|| side.failed(&error));
        self.reset_unless_owed();
        Some(reason)
    }

    /// Makes both sides end with a reset, except one with bytes and an end that could not be sent yet: a reset would throw
    /// them away. Its peer gets them, the end, and a reset as soon as it sends something.
    fn reset_unless_owed(&mut self) {
        self.is_reset = true;
        let sides = [
            (self.client.has_unsent(), self.client.socket()),
            (self.backend.has_unsent(), self.backend.socket()),
        ];
        for (_, socket) in sides.into_iter().filter(|(has_unsent, _)| !has_unsent) {
            // Fails only where the peer has reset first.
            let _ = socket.set_zero_linger();
        }
    }

    /// Makes both sides end with a reset when they are dropped.
    pub(crate) fn reset(&mut self) {
        self.is_reset = true;
        for socket in [self.client.socket(), self.backend.socket()] {
            // Fails only where the peer has reset first.
            let _ = socket.set_zero_linger();
        }
    }
}

impl<C: Transport, B: Transport> Drop for Relay<C, B> {
    /// Resets a connection that is dropped before it ended: its streams are not complete.
    fn drop(&mut self) {
        if !(self.is_reset || self.up.done && self.down.done) {
            self.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;

    use rustix::net::sockopt;

    use super::*;
    use crate::relay::reactor;
    use crate::relay::reactor::tests::on_worker;

    /// A connected socket and its peer.
    async fn socket() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = Socket::connect(Socket::unconnected(address).unwrap(), address).unwrap();
        socket.connected().await.unwrap();
        (socket, listener.accept().unwrap().0)
    }

    #[test]
    fn what_was_read_before_goes_first_and_counts() {
        on_worker(async {
            let ((client, mut sender), (backend, mut receiver)) = (socket().await, socket().await);
            sender.write_all(b" world").unwrap();
            drop(sender);
            receiver.shutdown(std::net::Shutdown::Write).unwrap();
            let mut relay = Relay::new(client, backend, b"hello".to_vec());
            let mut moved = RelayedBytes::default();
            poll_fn(|cx| relay.poll(cx, &mut moved)).await;
            drop(relay);
            let mut text = String::new();
            receiver.read_to_string(&mut text).unwrap();
            assert_eq!((text.as_str(), moved.up, moved.down), ("hello world", 11, 0));
        });
    }

    #[test]
    fn what_is_given_up_in_its_middle_ends_with_a_reset() {
        on_worker(async {
            let ((client, mut sender), (backend, mut receiver)) = (socket().await, socket().await);
            sender.write_all(b"half of it").unwrap();
            let mut relay = Relay::new(client, backend, Vec::new());
            let mut moved = RelayedBytes::default();
            poll_fn(|cx| {
                let ended = relay.poll(cx, &mut moved);
                assert!(ended.is_pending());
                if moved.up > 0 { Poll::Ready(()) } else { ended.map(|_| ()) }
            })
            .await;
            drop(relay);
            for end in [&mut sender, &mut receiver] {
                let end = end.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
                assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
            }
        });
    }

    #[test]
    fn a_backends_socket_gets_keepalive_once_it_is_old() {
        on_worker(async {
            let ((client, _sender), (backend, _receiver)) = (socket().await, socket().await);
            let watched: OwnedFd = std::os::fd::AsFd::as_fd(&backend).try_clone_to_owned().unwrap();
            let mut relay = Relay::new(client, backend, Vec::new());
            let mut sweeps = 0;
            poll_fn(|cx| {
                assert!(relay.poll(cx, &mut RelayedBytes::default()).is_pending());
                if sockopt::socket_keepalive(&watched).unwrap() {
                    return Poll::Ready(());
                }
                sweeps += 1;
                assert!(sweeps < 5, "no keepalive after four sweeps");
                reactor::sweep();
                cx.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
            assert!(sweeps > 1, "a young connection paid for keepalive");
        });
    }
}
