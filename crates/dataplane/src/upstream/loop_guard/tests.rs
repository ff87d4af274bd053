#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use trestle_model::{
    HostPort, ListenerName, ListenerSpec, MemberId, MemberSockets, MemberSpec, PoolName, Vip, VipAddress,
    VipSpec,
};

use super::*;
use crate::accept::listener::BindStatus;

/// A listener that is bound, or is not for this reason.
fn listener(bind: &str, own: Option<IpAddr>, error: Option<BindError>) -> Listener {
    let bind = Bind::parse(bind).unwrap();
    let binds = crate::accept::bind::effective(bind, own)
        .map(|effective| BindStatus { configured: bind, effective, error: error.clone() })
        .collect();
    let config = trestle_model::Listener {
        name: ListenerName::parse("l").unwrap(),
        spec: ListenerSpec::new(vec![bind], PoolName::parse("p").unwrap()),
        binds: vec![bind],
        revision: 1,
        created: 1,
    };
    Listener { config: Arc::new(config), binds, counters: Arc::default(), admission: Arc::default() }
}

fn state(members: &[&str]) -> ClusterState {
    let mut state = ClusterState::default();
    for (number, address) in members.iter().enumerate() {
        let address = HostPort::parse(address).unwrap();
        let name = MemberName::parse(&format!("m{number}")).unwrap();
        let spec =
            MemberSpec { name, peer_address: address.clone(), admin_address: address, feature_level_max: 1 };
        let id = MemberId(number as u64);
        state
            .members
            .insert(id, Arc::new(Member { id, spec, draining: false, drain_timeout: None, revision: 1 }));
    }
    state
}

fn covers(loop_guard: &LoopGuard, address: &str) -> bool {
    loop_guard.bars(address.parse().unwrap()).is_some()
}

#[test]
fn wildcards_are_here_and_where_the_members_are() {
    let state = state(&["203.0.113.1:7481", "[2001:db8::1]:7481", "127.0.0.1:7481", "m.example:7481"]);
    let loop_guard =
        LoopGuard::new(&state, &[listener("0.0.0.0:80-81", None, None)], None, &OwnTargets::default());
    for address in ["127.0.0.1:80", "127.9.9.9:81", "203.0.113.1:80", "[::ffff:203.0.113.1]:81"] {
        assert!(covers(&loop_guard, address), "{address}");
    }
    for address in ["127.0.0.1:82", "203.0.113.1:7483", "203.0.113.2:80", "[2001:db8::1]:80", "[::1]:80"] {
        assert!(!covers(&loop_guard, address), "{address}");
    }
    let loop_guard = LoopGuard::new(&state, &[listener("[::]:80", None, None)], None, &OwnTargets::default());
    assert!(covers(&loop_guard, "[2001:db8::1]:80") && covers(&loop_guard, "[::1]:80"));
    assert!(!covers(&loop_guard, "203.0.113.1:80") && !covers(&loop_guard, "127.0.0.1:80"));
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
    let loop_guard =
        |bind, own, error| LoopGuard::new(&state, &[listener(bind, own, error)], own, &OwnTargets::default());
    let any = loop_guard("*:80-81", None, None);
    assert!(covers(&any, v4) && covers(&any, "203.0.113.50:81") && covers(&any, "[::ffff:203.0.113.50]:80"));
    assert!(!covers(&any, "203.0.113.50:82") && !covers(&any, v6) && !covers(&any, "203.0.113.51:80"));
    let six = loop_guard("[::]:80", None, None);
    assert!(covers(&six, v6) && !covers(&six, v4));
    let one = loop_guard(v4, None, None);
    assert!(covers(&one, v4) && !covers(&one, "203.0.113.50:81") && !covers(&one, v6));
    // Another program has the port on this member, or the wildcard is one address here; the holder may be another.
    let in_use = || Some(BindError::InUse);
    assert!(covers(&loop_guard(v4, None, in_use()), v4) && covers(&loop_guard("*:80", None, in_use()), v4));
    assert!(covers(&loop_guard("*:80", Some("203.0.113.9".parse().unwrap()), None), v4));
    assert!(!covers(&loop_guard("203.0.113.9:80", None, None), v4));
}

#[test]
fn a_port_of_a_range_costs_the_same_however_many_members_there_are() {
    let addresses: Vec<String> = (1..=15).map(|member| format!("203.0.113.{member}:7481")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let state = with_vips(state(&addresses), &["203.0.113.50/24"]);
    let loop_guard =
        LoopGuard::new(&state, &[listener("*:30000-32767", None, None)], None, &OwnTargets::default());
    assert_eq!(loop_guard.ports.len(), 2768);
    assert!(loop_guard.ports.values().all(|port| port.ips.is_empty()));
    assert!(covers(&loop_guard, "203.0.113.15:32767") && covers(&loop_guard, "203.0.113.50:30000"));
    assert!(!covers(&loop_guard, "203.0.113.15:32768"));
}

#[test]
fn with_a_data_address_a_wildcard_is_that_alone() {
    let own = Some("203.0.113.9".parse().unwrap());
    let loop_guard = LoopGuard::new(
        &state(&["203.0.113.1:7481"]),
        &[listener("*:80", own, None)],
        own,
        &OwnTargets::default(),
    );
    assert!(covers(&loop_guard, "203.0.113.9:80"));
    assert!(!covers(&loop_guard, "203.0.113.1:80") && !covers(&loop_guard, "127.0.0.1:80"));
}

#[test]
fn what_others_bind_counts_and_what_another_program_has_does_not() {
    let loop_guard = |error| {
        LoopGuard::new(
            &state(&[]),
            &[listener("203.0.113.1:80", None, Some(error))],
            None,
            &OwnTargets::default(),
        )
    };
    assert!(covers(&loop_guard(BindError::NotHere), "203.0.113.1:80"));
    assert!(!covers(&loop_guard(BindError::InUse), "203.0.113.1:80"));
    let refused = BindError::Refused("Permission denied (os error 13)".into());
    assert!(covers(&loop_guard(refused), "203.0.113.1:80"));
}

fn targets(ports: &[&str], networks: &[&str]) -> OwnTargets {
    OwnTargets {
        ports: ports.iter().map(|port| port.parse().unwrap()).collect(),
        networks: networks.iter().map(|network| Cidr::parse(network).unwrap()).collect(),
        ..OwnTargets::default()
    }
}

#[test]
fn no_connection_and_no_check_goes_to_a_members_own_port() {
    let state =
        with_vips(state(&["203.0.113.1:7481", "203.0.113.2:8481", "127.0.0.2:7481"]), &["203.0.113.50/24"]);
    let own = targets(&["127.0.0.1:7480", "203.0.113.1:7481", "0.0.0.0:7482"], &[]);
    let loop_guard = LoopGuard::new(&state, &[], None, &own);
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
        assert_eq!(loop_guard.bars(address), Some(Barred::OwnPort), "{address}");
        assert_eq!(loop_guard.bars_check(address), Some(Barred::OwnPort), "{address}");
    }
    for address in ["127.0.0.1:7483", "127.0.0.2:7480", "203.0.113.3:7481", "203.0.113.50:80", "[::1]:7482"] {
        assert!(!covers(&loop_guard, address), "{address}");
    }
}

/// Has the member with this number say where it listens: its ports at one address.
fn says(state: &mut ClusterState, number: u64, at: &str, ports: [u16; 3], network: u64) {
    let [admin, peer, http] = ports.map(|port| format!("{at}:{port}").parse().unwrap());
    let sockets = MemberSockets { admin, peer, http, data_address: None, network };
    state.sockets.insert(MemberId(number), Arc::new(sockets));
}

#[test]
fn the_ports_that_members_have_said_are_barred_and_none_that_they_have_not() {
    let mut state = state(&["203.0.113.1:7481", "203.0.113.2:7481", "203.0.113.3:7481", "m3.example:7481"]);
    says(&mut state, 0, "127.0.0.1", [7480, 7481, 7482], 5);
    says(&mut state, 1, "0.0.0.0", [8480, 7481, 8482], 6);
    says(&mut state, 2, "127.0.0.1", [9480, 9481, 9482], 5);
    says(&mut state, 3, "[::]", [6480, 6481, 6482], 5);
    let member = Some(MemberName::parse("m0").unwrap());
    let own = OwnTargets { member, network: 5, ..targets(&["127.0.0.1:7480", "127.0.0.1:7492"], &[]) };
    let loop_guard = LoopGuard::new(&state, &[], None, &own);
    for address in [
        // Where a member on another machine is reached, at what it has bound to the wildcard.
        "203.0.113.2:8482",
        "203.0.113.2:8480",
        // Of one on this machine, loopback; and everything that is its own at a wildcard of both families.
        "127.0.0.1:9482",
        "127.0.0.1:9480",
        "127.0.0.1:6482",
        "[::1]:6480",
        // This member's own, as it is bound now.
        "127.0.0.1:7492",
    ] {
        assert_eq!(loop_guard.bars_check(address.parse().unwrap()), Some(Barred::OwnPort), "{address}");
    }
    for address in [
        // Loopback of another machine.
        "127.0.0.1:8482",
        // It says that it has another port for that.
        "203.0.113.2:7492",
        "203.0.113.2:7482",
        // What was recorded of this member before it started again.
        "127.0.0.1:7482",
        "127.0.0.1:9483",
    ] {
        assert!(!covers(&loop_guard, address), "{address}");
    }
    // On a machine of its own nothing of that is known.
    let alone = LoopGuard::new(&state, &[], None, &OwnTargets { network: 7, ..own });
    assert!(!covers(&alone, "127.0.0.1:9482") && covers(&alone, "203.0.113.2:8482"));
}

#[test]
fn wildcards_of_others_are_at_their_data_addresses() {
    let mut state = state(&["203.0.113.1:7481", "203.0.113.2:7481", "203.0.113.3:7481"]);
    let data_address = |state: &mut ClusterState, number, at: &str, network| {
        says(state, number, "203.0.113.1", [7480, 7481, 7482], network);
        let sockets = state.sockets.get_mut(&MemberId(number)).map(Arc::make_mut).unwrap();
        sockets.data_address = Some(at.parse().unwrap());
    };
    data_address(&mut state, 0, "127.0.0.1", 5);
    data_address(&mut state, 1, "127.0.0.2", 5);
    data_address(&mut state, 2, "127.0.0.3", 6);
    let own = Some("127.0.0.1".parse().unwrap());
    let targets = OwnTargets { network: 5, ..OwnTargets::default() };
    let loop_guard = LoopGuard::new(&state, &[listener("*:80", own, None)], own, &targets);
    assert!(covers(&loop_guard, "127.0.0.1:80") && covers(&loop_guard, "127.0.0.2:80"));
    // On another machine; and where a member is reached that has an address for data.
    assert!(!covers(&loop_guard, "127.0.0.3:80") && !covers(&loop_guard, "203.0.113.2:80"));
}

#[test]
fn networks_of_backends_can_be_narrowed() {
    let own = targets(&[], &["10.0.0.0/8", "2001:db8::/32"]);
    let loop_guard = LoopGuard::new(&state(&[]), &[], None, &own);
    for address in ["10.1.2.3:80", "[2001:db8::1]:80", "[::ffff:10.0.0.1]:80"] {
        assert!(!covers(&loop_guard, address), "{address}");
    }
    for address in ["169.254.169.254:80", "127.0.0.1:80", "[fe80::1]:80"] {
        assert_eq!(loop_guard.bars(address.parse().unwrap()), Some(Barred::Network), "{address}");
    }
}
