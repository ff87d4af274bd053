//! Addresses of members that virtual IPs have.

use std::net::IpAddr;
use std::time::Duration;

use trestle_consensus::Consensus;
use trestle_model::HostPort;

/// How long a name server may take; a name that it does not know in time is compared no further.
const LOOKUP_MAX: Duration = Duration::from_secs(1);

/// The addresses that an address of a member stands for.
pub(crate) async fn addresses(of: &HostPort) -> Vec<IpAddr> {
    if let Some(socket) = of.as_socket() {
        return vec![socket.ip()];
    }
    let found = tokio::time::timeout(LOOKUP_MAX, tokio::net::lookup_host(of.as_str())).await;
    found.ok().and_then(Result::ok).map(|found| found.map(|socket| socket.ip()).collect()).unwrap_or_default()
}

/// Why this cannot be an address of a member: a virtual IP has it.
pub(crate) async fn vip_at(consensus: &Consensus, of: &HostPort) -> Option<String> {
    let found = addresses(of).await;
    let state = consensus.view().borrow().state.clone();
    let vip = state.vips.values().find(|vip| found.contains(&vip.spec.address.ip))?;
    Some(format!("{of} is the address of vip \"{}\", so it cannot be a member's own", vip.name))
}
