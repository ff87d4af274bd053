//! Where no connection of the data plane goes: to this cluster's listeners, since it would come in again, be led on again, and
//! so on, until no descriptor is left; to its members' own ports, which believe who reaches them over loopback; and to what
//! this member's file leaves out.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use trestle_model::{Bind, Cidr, ClusterState};

use crate::bind::BindError;
use crate::interfaces;
use crate::table::Listener;

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
    fn covers(&self, ip: IpAddr, guard: &Guard) -> bool {
        let (all, elsewhere) = match ip {
            IpAddr::V4(_) => (self.all_v4, self.elsewhere_v4),
            IpAddr::V6(_) => (self.all_v6, self.elsewhere_v6),
        };
        self.ips.contains(&ip)
            || all && (ip.is_loopback() || guard.local.contains(&ip))
            || elsewhere && guard.others.contains(&ip)
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
pub(crate) struct Guard {
    ports: HashMap<u16, Port>,
    /// Ports of members themselves.
    own_ports: HashMap<u16, Port>,
    networks: Vec<Cidr>,
    /// This machine's addresses, if they matter.
    local: HashSet<IpAddr>,
    /// Where the other members and the virtual IPs are. Once for all ports: wildcards may have thousands.
    others: HashSet<IpAddr>,
}

impl Guard {
    /// Works it out from what the members agree on and what this one has bound; `own` is the address that stands here
    /// for a wildcard.
    pub(crate) fn new<'a>(
        state: &ClusterState,
        listeners: impl IntoIterator<Item = &'a Listener>,
        own: Option<IpAddr>,
        targets: &OwnTargets,
    ) -> Self {
        let vips: HashSet<IpAddr> = state.vips.values().map(|vip| vip.spec.address.ip).collect();
        let others = addresses_of_members(state, own).chain(vips.iter().copied()).collect();
        let mut guard = Self { networks: targets.networks.clone(), others, ..Self::default() };
        for listener in listeners {
            for status in &listener.binds {
                // Another program of this machine has it, and that may be a backend.
                let foreign = status.error.as_ref().is_some_and(BindError::is_in_use);
                if !foreign {
                    guard.add(status.effective, status.error.is_none());
                }
            }
            for bind in &listener.config.spec.binds {
                guard.add_elsewhere(*bind);
                // Whoever holds it listens there, whatever this member's own socket came to.
                if vips.contains(&bind.ip) {
                    bind.sockets().for_each(|address| guard.add(address, true));
                }
            }
        }
        guard.add_own_ports(state, &targets.ports);
        let mut ports = guard.ports.values().chain(guard.own_ports.values());
        if ports.any(|port| port.all_v4 || port.all_v6) {
            guard.local = interfaces::addresses();
        }
        guard
    }

    /// The ports of this member, as they are bound, and of the others, as they are recorded. Where they serve HTTP is not
    /// recorded; it is the port of this member's, unless somebody chose otherwise. Whoever holds a virtual IP may be bound to
    /// a wildcard.
    fn add_own_ports(&mut self, state: &ClusterState, bound: &[SocketAddr]) {
        let told = state.members.values().flat_map(|m| [&m.spec.peer_address, &m.spec.admin_address]);
        let told: Vec<SocketAddr> = told.filter_map(|address| address.as_socket()).collect();
        for address in bound {
            self.own_ports.entry(address.port()).or_default().add(address.ip(), true);
        }
        for address in &told {
            self.own_ports.entry(address.port()).or_default().add(address.ip(), false);
            if let Some(http) = bound.last() {
                self.own_ports.entry(http.port()).or_default().add(address.ip(), false);
            }
        }
        for port in self.own_ports.values_mut() {
            port.ips.extend(state.vips.values().map(|vip| vip.spec.address.ip.to_canonical()));
        }
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
        let meets = |own: &SocketAddr| {
            let same = own.ip() == address.ip() || own.ip().is_unspecified() || address.ip().is_unspecified();
            own.port() == address.port() && same
        };
        self.ports.iter().any(meets)
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

/// Where members say that they are reached, as far as they say it in numbers. Of a family in which a wildcard stands for
/// one address here, none: so it does on the others, and which one that is they alone know.
fn addresses_of_members(state: &ClusterState, own: Option<IpAddr>) -> impl Iterator<Item = IpAddr> {
    let told = state.members.values().flat_map(|m| [&m.spec.peer_address, &m.spec.admin_address]);
    told.filter_map(|address| Some(address.as_socket()?.ip().to_canonical()))
        // A loopback address is another machine's own, or on the same machine as this member.
        .filter(move |ip| !ip.is_loopback() && own.is_none_or(|own| own.is_ipv4() != ip.is_ipv4()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use trestle_model::{
        HostPort, ListenerName, ListenerSpec, Member, MemberId, MemberName, MemberSpec, PoolName, Vip,
        VipAddress, VipSpec,
    };

    use super::*;
    use crate::table::BindStatus;

    /// A listener that is bound, or is not for this reason.
    fn listener(bind: &str, own: Option<IpAddr>, error: Option<BindError>) -> Listener {
        let bind = Bind::parse(bind).unwrap();
        let binds = crate::bind::effective(bind, own)
            .map(|effective| BindStatus { configured: bind, effective, error: error.clone() })
            .collect();
        let config = trestle_model::Listener {
            name: ListenerName::parse("l").unwrap(),
            spec: ListenerSpec::new(vec![bind], PoolName::parse("p").unwrap()),
            revision: 1,
        };
        Listener { config: Arc::new(config), binds, counters: Arc::default(), gate: Arc::default() }
    }

    fn state(members: &[&str]) -> ClusterState {
        let mut state = ClusterState::default();
        for (number, address) in members.iter().enumerate() {
            let address = HostPort::parse(address).unwrap();
            let name = MemberName::parse(&format!("m{number}")).unwrap();
            let spec = MemberSpec { name, peer_address: address.clone(), admin_address: address };
            let id = MemberId(number as u64);
            state.members.insert(id, Arc::new(Member { id, spec, draining: false, revision: 1 }));
        }
        state
    }

    fn covers(guard: &Guard, address: &str) -> bool {
        guard.bars(address.parse().unwrap()).is_some()
    }

    #[test]
    fn wildcards_are_here_and_where_the_members_are() {
        let state = state(&["203.0.113.1:7481", "[2001:db8::1]:7481", "127.0.0.1:7481", "m.example:7481"]);
        let guard =
            Guard::new(&state, &[listener("0.0.0.0:80-81", None, None)], None, &OwnTargets::default());
        for address in ["127.0.0.1:80", "127.9.9.9:81", "203.0.113.1:80", "[::ffff:203.0.113.1]:81"] {
            assert!(covers(&guard, address), "{address}");
        }
        for address in ["127.0.0.1:82", "203.0.113.1:7483", "203.0.113.2:80", "[2001:db8::1]:80", "[::1]:80"]
        {
            assert!(!covers(&guard, address), "{address}");
        }
        let guard = Guard::new(&state, &[listener("[::]:80", None, None)], None, &OwnTargets::default());
        assert!(covers(&guard, "[2001:db8::1]:80") && covers(&guard, "[::1]:80"));
        assert!(!covers(&guard, "203.0.113.1:80") && !covers(&guard, "127.0.0.1:80"));
    }

    fn with_vips(mut state: ClusterState, vips: &[&str]) -> ClusterState {
        for address in vips {
            let address = VipAddress::parse(address).unwrap();
            let (name, spec) = (address.default_name().unwrap(), VipSpec::new(address));
            state.vips.insert(name.clone(), Arc::new(Vip { name, spec, revision: 1 }));
        }
        state
    }

    #[test]
    fn virtual_ips_are_the_clusters_own() {
        let state = with_vips(state(&[]), &["203.0.113.50/24", "2001:db8::50/64"]);
        let (v4, v6) = ("203.0.113.50:80", "[2001:db8::50]:80");
        let guard =
            |bind, own, error| Guard::new(&state, &[listener(bind, own, error)], own, &OwnTargets::default());
        let any = guard("*:80-81", None, None);
        assert!(
            covers(&any, v4) && covers(&any, "203.0.113.50:81") && covers(&any, "[::ffff:203.0.113.50]:80")
        );
        assert!(!covers(&any, "203.0.113.50:82") && !covers(&any, v6) && !covers(&any, "203.0.113.51:80"));
        let six = guard("[::]:80", None, None);
        assert!(covers(&six, v6) && !covers(&six, v4));
        let one = guard(v4, None, None);
        assert!(covers(&one, v4) && !covers(&one, "203.0.113.50:81") && !covers(&one, v6));
        // Another program has the port on this member, or the wildcard is one address here; the holder may be another.
        let in_use = || Some(BindError::InUse);
        assert!(covers(&guard(v4, None, in_use()), v4) && covers(&guard("*:80", None, in_use()), v4));
        assert!(covers(&guard("*:80", Some("203.0.113.9".parse().unwrap()), None), v4));
        assert!(!covers(&guard("203.0.113.9:80", None, None), v4));
    }

    #[test]
    fn a_port_of_a_range_costs_the_same_however_many_members_there_are() {
        let addresses: Vec<String> = (1..=15).map(|member| format!("203.0.113.{member}:7481")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let state = with_vips(state(&addresses), &["203.0.113.50/24"]);
        let guard =
            Guard::new(&state, &[listener("*:30000-32767", None, None)], None, &OwnTargets::default());
        assert_eq!(guard.ports.len(), 2768);
        assert!(guard.ports.values().all(|port| port.ips.is_empty()));
        assert!(covers(&guard, "203.0.113.15:32767") && covers(&guard, "203.0.113.50:30000"));
        assert!(!covers(&guard, "203.0.113.15:32768"));
    }

    #[test]
    fn with_a_data_address_a_wildcard_is_that_alone() {
        let own = Some("203.0.113.9".parse().unwrap());
        let guard = Guard::new(
            &state(&["203.0.113.1:7481"]),
            &[listener("*:80", own, None)],
            own,
            &OwnTargets::default(),
        );
        assert!(covers(&guard, "203.0.113.9:80"));
        assert!(!covers(&guard, "203.0.113.1:80") && !covers(&guard, "127.0.0.1:80"));
    }

    #[test]
    fn what_others_bind_counts_and_what_another_program_has_does_not() {
        let guard = |error| {
            Guard::new(
                &state(&[]),
                &[listener("203.0.113.1:80", None, Some(error))],
                None,
                &OwnTargets::default(),
            )
        };
        assert!(covers(&guard(BindError::NotHere), "203.0.113.1:80"));
        assert!(!covers(&guard(BindError::InUse), "203.0.113.1:80"));
        let refused = BindError::Refused("Permission denied (os error 13)".into());
        assert!(covers(&guard(refused), "203.0.113.1:80"));
    }

    fn targets(ports: &[&str], networks: &[&str]) -> OwnTargets {
        OwnTargets {
            ports: ports.iter().map(|port| port.parse().unwrap()).collect(),
            networks: networks.iter().map(|network| Cidr::parse(network).unwrap()).collect(),
        }
    }

    #[test]
    fn no_connection_and_no_check_goes_to_a_members_own_port() {
        let state = with_vips(
            state(&["203.0.113.1:7481", "203.0.113.2:8481", "127.0.0.2:7481"]),
            &["203.0.113.50/24"],
        );
        let own = targets(&["127.0.0.1:7480", "203.0.113.1:7481", "0.0.0.0:7482"], &[]);
        let guard = Guard::new(&state, &[], None, &own);
        for address in [
            "127.0.0.1:7480",
            "[::ffff:127.0.0.1]:7480",
            "0.0.0.0:7480",
            "203.0.113.1:7481",
            "203.0.113.2:8481",
            "203.0.113.2:7482",
            "127.0.0.2:7481",
            "127.9.9.9:7482",
            "203.0.113.50:7480",
            "203.0.113.50:7482",
        ] {
            let address = address.parse().unwrap();
            assert_eq!(guard.bars(address), Some(Barred::OwnPort), "{address}");
            assert_eq!(guard.bars_check(address), Some(Barred::OwnPort), "{address}");
        }
        for address in
            ["127.0.0.1:7483", "127.0.0.2:7480", "203.0.113.3:7481", "203.0.113.50:80", "[::1]:7482"]
        {
            assert!(!covers(&guard, address), "{address}");
        }
    }

    #[test]
    fn networks_of_backends_can_be_narrowed() {
        let own = targets(&[], &["10.0.0.0/8", "2001:db8::/32"]);
        let guard = Guard::new(&state(&[]), &[], None, &own);
        for address in ["10.1.2.3:80", "[2001:db8::1]:80", "[::ffff:10.0.0.1]:80"] {
            assert!(!covers(&guard, address), "{address}");
        }
        for address in ["169.254.169.254:80", "127.0.0.1:80", "[fe80::1]:80"] {
            assert_eq!(guard.bars(address.parse().unwrap()), Some(Barred::Network), "{address}");
        }
    }
}
