//! Where no connection of the data plane goes: to this cluster's listeners, since it would come in again, be led on again, and
//! so on, until no descriptor is left; to its members' own ports, which believe who reaches them over loopback; and to what
//! this member's file leaves out.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use trestle_model::{Bind, Cidr, ClusterState, Member, MemberName, stands_in_the_way};

use crate::accept::bind::BindError;
use crate::accept::listener::Listener;
use crate::machine::interfaces;

/// Who listens on one port.
#[derive(Debug, Default)]
struct Port {
    ips: HashSet<IpAddr>,
    /// Whether this member does at all addresses of this machine, of either family.
    all_v4: bool,
    all_v6: bool,
    /// Whether wildcards of the cluster are here, of either family: the others listen at each of their own addresses.
    elsewhere_v4: bool,
    elsewhere_v6: bool,
}

impl Port {
    fn covers(&self, ip: IpAddr, loop_guard: &LoopGuard) -> bool {
        let (all, elsewhere) = match ip {
            IpAddr::V4(_) => (self.all_v4, self.elsewhere_v4),
            IpAddr::V6(_) => (self.all_v6, self.elsewhere_v6),
        };
        self.ips.contains(&ip)
            || all && (ip.is_loopback() || loop_guard.local.contains(&ip))
            || elsewhere && loop_guard.others.contains(&ip)
    }

    fn add(&mut self, ip: IpAddr, bound: bool) {
        match (ip.to_canonical(), bound) {
            (ip, true) if ip.is_unspecified() => {
                self.all_v4 |= ip.is_ipv4();
                self.all_v6 |= ip.is_ipv6();
            }
            (ip, false) if ip.is_unspecified() => {}
            (ip, _) => {
                self.ips.insert(ip);
            }
        }
    }
}

/// What this member's own configuration says about where connections go.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnTargets {
    /// Where admin API, peers and HTTP are bound.
    pub(crate) ports: Vec<SocketAddr>,
    /// Networks that backends may be in; empty for all.
    pub(crate) networks: Vec<Cidr>,
    /// This member's name, if it is one.
    pub(crate) member: Option<MemberName>,
    /// As [`MemberSockets::network`](trestle_model::MemberSockets) of this member.
    pub(crate) network: u64,
}

/// Why no connection goes to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Barred {
    /// A listener of the cluster is there.
    Listener,
    /// A member's own port is there.
    OwnPort,
    /// It is in none of the networks that this member's file names.
    Network,
}

/// The addresses of all listeners, as far as this member knows them: its own, and those of others where the
/// configuration names an address, or where a wildcard meets the address by which the others are known.
///
/// What is missed, another member's address that nobody has told of, ends there: a connection goes on from member to
/// member only until one of them would have to connect to itself.
#[derive(Debug, Default)]
pub(crate) struct LoopGuard {
    ports: HashMap<u16, Port>,
    /// Ports of members themselves.
    own_ports: HashMap<u16, Port>,
    networks: Vec<Cidr>,
    /// This machine's addresses, if they matter.
    local: HashSet<IpAddr>,
    /// Where the other members and the virtual IPs are. Once for all ports: wildcards may have thousands.
    others: HashSet<IpAddr>,
}

impl LoopGuard {
    /// Works it out from what the members agree on and what this one has bound; `own` is the address that stands here
    /// for a wildcard.
    pub(crate) fn new<'a>(
        state: &ClusterState,
        listeners: impl IntoIterator<Item = &'a Listener>,
        own: Option<IpAddr>,
        targets: &OwnTargets,
    ) -> Self {
        let vips: HashSet<IpAddr> = state.vips.values().map(|vip| vip.spec.address.ip).collect();
        let others =
            addresses_of_listeners(state, own, targets.network).chain(vips.iter().copied()).collect();
        let mut loop_guard = Self { networks: targets.networks.clone(), others, ..Self::default() };
        for listener in listeners {
            for status in &listener.binds {
                // Another program of this machine has it, and that may be a backend.
                let foreign = status.error.as_ref().is_some_and(BindError::is_in_use);
                if !foreign {
                    loop_guard.add(status.effective, status.error.is_none());
                }
            }
            for bind in &listener.config.binds {
                loop_guard.add_elsewhere(*bind);
                // Whoever holds it listens there, whatever this member's own socket came to.
                if vips.contains(&bind.ip) {
                    bind.sockets().for_each(|address| loop_guard.add(address, true));
                }
            }
        }
        loop_guard.add_own_ports(state, targets);
        let mut ports = loop_guard.ports.values().chain(loop_guard.own_ports.values());
        if ports.any(|port| port.all_v4 || port.all_v6) {
            loop_guard.local = interfaces::addresses();
        }
        loop_guard
    }

    /// The ports of this member, as they are bound, and of the others, as they are recorded: their wildcards are where they say
    /// that they are reached, and everywhere on this machine if they are on it. Whoever holds a virtual IP may be bound to a
    /// wildcard. Of a member that did not say where it serves HTTP, it is the port of this member's.
    fn add_own_ports(&mut self, state: &ClusterState, targets: &OwnTargets) {
        for address in &targets.ports {
            self.add_own_port(*address, true);
        }
        for (id, member) in &state.members {
            let told: Vec<_> = told(member).collect();
            told.iter().for_each(|address| self.add_own_port(*address, false));
            let Some(sockets) = state.sockets.get(id) else {
                let http = targets.ports.last().map(SocketAddr::port);
                let assumed = told.iter().zip(http.into_iter().cycle());
                assumed.for_each(|(at, http)| self.add_own_port(SocketAddr::new(at.ip(), http), false));
                continue;
            };
            let here = targets.network != 0 && targets.network == sockets.network;
            for (_, socket) in sockets.ports() {
                if here {
                    // This member's own are known from itself: it may have other ports than when the record was made.
                    let own = targets.member.as_ref() == Some(&member.spec.name);
                    if !own {
                        self.add_own_port(socket, true);
                    }
                } else if !socket.ip().to_canonical().is_loopback() {
                    self.add_own_port(socket, false);
                }
                if socket.ip().is_unspecified() {
                    let reached = told.iter().map(|at| SocketAddr::new(at.ip(), socket.port()));
                    reached.for_each(|address| self.add_own_port(address, false));
                }
            }
        }
        for port in self.own_ports.values_mut() {
            port.ips.extend(state.vips.values().map(|vip| vip.spec.address.ip.to_canonical()));
        }
    }

    fn add_own_port(&mut self, address: SocketAddr, bound: bool) {
        let port = self.own_ports.entry(address.port()).or_default();
        port.add(address.ip(), bound);
        // A member's own sockets take IPv4 at the wildcard of IPv6 as well.
        port.all_v4 |= port.all_v6;
    }

    /// An address of this member's, which is `bound` or would be.
    fn add(&mut self, address: SocketAddr, bound: bool) {
        if bound || !address.ip().is_unspecified() {
            self.ports.entry(address.port()).or_default().add(address.ip(), bound);
        }
    }

    /// A wildcard where the other members and the virtual IPs are. Members may differ in whether the wildcard stands for
    /// one address of theirs, so a virtual IP counts in any case: it is at the same place for all of them.
    fn add_elsewhere(&mut self, bind: Bind) {
        if !bind.ip.is_unspecified() {
            return;
        }
        for socket in bind.sockets() {
            let port = self.ports.entry(socket.port()).or_default();
            port.elsewhere_v4 |= bind.ip.is_ipv4();
            port.elsewhere_v6 |= bind.ip.is_ipv6();
        }
    }

    /// Why no connection goes to this address, if none does.
    pub(crate) fn bars(&self, address: SocketAddr) -> Option<Barred> {
        let listeners = self.ports.get(&address.port());
        if listeners.is_some_and(|port| port.covers(dialled(address), self)) {
            return Some(Barred::Listener);
        }
        self.bars_check(address)
    }

    /// Why no check goes to this address, if none does. One that goes to a listener is answered by that.
    pub(crate) fn bars_check(&self, address: SocketAddr) -> Option<Barred> {
        if self.is_own_port(address) {
            return Some(Barred::OwnPort);
        }
        let within = self.networks.is_empty()
            || self.networks.iter().any(|network| network.contains(address.ip().to_canonical()));
        (!within).then_some(Barred::Network)
    }

    /// Whether a member's own port is there.
    pub(crate) fn is_own_port(&self, address: SocketAddr) -> bool {
        let port = self.own_ports.get(&address.port());
        port.is_some_and(|port| port.covers(dialled(address), self))
    }
}

impl OwnTargets {
    /// Whether one of this member's own ports keeps a listener from an address.
    pub(crate) fn takes(&self, address: SocketAddr) -> bool {
        self.ports.iter().any(|own| meets(*own, address))
    }

    /// The own ports of all members that are on this machine, as far as they are recorded.
    pub(crate) fn of_this_machine(&self, state: &ClusterState) -> Vec<SocketAddr> {
        let here = state.sockets.values().filter(|s| self.network != 0 && s.network == self.network);
        here.flat_map(|sockets| sockets.ports()).map(|(_, own)| own).collect()
    }
}

impl Barred {
    /// As the reason of a check.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Barred::Listener => "loop: the address belongs to a listener of this cluster",
            Barred::OwnPort => "loop: the address is a port of a member of this cluster itself",
            Barred::Network => "the address is in none of this member's backend_networks",
        }
    }
}

/// Where a connection comes out: the wildcard as a target is this machine's loopback address.
fn dialled(address: SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// Whether a member's own socket keeps a listener from an address.
pub(crate) fn meets(own: SocketAddr, address: SocketAddr) -> bool {
    Bind::ranges([address]).into_iter().any(|address| stands_in_the_way(own, address))
}

/// Where a member says that it is reached, as far as it says it in numbers.
fn told(member: &Member) -> impl Iterator<Item = SocketAddr> {
    [&member.spec.peer_address, &member.spec.admin_address].into_iter().filter_map(|at| at.as_socket())
}

/// Where wildcards of listeners are on the members: at their data addresses, and of a family without one where they say that
/// they are reached. Of a member that did not say whether it has one, none in the family in which this one has: so it has, and
/// which one that is it alone knows.
fn addresses_of_listeners(
    state: &ClusterState,
    own: Option<IpAddr>,
    network: u64,
) -> impl Iterator<Item = IpAddr> {
    state.members.iter().flat_map(move |(id, member)| {
        let sockets = state.sockets.get(id);
        let data_address = sockets.map_or(own, |sockets| sockets.data_address);
        let reached = told(member).map(|address| address.ip().to_canonical());
        // A loopback address is another machine's own, or on the same machine as this member.
        let reached = reached.filter(move |ip| {
            !ip.is_loopback() && data_address.is_none_or(|at| at.is_ipv4() != ip.is_ipv4())
        });
        let here = sockets.is_some_and(|sockets| network != 0 && sockets.network == network);
        let at = sockets.and_then(|sockets| sockets.data_address).filter(|at| here || !at.is_loopback());
        at.into_iter().chain(reached)
    })
}

#[cfg(test)]
mod tests;
