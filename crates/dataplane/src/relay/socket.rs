//! One side of a connection: a TCP socket that never blocks, and what the reactor knows of it.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, ipproto, sockopt,
};

use crate::relay::peer_watch::{self, PeerWatch};
use crate::relay::reactor::{Due, Registration};
use crate::relay::socket_options;

/// A reader learns of these by reading.
const READABLE: EventFlags =
    EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::HUP).union(EventFlags::ERR);

/// A writer learns of these by writing.
const WRITABLE: EventFlags = EventFlags::OUT.union(EventFlags::HUP).union(EventFlags::ERR);

/// Whether small writes go out at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delay {
    /// Yes, by TCP_NODELAY.
    Off,
    /// Yes, because nothing was written yet: Nagle's rule (RFC 9293 §3.7.4) holds a small segment back only behind
    /// another small one that is not acknowledged yet (as Linux and Minshall read it). A connection of one request
    /// never pays for the option.
    FirstWrite,
    /// No: the next write needs the option set before.
    Pending,
}

/// How a peer went away before it was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerGone {
    /// It closed the connection and had sent nothing.
    Closed,
    /// It reset the connection, or cannot be reached any more.
    Reset,
}

/// What [`Socket::poll_splice_from`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spliced {
    /// So many bytes were moved.
    Bytes(usize),
    /// The peer has finished.
    End,
    /// Only [`Socket::poll_read`] can tell what comes next.
    Stuck,
}

/// A connected or connecting TCP socket. Belongs to the worker thread that made it.
#[derive(Debug)]
pub(crate) struct Socket {
    // The slot goes before the descriptor is closed.
    slot: Registration,
    fd: OwnedFd,
    delay: Delay,
}

/// Whether there is only the peer's end to read.
fn at_end(ready: EventFlags) -> bool {
    ready.contains(EventFlags::RDHUP) && !ready.intersects(EventFlags::IN | EventFlags::ERR)
}

/// Begins to connect.
///
/// # Errors
/// What connect(2) says at once.
pub(crate) fn begin(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    match net::connect(socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn would_block<T>(result: Result<T, Errno>) -> Option<io::Result<T>> {
    match result {
        Err(Errno::AGAIN) => None,
        other => Some(other.map_err(io::Error::from)),
    }
}

impl Socket {
    /// Takes over an accepted socket, which inherited its options from the listening one.
    ///
    /// # Errors
    /// What epoll_ctl(2) says.
    pub(crate) fn accepted(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { slot: Registration::new(socket.as_fd())?, fd: socket, delay: Delay::Off })
    }

    /// A socket that can be connected to `address` by [`Socket::connect`], after options or a source address were set on
    /// it.
    ///
    /// # Errors
    /// What socket(2) says.
    pub(crate) fn unconnected(address: SocketAddr) -> io::Result<OwnedFd> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        Ok(net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?)
    }

    /// Begins to connect; [`Socket::connected`] tells when that is done.
    ///
    /// # Errors
    /// What connect(2) or epoll_ctl(2) say at once.
    pub(crate) fn connect(socket: OwnedFd, address: SocketAddr) -> io::Result<Self> {
        begin(&socket, address)?;
        // Registered only now: before connect(2) a socket counts as hung up.
        let slot = Registration::new(socket.as_fd())?;
        slot.set_aging();
        Ok(Self { slot, fd: socket, delay: Delay::FirstWrite })
    }

    /// Ends the connection with a reset. What is left can be connected again by [`Socket::reconnect`], from the address that
    /// it was bound to (connect(2), AF_UNSPEC).
    ///
    /// # Errors
    /// What connect(2) says.
    pub(crate) fn disconnect(&self) -> io::Result<()> {
        net::connect_unspec(&self.fd)?;
        // The socket counts as hung up now, which is no news to anybody.
        self.slot.forget_waker();
        Ok(())
    }

    /// Begins to connect after [`Socket::disconnect`]; [`Socket::connected`] tells when that is done.
    ///
    /// # Errors
    /// What connect(2) says at once.
    pub(crate) fn reconnect(&self, address: SocketAddr) -> io::Result<()> {
        // Events that were not collected yet tell how the socket is then, so that what is known is all that is stale.
        self.slot.clear(EventFlags::all());
        begin(&self.fd, address)
    }

    /// Waits until the connection stands.
    ///
    /// # Errors
    /// Why it could not be made.
    pub(crate) async fn connected(&self) -> io::Result<()> {
        let ready = poll_fn(|cx| self.poll(cx, WRITABLE)).await;
        if ready.intersects(EventFlags::ERR | EventFlags::HUP) {
            return Err(self.take_error()?.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()));
        }
        Ok(())
    }

    fn poll(&self, cx: &Context<'_>, wanted: EventFlags) -> Poll<EventFlags> {
        let ready = self.slot.poll(cx, wanted);
        if ready.intersects(wanted) { Poll::Ready(ready) } else { Poll::Pending }
    }

    /// Reads; 0 once the peer has finished.
    pub(crate) fn poll_read(&self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let Poll::Ready(ready) = self.poll(cx, READABLE) else { return Poll::Pending };
            // After everything was read that came before the peer's end, there is only the end: no need to ask for it.
            if at_end(ready) {
                return Poll::Ready(Ok(0));
            }
            let read = net::recv(&self.fd, &mut *buffer, RecvFlags::empty()).map(|(_, read)| read);
            match would_block(read) {
                Some(Ok(read)) => {
                    // Less than asked for means that there is no more, except before urgent data, where reads stop
                    // short (tcp(7)); the next event tells of what comes later.
                    if read > 0 && read < buffer.len() && !ready.contains(EventFlags::PRI) {
                        self.slot.clear(EventFlags::IN);
                    }
                    return Poll::Ready(Ok(read));
                }
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => self.slot.clear(READABLE),
            }
        }
    }

    /// Whether the next read is known to say that the peer has finished.
    pub(crate) fn is_at_end(&self) -> bool {
        at_end(self.slot.ready())
    }

    /// Writes what the socket takes, at least a byte. When `ends`, the caller has nothing to write after `bytes`, and calls
    /// [`Socket::finish`] at once when all were taken: they then share a segment with the end, and its acknowledgement.
    pub(crate) fn poll_write(
        &mut self,
        cx: &Context<'_>,
        bytes: &[u8],
        ends: bool,
    ) -> Poll<io::Result<usize>> {
        let mut flags = SendFlags::NOSIGNAL;
        flags.set(SendFlags::MORE, ends);
        loop {
            if self.poll(cx, WRITABLE).is_pending() {
                return Poll::Pending;
            }
            if !ends {
                self.no_delay();
            }
            match would_block(net::send(&self.fd, bytes, flags)) {
                Some(Ok(written)) => {
                    self.wrote();
                    if written < bytes.len() {
                        self.slot.clear(EventFlags::OUT);
                    }
                    return Poll::Ready(Ok(written));
                }
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => self.slot.clear(WRITABLE),
            }
        }
    }

    /// Moves bytes from the socket by `splice`, which gets it and says how many.
    ///
    /// Before urgent data splice(2) neither goes on nor says so: it finds nothing (EAGAIN) or the end (0) however much
    /// comes behind (`tcp_read_sock` and `tcp_splice_read` in Linux). A read passes it.
    pub(crate) fn poll_splice_from(
        &self,
        cx: &Context<'_>,
        mut splice: impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> Poll<io::Result<Spliced>> {
        loop {
            let Poll::Ready(ready) = self.poll(cx, READABLE) else { return Poll::Pending };
            let urgent = ready.contains(EventFlags::PRI);
            match would_block(splice(self.fd.as_fd())) {
                // Whoever tells of the end tells of urgent data before it too. What comes after the last event may be
                // either.
                Some(Ok(0)) if urgent || !ready.contains(EventFlags::RDHUP) => {
                    return Poll::Ready(Ok(Spliced::Stuck));
                }
                Some(Ok(0)) => return Poll::Ready(Ok(Spliced::End)),
                Some(Ok(moved)) => return Poll::Ready(Ok(Spliced::Bytes(moved))),
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None if urgent => return Poll::Ready(Ok(Spliced::Stuck)),
                None => self.slot.clear(READABLE),
            }
        }
    }

    /// Moves bytes to the socket by `splice`, which gets it and says how many, at least one.
    pub(crate) fn poll_splice_to(
        &mut self,
        cx: &Context<'_>,
        mut splice: impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.poll(cx, WRITABLE).is_pending() {
                return Poll::Pending;
            }
            self.no_delay();
            match would_block(splice(self.fd.as_fd())) {
                // Never seen. Whoever took it for the end of what there is to write would lose the rest.
                Some(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Some(moved) => {
                    self.wrote();
                    return Poll::Ready(moved);
                }
                None => self.slot.clear(WRITABLE),
            }
        }
    }

    fn no_delay(&mut self) {
        if self.delay == Delay::Pending {
            // Fails only on a socket that was reset, which the write says better.
            let _ = sockopt::set_tcp_nodelay(&self.fd, true);
            self.delay = Delay::Off;
        }
    }

    fn wrote(&mut self) {
        if self.delay == Delay::FirstWrite {
            self.delay = Delay::Pending;
        }
    }

    /// Reads into `buffer` once something is there; 0 once the peer has finished.
    ///
    /// # Errors
    /// What recv(2) says.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, buffer)).await
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// What send(2) says.
    #[cfg(test)]
    pub(crate) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = poll_fn(|cx| self.poll_write(cx, bytes, false)).await?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Whether the socket is known to have failed: [`Socket::take_error`] says how. If not, the task is woken when it does.
    pub(crate) fn poll_failed(&self, cx: &Context<'_>) -> bool {
        self.slot.poll(cx, EventFlags::ERR).contains(EventFlags::ERR)
    }

    /// Waits until nobody is there any more to be served: the peer has reset the connection or cannot be reached, or it
    /// has finished and not sent a byte that has not been read. Whoever `has_sent` something before may well wait for the
    /// answer, so that its end alone says nothing.
    pub(crate) async fn until_gone(&self, mut has_sent: bool) -> PeerGone {
        poll_fn(|cx| {
            let ready = self.slot.poll(cx, EventFlags::ERR | EventFlags::RDHUP);
            if ready.contains(EventFlags::ERR) {
                return Poll::Ready(PeerGone::Reset);
            }
            if has_sent || !ready.contains(EventFlags::RDHUP) {
                // The socket's events wake the task, whatever they are.
                return Poll::Pending;
            }
            match net::recv(&self.fd, &mut [0; 1], RecvFlags::PEEK) {
                Ok((_, 0)) => return Poll::Ready(PeerGone::Closed),
                Err(error) if error != Errno::AGAIN => return Poll::Ready(PeerGone::Reset),
                Ok(_) | Err(_) => has_sent = true,
            }
            Poll::Pending
        })
        .await
    }

    /// Why the socket failed, if it did and nobody was told.
    ///
    /// # Errors
    /// What getsockopt(2) says.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(sockopt::socket_error(&self.fd)?.err().map(io::Error::from))
    }

    /// Tells the peer that nothing more comes; reading goes on.
    ///
    /// # Errors
    /// What shutdown(2) says, such as that the peer has reset the connection.
    pub(crate) fn finish(&self) -> io::Result<()> {
        self.slot.peer(PeerWatch::wrote);
        Ok(net::shutdown(&self.fd, Shutdown::Write)?)
    }

    /// Bytes that were written and that the peer's window has no room for yet.
    ///
    /// # Errors
    /// What ioctl(2) says.
    pub(crate) fn unsent(&self) -> io::Result<usize> {
        socket_options::unsent(self.as_fd())
    }

    /// Makes the connection end with a reset when this is dropped.
    pub(crate) fn set_zero_linger(&self) -> io::Result<()> {
        Ok(sockopt::set_socket_linger(&self.fd, Some(Duration::ZERO))?)
    }

    /// The address of the peer.
    ///
    /// # Errors
    /// What getpeername(2) says.
    #[cfg(test)]
    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        let address = net::getpeername(&self.fd)?.ok_or(io::ErrorKind::NotConnected)?;
        Ok(address.try_into()?)
    }

    /// The address on this side.
    ///
    /// # Errors
    /// What getsockname(2) says.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(net::getsockname(&self.fd)?.try_into()?)
    }

    /// What the socket's age and its peer call for; each is reported once.
    pub(crate) fn take_due(&self) -> Due {
        self.slot.take_due()
    }

    /// The peer is dead after so long without an answer; see [`Socket::is_peer_dead`].
    pub(crate) fn set_dead_peer_timeout(&self, timeout: Duration) {
        self.slot.peer(|peer| *peer = PeerWatch::new(timeout));
    }

    pub(crate) fn dead_peer_timeout(&self) -> Duration {
        self.slot.peer(|peer| peer.timeout()).unwrap_or_default()
    }

    /// Looks at the peer, when that [is due](Socket::take_due).
    pub(crate) fn is_peer_dead(&self) -> bool {
        // Fails only on a socket that is gone, of which it tells itself.
        let pending = socket_options::pending(self.as_fd()).ok().flatten();
        self.slot.peer(|peer| peer.look(pending, peer_watch::now())).unwrap_or(false)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::relay::reactor::tests::on_worker;

    #[test]
    fn bytes_go_both_ways_and_the_end_is_seen() {
        on_worker(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let mut socket = Socket::connect(Socket::unconnected(address).unwrap(), address).unwrap();
            socket.connected().await.unwrap();
            let (mut peer, from) = listener.accept().unwrap();
            assert_eq!((socket.local_addr().unwrap(), socket.peer_addr().unwrap()), (from, address));
            let mut buffer = [0; 8];
            socket.write_all(b"ping").await.unwrap();
            peer.read_exact(&mut buffer[..4]).unwrap();
            peer.write_all(b"pong").unwrap();
            assert_eq!(socket.read(&mut buffer).await.unwrap(), 4);
            assert_eq!(&buffer[..4], b"pong");
            // What came before the end is read before it, also when both are there at once.
            peer.write_all(b"last").unwrap();
            drop(peer);
            assert_eq!(socket.read(&mut buffer[..3]).await.unwrap(), 3);
            assert_eq!(socket.read(&mut buffer).await.unwrap(), 1);
            assert_eq!(socket.read(&mut buffer).await.unwrap(), 0);
        });
    }

    #[test]
    fn a_port_where_nobody_listens_refuses() {
        on_worker(async {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let end = Socket::connect(Socket::unconnected(address).unwrap(), address)
                .unwrap()
                .connected()
                .await
                .unwrap_err();
            assert_eq!(end.kind(), io::ErrorKind::ConnectionRefused);
        });
    }

    #[test]
    fn the_last_bytes_wait_for_the_end() {
        on_worker(async {
            let attempt = async || {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let address = listener.local_addr().unwrap();
                let mut socket = Socket::connect(Socket::unconnected(address).unwrap(), address).unwrap();
                socket.connected().await.unwrap();
                let mut peer = listener.accept().unwrap().0;
                assert_eq!(poll_fn(|cx| socket.poll_write(cx, b"last", true)).await.unwrap(), 4);
                peer.set_nonblocking(true).unwrap();
                let early = peer.read(&mut [0; 1]).is_ok();
                peer.set_nonblocking(false).unwrap();
                socket.finish().unwrap();
                let mut rest = Vec::new();
                peer.read_to_end(&mut rest).unwrap();
                assert_eq!(rest.len() + usize::from(early), 4);
                !early
            };
            // The kernel waits for 200 ms, which a machine that does other things may take.
            assert!(attempt().await || attempt().await || attempt().await, "they went alone");
        });
    }

    #[test]
    fn delays_are_switched_off_before_the_second_write() {
        on_worker(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let mut socket = Socket::connect(Socket::unconnected(address).unwrap(), address).unwrap();
            socket.connected().await.unwrap();
            socket.write_all(b"a").await.unwrap();
            assert!(!sockopt::tcp_nodelay(&socket).unwrap());
            socket.write_all(b"b").await.unwrap();
            assert!(sockopt::tcp_nodelay(&socket).unwrap());
        });
    }
}
