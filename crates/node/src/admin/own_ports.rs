//! Keeping the data plane away from the members' own ports, whose loopback side believes whoever reaches it.

use std::net::SocketAddr;

use tonic::Status;
use trestle_api::status;
use trestle_model::{BackendAddress, ClusterState, Command, Host, Invalid, Port, Violation};

use super::Admin;

const RULE: &str = "is the admin, peer or HTTP port of a member of this cluster: the data plane must not lead there, and no \
                    check may go there";

/// What a command would have dialled: the field to name, where, and at which port.
fn dials<'a>(state: &'a ClusterState, command: &'a Command) -> Vec<(&'static str, &'a Host, Option<Port>)> {
    let check_port = |pool| state.pools.get(pool).and_then(|entry| entry.pool.spec.health.port);
    let of = |address: &'a BackendAddress, pool| {
        vec![
            ("backend.address", &address.host, address.port),
            ("backend.address", &address.host, check_port(pool)),
        ]
    };
    match command {
        Command::CreateBackend { pool, spec, .. } => of(&spec.address, pool),
        Command::UpdateBackend { pool, patch, .. } => {
            patch.address.as_ref().map(|address| of(address, pool)).unwrap_or_default()
        }
        Command::UpdatePool { name, patch, .. } => {
            let (Some(Some(port)), Some(entry)) = (patch.health.port, state.pools.get(name)) else {
                return Vec::new();
            };
            let hosts = entry.backends.values().map(|backend| &backend.spec.address.host);
            hosts.map(|host| ("pool.health_check.port", host, Some(port))).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether a member has told others to reach it by this name.
fn is_told(state: &ClusterState, name: &str, port: Port) -> bool {
    // The dot of the root is only for look-ups.
    let dialled = format!("{}:{port}", name.strip_suffix('.').unwrap_or(name));
    let told = state.members.values().flat_map(|m| [&m.spec.peer_address, &m.spec.admin_address]);
    told.into_iter().any(|address| address.as_str().eq_ignore_ascii_case(&dialled))
}

/// What of a command leads to a member's own port; `is_own` tells it of an address.
fn leading_to_own_ports(
    state: &ClusterState,
    command: &Command,
    is_own: impl Fn(SocketAddr) -> bool,
) -> Vec<Violation> {
    let own = |(field, host, port): (&'static str, &Host, Option<Port>)| {
        let port = port?;
        let (own, dialled) = match host {
            Host::Ip(ip) => {
                let address = SocketAddr::new(*ip, port.get());
                (is_own(address), address.to_string())
            }
            Host::Name(name) => (is_told(state, name, port), format!("{name}:{port}")),
        };
        own.then(|| Violation::new(field, dialled, RULE))
    };
    let mut found: Vec<_> = dials(state, command).into_iter().filter_map(own).collect();
    found.truncate(8);
    found.dedup();
    found
}

impl Admin {
    /// Refuses what would lead the data plane, or a check, to a member's own port. What is known of an address only when it
    /// is dialled is refused then.
    pub(super) fn refuse_own_ports(&self, command: &Command) -> Result<(), Status> {
        let state = self.member.consensus.view().borrow().state.clone();
        let found = leading_to_own_ports(&state, command, |address| self.member.plane.is_own_port(address));
        if found.is_empty() { Ok(()) } else { Err(status::invalid(&Invalid(found))) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use trestle_model::{
        BackendName, BackendPatch, BackendSpec, HostPort, Member, MemberId, MemberName, MemberSpec, PoolName,
        PoolPatch, PoolSpec,
    };

    use super::*;

    fn backend(address: &str) -> Command {
        let spec = BackendSpec::at(BackendAddress::parse(address).unwrap());
        Command::CreateBackend { pool: pool(), name: BackendName::parse("b").unwrap(), spec }
    }

    fn pool() -> PoolName {
        PoolName::parse("p").unwrap()
    }

    #[test]
    fn what_leads_to_a_members_port_is_found() {
        let mut state = ClusterState::default();
        let peer = HostPort::parse("M1.example:7481").unwrap();
        let spec = MemberSpec {
            name: MemberName::parse("m1").unwrap(),
            peer_address: peer.clone(),
            admin_address: peer,
        };
        let member = Member { id: MemberId(1), spec, draining: false, revision: 1 };
        state.members.insert(MemberId(1), Arc::new(member));
        let is_own = |address: SocketAddr| address.port() == 7480 && address.ip().is_loopback();
        let mut apply = |command: &Command| {
            let index = state.revision + 2;
            state.apply(index, command).map(drop).unwrap();
            state.clone()
        };
        let state = apply(&Command::CreatePool { name: pool(), spec: PoolSpec::default() });
        let found = |command: &Command| leading_to_own_ports(&state, command, is_own).len();
        for own in ["127.0.0.1:7480", "[::1]:7480", "m1.example:7481", "m1.example.:7481"] {
            assert_eq!(found(&backend(own)), 1, "{own}");
        }
        for other in ["127.0.0.1:7483", "127.0.0.1", "10.0.0.1:7480", "m1.example:80", "m2.example:7481"] {
            assert_eq!(found(&backend(other)), 0, "{other}");
        }
        let address = Some(BackendAddress::parse("127.0.0.1:7480").unwrap());
        let patch = BackendPatch { address, ..BackendPatch::default() };
        let name = BackendName::parse("b").unwrap();
        assert_eq!(found(&Command::UpdateBackend { pool: pool(), name, patch, expect: None }), 1);
        let state = apply(&backend("127.0.0.1:80"));
        let mut patch = PoolPatch::default();
        patch.health.port = Some(Port::new(7480));
        let update = Command::UpdatePool { name: pool(), patch, expect: None };
        assert_eq!(leading_to_own_ports(&state, &update, is_own).len(), 1);
        apply(&update);
    }
}
