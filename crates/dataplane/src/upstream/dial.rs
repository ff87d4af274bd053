//! Connecting to a backend.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::machine::local_ports::may_meet_itself;
use crate::machine::shortage::Shortage;
use crate::relay::socket::Socket;
use crate::upstream::source::{ConnectError, Sources};

/// Connects to a backend from one of this member's own addresses, if it is to.
///
/// # Errors
/// What this member lacks, or what connect(2) says; `TimedOut` after `limit`. `lacks` hears of what it lacked before.
pub(crate) async fn dial(
    address: SocketAddr,
    limit: Duration,
    sources: &Sources,
    lacks: impl Fn(&Shortage),
) -> Result<Socket, ConnectError> {
    let socket = sources.connect(address, |_| Ok(()), |socket| Socket::connect(socket, address), lacks)?;
    timeout(limit, socket.connected()).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if may_meet_itself(address) && socket.local_addr()? == address {
        // Fails only where there is nothing left to reset.
        let _ = socket.set_zero_linger();
        return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
    }
    Ok(socket)
}

/// Waits until a socket is connected to `address`, which was begun, on a thread that is not a worker.
///
/// # Errors
/// What the peer or the network says, or `TimedOut` after `limit`.
pub(crate) async fn establish(
    socket: OwnedFd,
    address: SocketAddr,
    limit: Duration,
) -> io::Result<TcpStream> {
    let stream = TcpStream::from_std(socket.into())?;
    timeout(limit, stream.writable()).await.map_err(|_| io::ErrorKind::TimedOut)??;
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    if may_meet_itself(address) && stream.local_addr()? == address {
        let _ = stream.set_zero_linger();
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}
