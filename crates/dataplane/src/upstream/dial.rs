//! Connecting to a backend.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::LazyLock;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::machine::shortage::Shortage;
use crate::relay::socket::Leg;
use crate::upstream::source::{ConnectError, Sources};

/// Ports that the kernel picks sources from, as they were when this process first connected; all where that cannot be
/// read.
static EPHEMERAL: LazyLock<RangeInclusive<u16>> = LazyLock::new(|| ephemeral().unwrap_or(0..=u16::MAX));

/// Ports that the kernel gives to connections that name none, as they are now; `None` where that cannot be read.
pub(crate) fn ephemeral() -> Option<RangeInclusive<u16>> {
    range(&std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?)
}

/// Reads `first last`, separated by white space.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ports = text.split_whitespace().map(str::parse);
    Some(ports.next()?.ok()?..=ports.next()?.ok()?)
}

/// Connects to a backend from one of this member's own addresses, if it is to.
///
/// # Errors
/// What this member lacks, or what connect(2) says; `TimedOut` after `limit`. `lacks` hears of what it lacked before.
pub(crate) async fn dial(
    address: SocketAddr,
    limit: Duration,
    sources: &Sources,
    lacks: impl Fn(&Shortage),
) -> Result<Leg, ConnectError> {
    let leg = sources.connect(address, |_| Ok(()), |socket| Leg::connect(socket, address), lacks)?;
    timeout(limit, leg.connected()).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if may_meet_itself(address) && leg.local_addr()? == address {
        // Fails only where there is nothing left to reset.
        let _ = leg.set_zero_linger();
        return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
    }
    Ok(leg)
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

/// Whether a socket that connects there may connect to itself: where nobody listens on a local port of the ephemeral
/// range, the kernel may pick that very port as the source (simultaneous open, RFC 9293 §3.5).
pub(crate) fn may_meet_itself(address: SocketAddr) -> bool {
    EPHEMERAL.contains(&address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_two_numbers() {
        assert_eq!(range("32768\t60999\n"), Some(32768..=60999));
        for broken in ["", "32768", "x 5", "1 70000"] {
            assert_eq!(range(broken), None, "{broken:?}");
        }
    }
}
