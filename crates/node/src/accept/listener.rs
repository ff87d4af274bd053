//! Listening sockets of any kind, as an accept loop sees them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use trestle_engine::share::client_of;

use super::peer_groups::peer_groups;

/// Where a connection comes from, as the kernel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnectionOrigin {
    /// From a network address.
    Tcp(SocketAddr),
    /// Over a UNIX socket; from which process, where the kernel knows.
    Unix(Option<UnixCredentials>),
}

/// The process at the other end of a UNIX socket when it connected (SO_PEERCRED, unix(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnixCredentials {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Its supplementary groups.
    pub(crate) groups: Arc<[u32]>,
}

/// Whose connection it is, as far as shares go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ClientSource {
    /// A network address; of IPv6 the network of 64 bits.
    Address(IpAddr),
    /// A user of this machine, over a UNIX socket.
    User(u32),
    /// This machine itself, or a process of it that the kernel does not describe.
    Local,
}

impl From<&ConnectionOrigin> for ClientSource {
    fn from(origin: &ConnectionOrigin) -> Self {
        match origin {
            ConnectionOrigin::Tcp(address) => Self::Address(client_of(address.ip())),
            ConnectionOrigin::Unix(Some(process)) => Self::User(process.uid),
            ConnectionOrigin::Unix(None) => Self::Local,
        }
    }
}

impl std::fmt::Display for ClientSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ClientSource::Address(ip) => ip.fmt(f),
            ClientSource::User(uid) => write!(f, "uid {uid}"),
            ClientSource::Local => f.write_str("this machine"),
        }
    }
}

/// A socket that listens.
pub(crate) trait ListeningSocket: Send + Sync + 'static {
    /// What it accepts.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, and where it comes from.
    ///
    /// # Errors
    /// What accept(2) says; most of it concerns one connection only.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Io, ConnectionOrigin)>> + Send;

    /// Ends a connection that cannot be had, so that its client knows at once.
    fn refuse(io: Self::Io) {
        drop(io);
    }
}

impl ListeningSocket for TcpListener {
    type Io = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, ConnectionOrigin)> {
        let (stream, from) = TcpListener::accept(self).await?;
        // Fails only when the client has reset already, which the first read tells. Without it an answer waits up to 40 ms
        // for the delayed acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        Ok((stream, ConnectionOrigin::Tcp(from)))
    }

    fn refuse(io: TcpStream) {
        // A reset leaves nothing behind here, where a FIN would leave a socket in TIME_WAIT for each.
        let _ = io.set_zero_linger();
    }
}

impl ListeningSocket for UnixListener {
    type Io = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, ConnectionOrigin)> {
        let (stream, _) = UnixListener::accept(self).await?;
        let credentials = stream.peer_cred().ok().map(|process| UnixCredentials {
            uid: process.uid(),
            gid: process.gid(),
            // Before Linux 4.13 the kernel does not tell: then only the main group counts.
            groups: peer_groups(stream.as_fd()).unwrap_or_default().into(),
        });
        Ok((stream, ConnectionOrigin::Unix(credentials)))
    }
}
