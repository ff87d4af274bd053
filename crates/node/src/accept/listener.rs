//! Listening sockets of any kind, as an accept loop sees them.

use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use trestle_engine::share::client_of;

/// Whose connection it is, as far as shares go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ClientSource {
    /// A network address; of IPv6 the network of 64 bits.
    Address(IpAddr),
    /// A process of this machine, over a UNIX socket.
    Local,
}

impl std::fmt::Display for ClientSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ClientSource::Address(ip) => ip.fmt(f),
            ClientSource::Local => f.write_str("this machine"),
        }
    }
}

/// A socket that listens.
pub(crate) trait ListeningSocket: Send + Sync + 'static {
    /// What it accepts.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, and whose it is.
    ///
    /// # Errors
    /// What accept(2) says; most of it concerns one connection only.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Io, ClientSource)>> + Send;

    /// Ends a connection that cannot be had, so that its client knows at once.
    fn refuse(io: Self::Io) {
        drop(io);
    }
}

impl ListeningSocket for TcpListener {
    type Io = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, ClientSource)> {
        let (stream, from) = TcpListener::accept(self).await?;
        // Fails only when the client has reset already, which the first read tells. Without it an answer waits up to 40 ms
        // for the delayed acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        Ok((stream, ClientSource::Address(client_of(from.ip()))))
    }

    fn refuse(io: TcpStream) {
        // A reset leaves nothing behind here, where a FIN would leave a socket in TIME_WAIT for each.
        let _ = io.set_zero_linger();
    }
}

impl ListeningSocket for UnixListener {
    type Io = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, ClientSource)> {
        Ok((UnixListener::accept(self).await?.0, ClientSource::Local))
    }
}
