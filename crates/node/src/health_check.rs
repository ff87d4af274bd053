//! `trestled healthcheck`: a running member's readiness as an exit code, for engines whose images have no other program to ask by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::config::Config;
use crate::plain_http::get;

/// A member that is well answers in a moment; it waits for half a second itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the member is asked that listens there: on all addresses, this machine's own one.
fn own_address(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

/// Asks the member with this configuration whether it is ready; answers what it says.
///
/// # Errors
/// Why it is not ready, or that it does not answer.
pub async fn check_health(config: &Config) -> Result<String, String> {
    let address = own_address(config.http_address);
    match tokio::time::timeout(PATIENCE, get(address, "/readyz")).await {
        Ok(Ok((200, said))) => Ok(said.trim_end().to_owned()),
        Ok(Ok((_, said))) => Err(format!("not ready: {}", said.trim_end().replace('\n', "; "))),
        Ok(Err(error)) => Err(format!("http_address {address}: {error}; is trestled running there?")),
        Err(_) => Err(format!("http_address {address}: no answer within {} s", PATIENCE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_member_on_all_addresses_is_asked_at_the_loopback_address() {
        for (listening, asked) in [
            ("0.0.0.0:7482", "127.0.0.1:7482"),
            ("[::]:7482", "[::1]:7482"),
            ("10.0.0.1:7482", "10.0.0.1:7482"),
        ] {
            assert_eq!(own_address(listening.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
