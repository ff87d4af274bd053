//! The TCP check, with which every other begins: connect.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::dial;
use crate::table::CheckResult;

/// Connects. However the check goes on, the connection ends by reset, so that no socket waits in TIME_WAIT for each
/// check.
///
/// # Errors
/// What is wrong with the backend.
pub(super) async fn connect(address: SocketAddr, timeout: Duration) -> Result<TcpStream, CheckResult> {
    match dial::stream(address, timeout).await {
        Ok(stream) => {
            // Fails only when the peer has reset first.
            let _ = stream.set_zero_linger();
            Ok(stream)
        }
        Err(error) => Err(match (error.kind(), error.raw_os_error()) {
            // Without a number it is our own time-out, with one the kernel's.
            (io::ErrorKind::TimedOut, None) => CheckResult::TimedOut(timeout),
            (io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset, _) => CheckResult::Refused,
            (io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable, _) => {
                CheckResult::Unreachable
            }
            (_, code) => CheckResult::Failed(code.unwrap_or_default()),
        }),
    }
}
