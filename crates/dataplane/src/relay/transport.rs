//! What a relay moves bytes over: a plain socket, or something that has one below it, such as a TLS session.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll};

use rustix::io::Errno;

use super::socket::{Socket, Spliced};

/// One side of a relayed connection.
///
/// Every method that is polled wakes the task when it may come to something. A relay is made for the two types of its sides,
/// so that a plain socket costs what it costs without this trait.
pub(crate) trait Transport: fmt::Debug + Send {
    /// Whether bytes can be spliced between this and another such transport, as they are.
    const SPLICES: bool = false;

    /// The socket below.
    fn socket(&self) -> &Socket;

    /// Reads bytes of the peer's stream; 0 once the peer has finished it.
    ///
    /// # Errors
    /// What the socket says. A stream that breaks off without the end that its protocol gives it is `ConnectionAborted`.
    fn poll_read(&mut self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Whether the next read is known to say that the peer has finished.
    fn is_at_end(&self) -> bool;

    /// Takes bytes to write, at least one. What it takes it may keep, a record's worth or so, until [`Transport::poll_flush`].
    /// With `ends`, the caller has nothing to write after `bytes`, and calls [`Transport::poll_finish`] at once when all were
    /// taken.
    ///
    /// # Errors
    /// What the socket says; `BrokenPipe` only where the peer had finished its own stream before.
    fn poll_write(&mut self, cx: &Context<'_>, bytes: &[u8], ends: bool) -> Poll<io::Result<usize>>;

    /// Ready once everything that was taken is with the kernel. Until then nothing more is read for this side.
    ///
    /// # Errors
    /// As [`Transport::poll_write`].
    fn poll_flush(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>>;

    /// Tells the peer that nothing more comes; reading goes on. With `last`, the socket is closed right after that, so that an
    /// end which closing tells by itself need not be told here.
    ///
    /// # Errors
    /// As [`Transport::poll_write`].
    fn poll_finish(&mut self, cx: &Context<'_>, last: bool) -> Poll<io::Result<()>>;

    /// Whether bytes were taken that are not sent yet.
    fn has_unsent(&self) -> bool {
        !self.socket().unsent().is_ok_and(|bytes| bytes == 0)
    }

    /// Moves bytes from the socket by `splice`; see [`Socket::poll_splice_from`]. Only where it [splices](Self::SPLICES).
    ///
    /// # Errors
    /// What splice(2) says.
    fn poll_splice_from(
        &self,
        _cx: &Context<'_>,
        _splice: impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> Poll<io::Result<Spliced>> {
        Poll::Ready(Ok(Spliced::Stuck))
    }

    /// Moves bytes to the socket by `splice`; see [`Socket::poll_splice_to`]. Only where it [splices](Self::SPLICES).
    ///
    /// # Errors
    /// What splice(2) says.
    fn poll_splice_to(
        &mut self,
        _cx: &Context<'_>,
        _splice: impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

impl Transport for Socket {
    const SPLICES: bool = true;

    fn socket(&self) -> &Socket {
        self
    }

    fn poll_read(&mut self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Socket::poll_read(self, cx, buffer)
    }

    fn is_at_end(&self) -> bool {
        Socket::is_at_end(self)
    }

    fn poll_write(&mut self, cx: &Context<'_>, bytes: &[u8], ends: bool) -> Poll<io::Result<usize>> {
        Socket::poll_write(self, cx, bytes, ends)
    }

    fn poll_flush(&mut self, _cx: &Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _cx: &Context<'_>, last: bool) -> Poll<io::Result<()>> {
        Poll::Ready(if last { Ok(()) } else { self.finish() })
    }

    fn poll_splice_from(
        &self,
        cx: &Context<'_>,
        splice: impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> Poll<io::Result<Spliced>> {
        Socket::poll_splice_from(self, cx, splice)
    }

    fn poll_splice_to(
        &mut self,
        cx: &Context<'_>,
        splice: impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> Poll<io::Result<usize>> {
        Socket::poll_splice_to(self, cx, splice)
    }
}

#[cfg(test)]
mod tests;
