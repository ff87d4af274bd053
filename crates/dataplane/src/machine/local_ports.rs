//! The local ports that the kernel gives to connections.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

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
