//! Keeping the data plane away from the members' own ports, whose loopback side believes whoever reaches it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tonic::Status;
use trestle_api::status;
use trestle_model::{ClusterState, Command, Document, Host, HostPort, Invalid, PoolName, Port, Violation};

use super::Admin;

const RULE: &str = "is the admin, peer or HTTP port of a member of this cluster: the data plane must not lead there, and no \
                    check may go there";

/// What a command would have dialled that was not dialled before: the field to name, where, and at which port.
fn dials<'a>(state: &'a ClusterState, command: &'a Command) -> Vec<(String, &'a Host, Option<Port>)> {
    let whole = matches!(command, Command::Restore { .. });
    let pools: BTreeMap<&PoolName, Option<Port>> = command
        .documents()
        .filter_map(|document| match document {
            Document::Pool(name, spec) => Some((name, spec.health.port)),
            _ => None,
        })
        .collect();
    let there = |pool: &PoolName| state.pools.get(pool).filter(|_| !whole);
    let check_port = |pool: &PoolName| match pools.get(pool) {
        Some(port) => *port,
        None => there(pool).and_then(|entry| entry.pool.spec.health.port),
    };
    let alone = command.documents().count() == 1;
    let named = |document: &Document, field: &str| match alone && !whole {
        true => field.to_owned(),
        false => format!("{}: {field}", document.resource()),
    };
    let mut dialled = Vec::new();
    for document in command.documents() {
        match document {
            Document::Backend(pool, name, spec) => {
                let before = there(pool).and_then(|entry| entry.backends.get(name));
                if before.is_some_and(|backend| backend.spec.address == spec.address) {
                    continue;
                }
                let (field, address) = (named(document, "backend.address"), &spec.address);
                dialled.push((field.clone(), &address.host, address.port));
                dialled.push((field, &address.host, check_port(pool)));
            }
            Document::Pool(name, spec) => {
                let Some(entry) = there(name).filter(|e| e.pool.spec.health.port != spec.health.port) else {
                    continue;
                };
                let field = named(document, "pool.health_check.port");
                let hosts = entry.backends.values().map(|backend| &backend.spec.address.host);
                dialled.extend(hosts.map(|host| (field.clone(), host, spec.health.port)));
            }
            Document::AdminState(..) | Document::Listener(..) | Document::Vip(..) => {}
        }
    }
    dialled
}

/// Whether a member has told others to reach it by this name, there or where it says that it listens.
fn is_told(state: &ClusterState, name: &str, port: Port) -> bool {
    // The dot of the root is only for look-ups.
    let name = name.strip_suffix('.').unwrap_or(name);
    let dialled = format!("{name}:{port}");
    state.members.iter().any(|(id, member)| {
        let told = [&member.spec.peer_address, &member.spec.admin_address].map(HostPort::as_str);
        let is_name =
            |text: &&str| text.rsplit_once(':').is_some_and(|(host, _)| host.eq_ignore_ascii_case(name));
        let listens = |socket: SocketAddr| !socket.ip().is_loopback() && socket.port() == port.get();
        let mut sockets = state.sockets.get(id).into_iter().flat_map(|sockets| sockets.ports());
        told.iter().any(|text| text.eq_ignore_ascii_case(&dialled))
            || told.iter().any(is_name) && sockets.any(|(_, socket)| listens(socket))
    })
}

/// Whether a member says that it listens at this address: whatever that is on the other members, on that one it is its own.
fn is_said(state: &ClusterState, address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    state.sockets.values().flat_map(|sockets| sockets.ports()).any(|(_, socket)| {
        let own = socket.ip().to_canonical();
        // At the wildcard of IPv6 it is reached over IPv4 too.
        let meets = own.is_ipv4() == ip.is_ipv4() || own.is_ipv6();
        socket.port() == address.port() && (own == ip || own.is_unspecified() && ip.is_loopback() && meets)
    })
}

/// The addresses that a name stands for on every member, whatever name servers say (RFC 6761, section 6.3).
fn loopback(name: &str) -> Vec<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    match name.eq_ignore_ascii_case("localhost") {
        true => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        false => Vec::new(),
    }
}

/// What of a command leads to a member's own port; `is_own` tells it of an address.
fn leading_to_own_ports(
    state: &ClusterState,
    command: &Command,
    is_own: impl Fn(SocketAddr) -> bool,
) -> Vec<Violation> {
    let own = |(field, host, port): (String, &Host, Option<Port>)| {
        let port = port?;
        let own_at = |ip: IpAddr| {
            let address = SocketAddr::new(ip, port.get());
            is_own(address) || is_said(state, address)
        };
        let (own, dialled) = match host {
            Host::Ip(ip) => (own_at(*ip), SocketAddr::new(*ip, port.get()).to_string()),
            Host::Name(name) => {
                let own = is_told(state, name, port) || loopback(name).into_iter().any(own_at);
                (own, format!("{name}:{port}"))
            }
        };
        own.then(|| Violation::new(field, dialled, RULE))
    };
    let mut found: Vec<_> = dials(state, command).into_iter().filter_map(own).collect();
    found.dedup();
    found.truncate(8);
    found
}

impl Admin {
    /// Refuses what would lead the data plane, or a check, to a member's own port. What is known of an address only when it
    /// is dialled is refused then.
    pub(super) fn refuse_own_ports(&self, command: &Command) -> Result<(), Status> {
        let state = self.local.consensus.view().borrow().state.clone();
        let found = leading_to_own_ports(&state, command, |address| self.plane.is_own_port(address));
        if found.is_empty() { Ok(()) } else { Err(status::invalid(&Invalid(found))) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use trestle_model::{
        BackendAddress, BackendName, BackendSpec, Configuration, Member, MemberId, MemberName, MemberSockets,
        MemberSpec, PoolSpec,
    };

    use super::*;

    fn backend(address: &str) -> Command {
        let spec = BackendSpec::at(BackendAddress::parse(address).unwrap());
        Command::put((pool(), BackendName::parse("b").unwrap(), spec))
    }

    fn pool() -> PoolName {
        PoolName::parse("p").unwrap()
    }

    /// A cluster of one, which says where it listens.
    fn cluster() -> ClusterState {
        let mut state = ClusterState::default();
        let peer = HostPort::parse("M1.example:7481").unwrap();
        let spec = MemberSpec {
            name: MemberName::parse("m1").unwrap(),
            peer_address: peer.clone(),
            admin_address: peer,
            feature_level_max: 1,
        };
        let member = Member { id: MemberId(1), spec, draining: false, drain_timeout: None, revision: 1 };
        state.members.insert(MemberId(1), Arc::new(member));
        let at = |text: &str| text.parse().unwrap();
        let (admin, peer, http) = (at("127.0.0.1:9480"), at("0.0.0.0:7481"), at("[::]:8482"));
        let sockets = MemberSockets { admin, peer, http, data_address: None, network: 0 };
        state.sockets.insert(MemberId(1), Arc::new(sockets));
        state
    }

    #[test]
    fn what_leads_to_a_members_port_is_found() {
        let mut state = cluster();
        let is_own = |address: SocketAddr| address.port() == 7480 && address.ip().is_loopback();
        let mut apply = |command: &Command| {
            let index = state.revision + 2;
            state.apply(index, command).map(drop).unwrap();
            state.clone()
        };
        let state = apply(&Command::create((pool(), PoolSpec::default())));
        let found = |command: &Command| leading_to_own_ports(&state, command, is_own).len();
        for own in [
            "127.0.0.1:7480",
            "[::1]:7480",
            "m1.example:7481",
            "m1.example.:7481",
            "m1.example:8482",
            "127.0.0.1:9480",
            "127.0.0.1:8482",
            "[::1]:8482",
            "127.9.9.9:7481",
            "localhost:8482",
            "localhost.:7480",
        ] {
            assert_eq!(found(&backend(own)), 1, "{own}");
        }
        for other in [
            "127.0.0.1:7483",
            "127.0.0.1",
            "10.0.0.1:7480",
            "m1.example:80",
            "m1.example:9480",
            "m2.example:7481",
            "10.0.0.1:8482",
            "localhost:9999",
        ] {
            assert_eq!(found(&backend(other)), 0, "{other}");
        }
        let document = |address: &str, check: Option<u16>| {
            let mut spec = PoolSpec::default();
            spec.health.port = check.and_then(Port::new);
            let at = BackendSpec::at(BackendAddress::parse(address).unwrap());
            let backend = (pool(), BackendName::parse("b").unwrap(), at);
            let configuration = Configuration(vec![(pool(), spec).into(), backend.into()]);
            Command::Restore { configuration: Arc::new(configuration), replace: true }
        };
        assert_eq!(found(&document("127.0.0.1:8482", None)), 1);
        assert_eq!(found(&document("127.0.0.1:80", Some(8482))), 1);
        assert_eq!(found(&document("127.0.0.1:80", Some(81))), 0);
        let state = apply(&backend("127.0.0.1:80"));
        assert_eq!(leading_to_own_ports(&state, &backend("127.0.0.1:7480"), is_own).len(), 1);
        let mut spec = PoolSpec::default();
        spec.health.port = Port::new(7480);
        let update = Command::put((pool(), spec));
        assert_eq!(leading_to_own_ports(&state, &update, is_own).len(), 1);
        // What is so already is not refused again.
        let state = apply(&update);
        assert_eq!(leading_to_own_ports(&state, &update, is_own), []);
    }
}
