//! What lies between an accepted socket and the protocol above it: nothing, or TLS with the identity of a user or a member. The first byte
//! decides, so that both have one port: a TLS record of a handshake begins with 0x16 (RFC 8446 section 5.1), HTTP/2 with "PRI"
//! (RFC 9113 section 3.4). The calling side's is `trestle_api::transport`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;
use trestle_identity::tls::{self, HandshakeFailure, TlsStream};

use super::MonitoredIo;
use super::connection::PortConnection;
use super::session::{CallerSession, Door, OpensTo};

/// The type of a record that begins a TLS handshake.
const HANDSHAKE: u8 = 0x16;
/// How long a handshake may take. It needs two round trips, each of which may lose a packet.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// A fatal alert, `internal_error`: this member cannot speak TLS (RFC 8446 section 6).
const CANNOT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 80];
/// How long a client that was refused may take to read why. Closing at once could take the alert from it: the system resets a
/// connection that is closed with bytes that nobody has read (RFC 1122 section 4.2.2.13).
const LINGER: Duration = Duration::from_secs(1);
/// Bytes of such a client that are read in that time.
const LINGER_BYTES: u64 = 64 * 1024;

/// What the connections of a port begin with.
#[derive(Debug, Clone)]
pub(crate) enum ServerTransport {
    /// The protocol itself, without encryption.
    Plain,
    /// The protocol itself, or TLS. Without TLS every call may be refused, in words.
    PlainOrTls(Arc<Door>),
}

/// Why a connection is closed before anything is served.
#[derive(Debug)]
pub(crate) struct NotEstablished {
    /// What its client did, in words that are the same for all of the kind.
    pub(crate) what: &'static str,
    /// As much as is known of it.
    pub(crate) detail: String,
}

impl NotEstablished {
    fn plain(what: &'static str) -> Self {
        Self { what, detail: String::new() }
    }
}

/// The stream that a protocol is spoken on.
#[derive(Debug)]
pub(crate) enum EstablishedIo<Io> {
    Plain(FirstByte<MonitoredIo<Io>>),
    Tls(Box<TlsStream<FirstByte<MonitoredIo<Io>>>>),
}

/// A connection whose first byte was looked at.
#[derive(Debug)]
pub(crate) struct FirstByte<Io> {
    byte: Option<u8>,
    io: Io,
}

/// Sends a client that is not let in away, so that it gets to read why.
async fn send_away<Io: AsyncRead + AsyncWrite + Unpin>(mut io: Io) {
    let last = async {
        io.shutdown().await?;
        tokio::io::copy(&mut io.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // It has gone, or had its time: there is nobody to tell.
    let _ = timeout(LINGER, last).await;
}

impl ServerTransport {
    /// Makes the stream that the protocol is spoken on, and notes with the connection who its client is.
    ///
    /// # Errors
    /// What the client did wrong.
    pub(crate) async fn establish<Io: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut io: MonitoredIo<Io>,
        connection: &PortConnection,
    ) -> Result<EstablishedIo<Io>, NotEstablished> {
        let Self::PlainOrTls(door) = self else {
            return Ok(EstablishedIo::Plain(FirstByte { byte: None, io }));
        };
        let mut first = [0];
        match io.read(&mut first).await {
            Ok(1) => {}
            // It went without a word, as one that only looks whether somebody listens.
            Ok(_) | Err(_) => return Ok(EstablishedIo::Plain(FirstByte { byte: None, io })),
        }
        let io = FirstByte { byte: first.first().copied(), io };
        if first != [HANDSHAKE] {
            connection.set_session(door.plain_session());
            return Ok(EstablishedIo::Plain(io));
        }
        let accepted = timeout(HANDSHAKE_MAX, secure(io, door)).await;
        let (stream, session) =
            accepted.map_err(|_| NotEstablished::plain("it does not finish its TLS handshake"))??;
        connection.set_session(session);
        Ok(EstablishedIo::Tls(Box::new(stream)))
    }
}

async fn secure<Io: AsyncRead + AsyncWrite + Unpin>(
    io: Io,
    door: &Arc<Door>,
) -> Result<(TlsStream<Io>, Arc<CallerSession>), NotEstablished> {
    let Some(leaf) = door.leaf() else {
        return Err(cannot(io, "it wants TLS, and this member has no certificate of its own yet").await);
    };
    let made = match door.opens_to {
        OpensTo::Users => {
            let accepted = tls::accept(io, &leaf, door.state()).await;
            accepted.map(|(stream, user)| (stream, door.user_session(user)))
        }
        OpensTo::Members => {
            let Some(trust) = door.trust() else {
                return Err(
                    cannot(io, "it wants TLS, and this member knows no authority of its cluster").await
                );
            };
            let accepted = tls::accept_member(io, &leaf, trust, door.now()).await;
            accepted.map(|(stream, identity)| (stream, door.peer_session(identity)))
        }
    };
    match made {
        Ok(made) => Ok(made),
        Err(HandshakeFailure { kind, words, io }) => {
            send_away(io).await;
            Err(NotEstablished { what: kind, detail: words })
        }
    }
}

/// Sends a client away that this member cannot speak TLS with.
async fn cannot<Io: AsyncRead + AsyncWrite + Unpin>(mut io: Io, what: &'static str) -> NotEstablished {
    if io.write_all(&CANNOT).await.is_ok() {
        send_away(io).await;
    }
    NotEstablished::plain(what)
}

impl<Io: AsyncRead + Unpin> AsyncRead for FirstByte<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() > 0
            && let Some(byte) = self.byte.take()
        {
            buffer.put_slice(&[byte]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for FirstByte<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncRead for EstablishedIo<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buffer),
            Self::Tls(io) => Pin::new(&mut **io).poll_read(cx, buffer),
        }
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncWrite for EstablishedIo<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            Self::Tls(io) => Pin::new(&mut **io).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, slices),
            Self::Tls(io) => Pin::new(&mut **io).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(_) => true,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(&mut **io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(&mut **io).poll_shutdown(cx),
        }
    }
}
