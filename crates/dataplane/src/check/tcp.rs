//! The TCP check, and the connect with which every other check begins.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt::{set_socket_linger, set_tcp_nodelay};
use tokio::net::TcpStream;

use super::sockets::CheckSockets;
use crate::observe::check_result::CheckResult;
use crate::relay::socket::begin;
use crate::upstream::dial::establish;
use crate::upstream::source::ConnectError;

/// Whether the backend accepts connections.
pub(super) async fn check(address: SocketAddr, timeout: Duration, sockets: &CheckSockets) -> CheckResult {
    match sockets.reach(address, timeout).await {
        Ok(()) => CheckResult::Connected,
        Err(error) => failed(error, timeout),
    }
}

/// Connects, for a check that sends something. A connection that is still open when it is dropped is reset.
///
/// # Errors
/// What is wrong with the backend.
pub(super) async fn connect(
    address: SocketAddr,
    timeout: Duration,
    sockets: &CheckSockets,
) -> Result<TcpStream, CheckResult> {
    sockets.make_room();
    let connecting = sockets.connect(address, prepare, |socket| {
        begin(&socket, address)?;
        Ok(socket)
    });
    let connected = match connecting {
        Ok(socket) => establish(socket, address, timeout).await.map_err(ConnectError::from),
        Err(error) => Err(error),
    };
    connected.map_err(|error| failed(error, timeout))
}

/// Makes a socket send a reset when it is closed.
fn prepare(socket: &OwnedFd) -> io::Result<()> {
    set_socket_linger(socket, Some(Duration::ZERO))?;
    Ok(set_tcp_nodelay(socket, true)?)
}

fn failed(error: ConnectError, timeout: Duration) -> CheckResult {
    let error = match error {
        ConnectError::Own(shortage) => return CheckResult::NotMade(shortage),
        ConnectError::Peer(error) => error,
    };
    match (error.kind(), error.raw_os_error()) {
        // A time-out without an error number is our own, one with a number is the kernel's.
        (io::ErrorKind::TimedOut, None) => CheckResult::TimedOut(timeout),
        (io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset, _) => CheckResult::Refused,
        (io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable, _) => CheckResult::Unreachable,
        (_, code) => CheckResult::Failed(code.unwrap_or_default()),
    }
}
