//! Which interface each virtual IP belongs on, and what prevents that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tracing::error;
use trestle_engine::ownership::{self, OwnershipEvent};
use trestle_model::{MemberName, VipSpec};

use super::super::fit;
use super::super::shared::PlacementProblem;
use super::Driver;
use crate::events::Event;

/// What is known of the virtual IPs' interfaces.
#[derive(Default)]
struct Placements {
    interfaces: BTreeMap<IpAddr, String>,
    misplaced: BTreeMap<IpAddr, PlacementProblem>,
    own: BTreeMap<IpAddr, &'static str>,
}

impl Driver {
    /// Updates what the machine knows of the configuration: which virtual IPs this member may hold, on which interface, and what
    /// prevents it.
    pub(super) fn reconcile(&mut self) {
        if self.me.is_none() {
            return;
        }
        self.open_kernel();
        let places = self.places();
        let id = |name: &MemberName| self.state.member_named(name).map(|member| member.id);
        let mut vips = BTreeMap::new();
        for vip in self.state.vips.values() {
            let address = vip.spec.address.ip;
            // The machine also has those that cannot be served here, and hands them over like all others.
            let place = places.interfaces.get(&address).map(String::as_str).unwrap_or_default();
            let wanted = ownership::ServedVip {
                prefix_len: vip.spec.address.prefix_len,
                interface: place.into(),
                on_quorum_loss: vip.spec.on_quorum_loss,
                preferred: vip.spec.preferred.iter().filter_map(id).collect(),
                preference_delay: vip.spec.preference_delay,
            };
            vips.insert(address, Arc::new(wanted));
        }
        self.show(places);
        self.feed(OwnershipEvent::Vips(vips));
    }

    fn places(&self) -> Placements {
        let mut places = Placements::default();
        if self.state.vips.is_empty() {
            return places;
        }
        // A question that the kernel does not answer says nothing.
        let host = self.host.lasting_addresses();
        for vip in self.state.vips.values() {
            let address = vip.spec.address.ip;
            // A virtual IP that is held here is not an address of the host, even when somebody makes it permanent.
            let host = if self.leases.contains_key(&address) { &BTreeSet::new() } else { &host };
            if let Some(what) = self.identity.own.what(address, host) {
                places.own.insert(address, what);
                places.misplaced.insert(address, taken(address, what));
            } else if let Some(what) = fit::recorded(&self.state, address) {
                places.misplaced.insert(address, taken(address, &what));
            } else {
                match self.interface_of(&vip.spec) {
                    Some(Ok(name)) => drop(places.interfaces.insert(address, name)),
                    Some(Err(problem)) => {
                        let fault = format!("no interface here suits {address}");
                        places.misplaced.insert(address, PlacementProblem { problem, fault });
                    }
                    None => {}
                }
            }
        }
        places
    }

    fn show(&self, places: Placements) {
        let mut status = self.shared.status();
        let before = std::mem::replace(&mut status.misplaced, places.misplaced.clone());
        status.interfaces = places.interfaces;
        status.placed = self.state.revision;
        let own_before = std::mem::replace(&mut status.own, places.own.clone());
        drop(status);
        for (address, what) in places.own.into_iter().filter(|(address, _)| !own_before.contains_key(address))
        {
            error!(vip = %address, "a virtual IP is {what}; it is not served here, and two hosts may answer for it");
        }
        let news = |address: &IpAddr, found: &PlacementProblem| {
            before.get(address).is_none_or(|known| known.problem != found.problem)
        };
        for (address, found) in places.misplaced.iter().filter(|(address, found)| news(address, found)) {
            self.journal.emit(&Event::Unserved { vip: *address, why: found.problem.clone() });
        }
    }

    /// The interface of a virtual IP here, or why it has none; `None` without the kernel.
    fn interface_of(&self, vip: &VipSpec) -> Option<Result<String, String>> {
        let kernel = self.kernel()?;
        if let Some(name) = vip.interface_on(&self.identity.name) {
            return Some(Ok(name.to_string()));
        }
        Some(match kernel.interface_for(vip.address.ip) {
            Ok(Some(name)) => Ok(name),
            Ok(None) => Err(format!(
                "no interface here has an address in the network of {}; name one with --interface",
                vip.address
            )),
            Err(error) => Err(error.to_string()),
        })
    }
}

/// No member serves a virtual IP that is some member's own address, because that would cut the two off from one another.
fn taken(address: IpAddr, what: &str) -> PlacementProblem {
    PlacementProblem {
        problem: format!("it is {what}; delete it, or give that member or host another address"),
        fault: format!("virtual IP {address} is {what}"),
    }
}
