//! The TCP check, and the connect with which every other begins.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use super::sockets::Sockets;
use crate::dial::establish;
use crate::source::Sources;
use crate::table::CheckResult;

/// Whether the backend takes connections.
pub(super) async fn check(address: SocketAddr, timeout: Duration, sockets: &Sockets) -> CheckResult {
    match sockets.reach(address, timeout).await {
        Ok(()) => CheckResult::Connected,
        Err(error) => failed(&error, timeout),
    }
}

/// Connects, to say something. A connection that has not ended when it is dropped is reset.
///
/// # Errors
/// What is wrong with the backend.
pub(super) async fn connect(
    address: SocketAddr,
    timeout: Duration,
    sockets: &Sockets,
) -> Result<TcpStream, CheckResult> {
    sockets.make_room();
    let connected = match prepare(address, sockets.source()) {
        Ok(socket) => establish(socket, address, timeout).await,
        Err(error) => Err(error),
    };
    connected.map_err(|error| failed(&error, timeout))
}

/// A socket that is reset when it is closed.
fn prepare(address: SocketAddr, source: Sources) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_zero_linger()?;
    socket.set_nodelay(true)?;
    source.bind(&socket, address)?;
    Ok(socket)
}

fn failed(error: &io::Error, timeout: Duration) -> CheckResult {
    match (error.kind(), error.raw_os_error()) {
        // Without a number it is our own time-out, with one the kernel's.
        (io::ErrorKind::TimedOut, None) => CheckResult::TimedOut(timeout),
        (io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset, _) => CheckResult::Refused,
        (io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable, _) => CheckResult::Unreachable,
        (_, code) => CheckResult::Failed(code.unwrap_or_default()),
    }
}
