//! Where this cluster listens, so that no connection is led back into it: it would come in again, be led on again, and so
//! on, until no descriptor is left.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use trestle_model::{Bind, ClusterState};

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
}

/// The addresses of all listeners, as far as this member knows them: its own, and those of others where the
/// configuration names an address, or where a wildcard meets the address by which the others are known.
///
/// What is missed, another member's address that nobody has told of, ends there: a connection goes on from member to
/// member only until one of them would have to connect to itself.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    ports: HashMap<u16, Port>,
    /// This machine's addresses, if they matter.
    local: HashSet<IpAddr>,
}

impl Guard {
    /// Works it out from what the members agree on and what this one has bound; `own` is the address that stands here
    /// for a wildcard.
    pub(crate) fn new<'a>(
        state: &ClusterState,
        listeners: impl IntoIterator<Item = &'a Listener>,
        own: Option<IpAddr>,
    ) -> Self {
        let mut guard = Self::default();
        let vips: HashSet<IpAddr> = state.vips.values().map(|vip| vip.spec.address.ip).collect();
        let others: Vec<IpAddr> = addresses_of_members(state, own).chain(vips.iter().copied()).collect();
        for listener in listeners {
            for status in &listener.binds {
                // Another program of this machine has it, and that may be a backend.
                let foreign = matches!(status.error.as_deref(), Some(BindError::InUse(_)));
                if !foreign {
                    guard.add(status.effective, status.error.is_none());
                }
            }
            for bind in &listener.config.spec.binds {
                guard.add_elsewhere(*bind, &others);
                // Whoever holds it listens there, whatever this member's own socket came to.
                if vips.contains(&bind.ip) {
                    bind.sockets().for_each(|address| guard.add(address, true));
                }
            }
        }
        if guard.ports.values().any(|port| port.all_v4 || port.all_v6) {
            guard.local = interfaces::addresses();
        }
        guard
    }

    /// An address of this member's, which is `bound` or would be.
    fn add(&mut self, address: SocketAddr, bound: bool) {
        match (address.ip().to_canonical(), bound) {
            (ip, true) if ip.is_unspecified() => {
                let port = self.ports.entry(address.port()).or_default();
                port.all_v4 |= ip.is_ipv4();
                port.all_v6 |= ip.is_ipv6();
            }
            (ip, false) if ip.is_unspecified() => {}
            (ip, _) => {
                self.ports.entry(address.port()).or_default().ips.insert(ip);
            }
        }
    }

    /// A wildcard where the other members and the virtual IPs are. Members may differ in whether the wildcard stands for
    /// one address of theirs, so a virtual IP counts in any case: it is at the same place for all of them.
    fn add_elsewhere(&mut self, bind: Bind, others: &[IpAddr]) {
        if !bind.ip.is_unspecified() {
            return;
        }
        for port in bind.sockets().map(|socket| socket.port()) {
            let same = others.iter().filter(|ip| ip.is_ipv4() == bind.ip.is_ipv4());
            self.ports.entry(port).or_default().ips.extend(same);
        }
    }

    /// Whether a connection to this address would come in at a listener of the cluster.
    pub(crate) fn covers(&self, address: SocketAddr) -> bool {
        let Some(port) = self.ports.get(&address.port()) else { return false };
        let ip = address.ip().to_canonical();
        let all = if ip.is_ipv4() { port.all_v4 } else { port.all_v6 };
        port.ips.contains(&ip) || all && (ip.is_loopback() || self.local.contains(&ip))
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

    use std::io;
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
        let error = error.map(Arc::new);
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
        guard.covers(address.parse().unwrap())
    }

    #[test]
    fn wildcards_are_here_and_where_the_members_are() {
        let state = state(&["203.0.113.1:7481", "[2001:db8::1]:7481", "127.0.0.1:7481", "m.example:7481"]);
        let guard = Guard::new(&state, &[listener("0.0.0.0:80-81", None, None)], None);
        for address in ["127.0.0.1:80", "127.9.9.9:81", "203.0.113.1:80", "[::ffff:203.0.113.1]:81"] {
            assert!(covers(&guard, address), "{address}");
        }
        for address in ["127.0.0.1:82", "203.0.113.1:7481", "203.0.113.2:80", "[2001:db8::1]:80", "[::1]:80"]
        {
            assert!(!covers(&guard, address), "{address}");
        }
        let guard = Guard::new(&state, &[listener("[::]:80", None, None)], None);
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
        let guard = |bind, own, error| Guard::new(&state, &[listener(bind, own, error)], own);
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
        let in_use = || Some(BindError::InUse(v4.parse().unwrap()));
        assert!(covers(&guard(v4, None, in_use()), v4) && covers(&guard("*:80", None, in_use()), v4));
        assert!(covers(&guard("*:80", Some("203.0.113.9".parse().unwrap()), None), v4));
        assert!(!covers(&guard("203.0.113.9:80", None, None), v4));
    }

    #[test]
    fn with_a_data_address_a_wildcard_is_that_alone() {
        let own = Some("203.0.113.9".parse().unwrap());
        let guard = Guard::new(&state(&["203.0.113.1:7481"]), &[listener("*:80", own, None)], own);
        assert!(covers(&guard, "203.0.113.9:80"));
        assert!(!covers(&guard, "203.0.113.1:80") && !covers(&guard, "127.0.0.1:80"));
    }

    #[test]
    fn what_others_bind_counts_and_what_another_program_has_does_not() {
        let address: SocketAddr = "203.0.113.1:80".parse().unwrap();
        let guard = |error| Guard::new(&state(&[]), &[listener("203.0.113.1:80", None, Some(error))], None);
        assert!(covers(&guard(BindError::NotHere(address)), "203.0.113.1:80"));
        assert!(!covers(&guard(BindError::InUse(address)), "203.0.113.1:80"));
        let refused = BindError::Refused { address, source: io::ErrorKind::PermissionDenied.into() };
        assert!(covers(&guard(refused), "203.0.113.1:80"));
    }
}
