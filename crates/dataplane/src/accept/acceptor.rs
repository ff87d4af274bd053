//! A listening socket of a worker.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::task::{Context, Poll};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{self, SocketFlags};

use crate::relay::reactor::{self, Registration};
use crate::relay::socket::Socket;

/// Connections that are accepted in a row before those that stand get their turn.
const ROW: u32 = 64;

/// A listening socket whose connections become sockets of this worker.
#[derive(Debug)]
pub(crate) struct Acceptor {
    slot: Registration,
    socket: TcpListener,
    row: u32,
}

impl Acceptor {
    /// Takes over a socket that listens and does not block.
    ///
    /// # Errors
    /// What epoll_ctl(2) says.
    pub(crate) fn new(socket: TcpListener) -> io::Result<Self> {
        Ok(Self { slot: Registration::new(socket.as_fd())?, socket, row: 0 })
    }

    /// The next connection and where it comes from, once there is one.
    ///
    /// # Errors
    /// What accept(2) says; most of it concerns one connection only, so go on.
    pub(crate) fn poll_accept(&mut self, cx: &Context<'_>) -> Poll<io::Result<(Socket, SocketAddr)>> {
        if !self.slot.poll(cx, EventFlags::IN).contains(EventFlags::IN) {
            self.row = 0;
            return Poll::Pending;
        }
        if self.row == ROW {
            self.row = 0;
            reactor::yield_now(cx);
            return Poll::Pending;
        }
        self.row += 1;
        match self.try_accept() {
            // The queue is empty. Events are told once for all connections that came by then, so that only this answer
            // shows that none is left behind.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.slot.clear(EventFlags::IN);
                self.row = 0;
                let _ = self.slot.poll(cx, EventFlags::IN);
                Poll::Pending
            }
            accepted => Poll::Ready(accepted),
        }
    }

    /// The next connection that waits in the queue, whether or not the reactor has heard of it.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; else as [`Acceptor::poll_accept`].
    pub(crate) fn try_accept(&self) -> io::Result<(Socket, SocketAddr)> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (socket, from) = net::acceptfrom_with(&self.socket, flags)?;
        let from = from.ok_or(Errno::CONNABORTED)?.try_into()?;
        Ok((Socket::accepted(socket)?, from))
    }
}
