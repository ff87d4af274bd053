//! What members say of themselves to one another, as the API shows it. Each field of both messages is named, so that none is
//! forgotten.

use trestle_model::MemberName;

use super::name::member_name;
use crate::{peer, v1};

/// Moves the fields that two messages have in common. Those that only the peers' message has are named, and those that only the
/// API's has are given; a field that is on neither list does not compile. One that is answered elsewhere is left with `: _`.
macro_rules! moved {
    ($message:expr, $from:ident => $to:ident { $($same:ident),* } [$($left:ident $(: $unused:tt)?),*] { $($field:ident: $value:expr),* $(,)? }) => {{
        let peer::$from { $($same,)* $($left $(: $unused)?,)* } = $message;
        v1::$to { $($same,)* $($field: $value,)* }
    }};
}

/// Two enums have the same values under the same numbers, so that the number can be moved.
macro_rules! same_values {
    ($from:path, $to:path { $($value:ident),+ }) => {
        const _: () = {
            use $from as From;
            use $to as To;
            // Fails to compile where one of them has a value that the other has not.
            const fn number(value: From) -> i32 {
                match value { $(From::$value => To::$value as i32),+ }
            }
            $(assert!(number(From::$value) == From::$value as i32);)+
        };
    };
}

same_values!(
    peer::RaftState,
    v1::RaftState { Unspecified, Empty, Starting, Learner, Follower, Candidate, Leader, Removed, Stopped }
);
same_values!(
    peer::VipStanding,
    v1::VipStanding {
        Unspecified,
        Unable,
        Following,
        CatchingUp,
        WaitingForOldLease,
        Taking,
        Serving,
        WithoutQuorum,
        Leaving,
        Yielded
    }
);
same_values!(
    peer::vip_fault::Kind,
    v1::vip_fault::Kind {
        Unspecified,
        Unable,
        DataPlane,
        Listener,
        Interface,
        Isolated,
        Check,
        Draining,
        Log
    }
);
same_values!(peer::Verdict, v1::Verdict { Unspecified, Unknown, Healthy, Unhealthy });
same_values!(peer::ConnectionState, v1::ConnectionState { Unspecified, Opening, Waiting, Relaying });
same_values!(peer::EventSeverity, v1::EventSeverity { Unspecified, Info, Warning, Error });

fn each<T, U>(all: Vec<T>, one: impl Fn(T) -> U) -> Vec<U> {
    all.into_iter().map(one).collect()
}

/// The status of a member that answered, but for what only the one that asked it knows: its record, whether it is behind, and
/// how far its clock is off.
pub fn member_status(report: peer::MemberReport) -> v1::MemberStatus {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let (dead, faults) = (count(report.dead_pools.len()), count(report.vip_faults.len()));
    moved!(report, MemberReport => MemberStatus {
        raft_state, term, applied_index, revision, in_force_revision, digest, listeners_bound, listeners_failed,
        active_connections, backends_unhealthy, version, uptime, descriptors_used, descriptors_max, vip_standing, unfit,
        dead_pools, election_timeout_max, problems, fitness_revision, abstains, join_addresses, time, in_force_lag, held_vips,
        drained, drain_left, troubled_pools_total, insecure, waits_for
    } [name, vip_faults, unbound_listeners, troubled_pools, plain_callers, authority_keys: _, certificate_authority: _] {
        member: None,
        reachable: true,
        error: String::new(),
        dead_pools_total: dead,
        vip_faults_total: faults,
        vip_faults: each(vip_faults, |fault| moved!(fault, VipFault => VipFault { kind, subject, recovering } [] {})),
        unbound_listeners: each(unbound_listeners, |listener| listener_view(&format!("members/{name}"), listener)),
        troubled_pools: each(troubled_pools, pool_trouble),
        plain_callers: each(plain_callers, |caller| {
            moved!(caller, PlainCaller => PlainCaller { port, address, member, ago } [] {})
        }),
        clock_offset: None,
        clock_offset_error: None,
        behind: false,
    })
}

fn pool_trouble(trouble: peer::PoolTrouble) -> v1::PoolTrouble {
    moved!(trouble, PoolTrouble => PoolTrouble { pool, backends, enabled, unhealthy, used, fail_open, down } [examples] {
        examples: each(examples, |one| moved!(one, UnhealthyBackend => UnhealthyBackend { backend, reason } [] {})),
    })
}

/// A backend as a member sees it.
pub fn member_view(member: &MemberName, report: peer::BackendReport) -> v1::MemberView {
    moved!(report, BackendReport => MemberView {
        verdict, reason, since, active_connections, connections, bytes_in, bytes_out, connect_failures, address,
        other_addresses, drain_left, draining
    } [name, history] {
        member: { drop(name); member_name(member) },
        history: each(history, |change| moved!(change, VerdictChange => VerdictChange { verdict, reason, ago } [] {})),
    })
}

/// A listener on a member, "members/{member}".
pub fn listener_view(member: &str, report: peer::ListenerReport) -> v1::ListenerView {
    moved!(report, ListenerReport => ListenerView {
        bound, errors, active_connections, connections, bytes_in, bytes_out, failures
    } [name, bind_failures] {
        listener: name,
        member: member.to_owned(),
        bind_failures: each(bind_failures, |one| moved!(one, BindFailure => BindFailure { addresses, more, reason } [] {})),
    })
}

/// A virtual IP on a member.
pub fn vip_view(member: &MemberName, report: peer::VipReport) -> v1::VipView {
    moved!(report, VipReport => VipView {
        holds, address_present, fence_open_for, degraded_fence, interface, announced_ago, foreign_mac, foreign_ago,
        without_quorum, problems, fence_repairs, fence_repaired_ago, fence_change
    } [name] {
        vip: name,
        member: member_name(member),
    })
}

/// A connection on a member.
pub fn connection(member: &MemberName, report: peer::ConnectionReport) -> v1::Connection {
    moved!(report, ConnectionReport => Connection {
        client_address, listener, local_address, pool, backend, backend_address, state, age, connect_time, bytes_in, bytes_out,
        server_name
    } [number] {
        name: super::connection_name(member, number),
    })
}

/// An event of a member, of the process that drew the number `start`.
pub fn cluster_event(member: &MemberName, start: u64, event: peer::MemberEvent) -> v1::ClusterEvent {
    use peer::member_event::Detail as From;
    use v1::cluster_event::Detail as To;
    let of = |detail| match detail {
        From::Verdict(one) => {
            To::Verdict(moved!(one, VerdictEvent => VerdictEvent { backend, verdict, reason } [] {}))
        }
        From::Pool(one) => To::Pool(moved!(one, PoolEvent => PoolEvent { pool, down } [] {})),
        From::Listener(one) => {
            To::Listener(moved!(one, ListenerEvent => ListenerEvent { listener, bound } [] {}))
        }
        From::Leader(one) => To::Leader(moved!(one, LeaderEvent => LeaderEvent { leader, term } [] {})),
        From::Peer(name) => To::Peer(v1::PeerEvent { peer: format!("members/{name}") }),
    };
    let member = member_name(member);
    moved!(event, MemberEvent => ClusterEvent { time, severity, kind, text } [number, detail] {
        id: Some(v1::EventId { member: member.clone(), start, number }),
        member: member,
        detail: detail.map(of),
    })
}
