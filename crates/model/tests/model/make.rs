//! What the tests' commands are made of.

use trestle_model::{
    BackendAddress, BackendName, BackendSpec, ClusterState, Command, HostPort, ListenAddress, ListenerName,
    ListenerSpec, MemberName, MemberSpec, PoolName, PoolSpec, Refusal, VipAddress, VipName, VipSpec,
};

pub(crate) fn pool(name: &str) -> PoolName {
    PoolName::parse(name).unwrap()
}

pub(crate) fn backend(name: &str) -> BackendName {
    BackendName::parse(name).unwrap()
}

pub(crate) fn listener(name: &str) -> ListenerName {
    ListenerName::parse(name).unwrap()
}

pub(crate) fn vip(name: &str) -> VipName {
    VipName::parse(name).unwrap()
}

pub(crate) fn at(address: &str) -> BackendSpec {
    BackendSpec::at(BackendAddress::parse(address).unwrap())
}

/// A listener at these addresses that leads to a pool.
pub(crate) fn listening(binds: &[&str], to: &str) -> ListenerSpec {
    let binds: Vec<_> = binds.iter().map(|bind| ListenAddress::parse(bind).unwrap()).collect();
    ListenerSpec::new(binds, pool(to))
}

pub(crate) fn vip_at(address: &str) -> VipSpec {
    VipSpec::new(VipAddress::parse(address).unwrap())
}

/// A member that others reach at `peer`.
pub(crate) fn member_at(name: &str, peer: &str, admin: &str) -> MemberSpec {
    MemberSpec {
        name: MemberName::parse(name).unwrap(),
        peer_address: HostPort::parse(peer).unwrap(),
        admin_address: HostPort::parse(admin).unwrap(),
        feature_level_max: 1,
    }
}

pub(crate) fn create_pool(name: &str) -> Command {
    Command::create((pool(name), PoolSpec::default()))
}

pub(crate) fn create_listener(name: &str, binds: &[&str], to: &str) -> Command {
    Command::create((listener(name), listening(binds, to)))
}

/// Applies a command that is refused, and sees that this leaves the state as it was.
pub(crate) fn refused(state: &mut ClusterState, command: &Command) -> Refusal {
    let before = state.clone();
    let refusal = state.apply(99, command).unwrap_err();
    assert_eq!(*state, before, "a refused command changed the state");
    refusal
}
