//! Connecting to an address.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::connection::reset;
use crate::source::Sources;

/// Connects to a backend from one of this member's own addresses, if it is to.
///
/// # Errors
/// What bind(2) and connect(2) say, or `TimedOut`.
pub(crate) async fn dial(address: SocketAddr, limit: Duration, source: Sources) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    socket.set_keepalive(true)?;
    source.bind(&socket, address)?;
    establish(socket, address, limit).await
}

/// Connects a socket of the family of `address`.
///
/// # Errors
/// What connect(2) says, or `TimedOut`.
pub(crate) async fn establish(
    socket: TcpSocket,
    address: SocketAddr,
    limit: Duration,
) -> io::Result<TcpStream> {
    let stream = timeout(limit, socket.connect(address)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    // Where nobody listens on a local port of the ephemeral range, the kernel may pick that very port as the source,
    // and TCP then connects the socket to itself (simultaneous open, RFC 9293 §3.5).
    if stream.local_addr()? == address {
        reset(stream);
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}
