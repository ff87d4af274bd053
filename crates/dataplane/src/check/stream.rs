//! The connection of one check. It bounds what is read, and ends in a way that backends do not log as an error.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::machine::shortage::Shortage;

/// Most bytes that one check reads, with what TLS and HTTP add: four times what is searched for a text. A backend that sends
/// without end costs a check no more than this.
const READ_MAX: usize = 256 * 1024;

/// How long a check waits for the backend to close: for a server that closes by itself, and then once more after the check
/// has sent its FIN. Servers close at once; the connection to one that does not is reset.
const CLOSING: Duration = Duration::from_millis(50);

/// A TCP connection of a check.
#[derive(Debug)]
pub(super) struct CheckStream {
    tcp: TcpStream,
    /// Bytes that may still be read.
    left: usize,
    /// What this member lacked when it read or wrote, if anything.
    lacks: Option<Shortage>,
}

/// The error of a backend that sends more than a check reads.
#[derive(Debug, thiserror::Error)]
#[error("sent more than the {} KiB that a check reads", READ_MAX / 1024)]
pub(super) struct Overrun;

impl CheckStream {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, left: READ_MAX, lacks: None }
    }

    /// What this member lacked, if anything. Errors of the protocols above do not show it.
    pub(super) fn lacks(&self) -> Option<Shortage> {
        self.lacks.clone()
    }

    /// Notes what an error of the socket says about this member.
    fn noted<T>(&mut self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled
            && let Some(shortage) = Shortage::of(error)
        {
            self.lacks = Some(shortage);
        }
        polled
    }

    /// The two ends, this member's first.
    pub(super) fn ends(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.tcp.local_addr()?, self.tcp.peer_addr()?))
    }

    /// Ends the connection as a satisfied client does: sends a FIN, and reads the rest until the backend closes too. Many
    /// servers log a reset as a client that broke off (PostgreSQL, Python's HTTP server, Dovecot, sshd), or count it against
    /// the client (MariaDB). If the backend does not close in time, the socket is reset when it is dropped.
    ///
    /// Where the backend closes after the check, each check leaves a socket in TIME_WAIT for a minute.
    pub(super) async fn say_goodbye(mut self) {
        finish(&mut self).await;
    }
}

/// Waits a moment for the backend to close by itself, as an HTTP server does when it was asked to.
pub(super) async fn await_close(stream: &mut (impl AsyncRead + Unpin)) {
    let _ = timeout(CLOSING, drain(stream)).await;
}

/// Finishes sending and reads to the end, for a moment.
pub(super) async fn finish<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let end = async {
        // This fails where the backend has closed already. What it said before can still be read.
        let _ = stream.shutdown().await;
        drain(stream).await;
    };
    let _ = timeout(CLOSING, end).await;
}

async fn drain(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = [0; 2048];
    while let Ok(1..) = stream.read(&mut rest).await {}
}

impl AsyncRead for CheckStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::Error::other(Overrun)));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.tcp).poll_read(cx, buf);
        // The last read may exceed the limit by the reader's buffer.
        self.left = self.left.saturating_sub(buf.filled().len().saturating_sub(before));
        self.noted(polled)
    }
}

impl AsyncWrite for CheckStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.tcp).poll_write(cx, data);
        self.noted(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// Reads nothing before something was written, and only reading reports that the other side is gone. Some servers answer HTTP
/// before they are asked and then close, as Galera's clustercheck does under inetd. hyper takes an answer without a request for
/// an error, and so it does a request that nobody accepts any more.
pub(super) struct AskFirst<S, G> {
    stream: S,
    asked: bool,
    reader: Option<Waker>,
    /// Whether to read on.
    go_on: G,
}

impl<S, G> AskFirst<S, G> {
    pub(super) fn new(stream: S, go_on: G) -> Self {
        Self { stream, asked: false, reader: None, go_on }
    }

    fn asked(&mut self) {
        self.asked = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl<S: AsyncRead + Unpin, G: Fn() -> bool + Unpin> AsyncRead for AskFirst<S, G> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.asked {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if !(self.go_on)() {
            return Poll::Ready(Err(io::Error::other("more than a check takes")));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin, G: Unpin> AsyncWrite for AskFirst<S, G> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = match Pin::new(&mut self.stream).poll_write(cx, data) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(written) => written.unwrap_or(data.len()),
        };
        self.asked();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx).map(|_| Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx).map(|_| Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::Ipv4Addr;

    use tokio::net::{TcpListener, TcpSocket};
    use tokio::task::JoinHandle;

    use super::*;

    #[tokio::test]
    async fn what_this_member_lacks_on_the_way_is_noted() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut stream = CheckStream::new(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let error = |number| Poll::Ready(io::Result::<()>::Err(io::Error::from_raw_os_error(number)));
        for number in [libc::ECONNRESET, libc::EPIPE, libc::ETIMEDOUT] {
            assert!(stream.noted(error(number)).is_ready());
            assert_eq!(stream.lacks(), None, "{number} comes from the backend");
        }
        for number in [libc::ENOMEM, libc::ENOBUFS] {
            stream.lacks = None;
            assert!(stream.noted(error(number)).is_ready());
            assert!(stream.lacks().is_some(), "{number}");
        }
    }

    /// The connection of a check to a server that sends without end, with small buffers in the kernel; and how much the server
    /// has sent when the connection is no more.
    async fn endless() -> (CheckStream, JoinHandle<usize>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(BUFFER).unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut sent = 0;
            while let Ok(written) = stream.write(&[0; 4096]).await {
                sent += written;
            }
            sent
        });
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(BUFFER).unwrap();
        (CheckStream::new(socket.connect(address).await.unwrap()), server)
    }

    /// Linux takes twice as much, and here lets no buffer grow.
    const BUFFER: u32 = 16 * 1024;

    #[tokio::test]
    async fn a_check_reads_256_kib_at_most() {
        let (mut stream, server) = endless().await;
        let (mut chunk, mut seen) = ([0; 5000], 0);
        let error = loop {
            match stream.read(&mut chunk).await {
                Ok(read) => seen += read,
                Err(error) => break error,
            }
            assert!(seen < 2 * READ_MAX, "it reads on");
        };
        assert!((READ_MAX..READ_MAX + chunk.len()).contains(&seen), "{seen}");
        assert_eq!(error.to_string(), "sent more than the 256 KiB that a check reads");
        // An end is not waited for either, and the server finds the connection reset.
        stream.tcp.set_zero_linger().unwrap();
        stream.say_goodbye().await;
        server.await.unwrap();
    }

    #[tokio::test]
    async fn what_comes_after_the_answer_is_bounded_as_well() {
        let (mut stream, server) = endless().await;
        stream.tcp.set_zero_linger().unwrap();
        await_close(&mut stream).await;
        stream.say_goodbye().await;
        let sent = server.await.unwrap();
        assert!(sent < 2 * READ_MAX, "{sent}");
    }
}
