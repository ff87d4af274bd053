//! Whether an address can be a virtual IP, by what this member knows of its own addresses and interfaces and of other members.

use std::collections::BTreeSet;
use std::net::IpAddr;

use trestle_api::peer;
use trestle_model::{ClusterState, VipAddress};
use trestle_vip::Fit;

use crate::config::Config;

/// Most interfaces that a refusal names.
const NAMED_MAX: usize = 16;

/// The addresses that the configuration gives this member, with what they are.
pub(super) struct OwnAddresses(Vec<(&'static str, IpAddr)>);

impl OwnAddresses {
    /// None, for a simulation.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    pub(super) fn of(config: &Config) -> Self {
        let told = |address: &trestle_model::HostPort| address.as_socket().map(|socket| socket.ip());
        let all = [
            ("its admin address", Some(config.admin_address.ip())),
            ("its peer address", Some(config.peer_address.ip())),
            ("its HTTP address", Some(config.http_address.ip())),
            ("its data address", config.data_address),
            ("its admin address", told(&config.advertise_admin_address)),
            ("its peer address", told(&config.advertise_peer_address)),
        ];
        Self(all.into_iter().filter_map(|(what, address)| Some((what, address?))).collect())
    }

    /// What an address is for this member, or for its machine when it is one of `host`.
    pub(super) fn what(&self, address: IpAddr, host: &BTreeSet<IpAddr>) -> Option<&'static str> {
        let own = self.0.iter().find(|(_, own)| *own == address).map(|(what, _)| *what);
        own.or_else(|| host.contains(&address).then_some("an address of its host"))
    }
}

/// Says which member's recorded address this is, if it is one. Names are not looked up here.
pub(super) fn recorded(state: &ClusterState, address: IpAddr) -> Option<String> {
    state.members.values().find_map(|member| {
        let spec = &member.spec;
        let all = [("peer", &spec.peer_address), ("admin", &spec.admin_address)];
        let is_it = |at: &trestle_model::HostPort| at.as_socket().is_some_and(|at| at.ip() == address);
        let (what, _) = all.into_iter().find(|(_, at)| is_it(at))?;
        Some(format!("the {what} address of member \"{}\"", spec.name))
    })
}

/// The interfaces that could hold a virtual IP, in words.
fn listed(there: &[String]) -> String {
    let named = there.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    if named.is_empty() { "none that would do".to_owned() } else { named }
}

/// Whether a member of this configuration could hold a virtual IP on this machine.
pub(crate) fn fit(config: &Config, candidate: &peer::VipCandidate) -> peer::VipFit {
    let Ok(address) = VipAddress::parse(&candidate.address) else { return peer::VipFit::default() };
    let own = |what: &str| peer::VipFit { own: what.to_owned(), problem: String::new() };
    let unable = |problem| peer::VipFit { own: String::new(), problem };
    if let Some(what) = OwnAddresses::of(config).what(address.ip, &BTreeSet::new()) {
        return own(what);
    }
    let here = candidate.interface_overrides.get(config.name.as_str());
    let named = here.unwrap_or(&candidate.interface);
    match trestle_vip::fit(address.ip, Some(named.as_str()).filter(|name| !name.is_empty())) {
        Ok(Fit::Own) => own("an address of its host"),
        Ok(Fit::NoNetwork) => unable(format!(
            "no interface has an address in the network of {address}; name the interface (--interface) if it is to be on \
             one all the same"
        )),
        Ok(Fit::NoInterface { there }) => {
            unable(format!("there is no interface {named}, but {}", listed(&there)))
        }
        Ok(Fit::NotEthernet { there }) => unable(format!(
            "the interface {named} has no Ethernet address, so a virtual IP on it cannot be announced; there is {}",
            listed(&there)
        )),
        // A question that the kernel does not answer says nothing.
        Ok(Fit::Fits) | Err(_) => peer::VipFit::default(),
    }
}
