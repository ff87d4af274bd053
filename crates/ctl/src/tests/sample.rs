//! Resources as a server answers them.

use prost_types::Duration;
use trestle_api::v1;

pub(crate) fn duration(millis: i32) -> Duration {
    Duration { seconds: i64::from(millis / 1000), nanos: millis % 1000 * 1_000_000 }
}

pub(crate) fn sample_event(member: &str, number: u64) -> v1::ClusterEvent {
    let member = format!("members/{member}");
    v1::ClusterEvent {
        id: Some(v1::EventId { member: member.clone(), start: 7, number }),
        time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 250_000_000 }),
        severity: v1::EventSeverity::Warning.into(),
        kind: "backend-down".to_owned(),
        text: "backend web/a is unhealthy: connection refused".to_owned(),
        member,
        detail: Some(v1::cluster_event::Detail::Verdict(v1::VerdictEvent {
            backend: "pools/web/backends/a".to_owned(),
            verdict: v1::Verdict::Unhealthy.into(),
            reason: "connection refused".to_owned(),
        })),
    }
}

pub(crate) fn sample_pool(name: &str) -> v1::Pool {
    v1::Pool {
        name: format!("pools/{name}"),
        algorithm: v1::Algorithm::RoundRobin.into(),
        health_check: Some(v1::HealthCheck {
            kind: Some(v1::health_check::Kind::Tcp(v1::TcpCheck {})),
            interval: Some(duration(2_000)),
            fast_interval: Some(duration(500)),
            timeout: Some(duration(1_000)),
            rise: Some(2),
            fall: Some(3),
            jitter_percent: Some(10),
            port: 0,
            initial_state: v1::InitialState::Unknown.into(),
        }),
        connect_timeout: Some(duration(2_000)),
        connect_retries: Some(3),
        on_down: v1::OnDown::Close.into(),
        on_primary_up: v1::OnPrimaryUp::Keep.into(),
        all_down: v1::AllDown::Refuse.into(),
        minimum_healthy: Some(1),
        queue_length: Some(1000),
        queue_timeout: Some(duration(5_000)),
        slow_start: Some(duration(0)),
        stickiness: Some(duration(0)),
        idle_timeout: Some(duration(0)),
        max_lifetime: Some(duration(0)),
        close_spread_percent: Some(10),
        dead_peer_timeout: Some(duration(120_000)),
        send_proxy: v1::SendProxy::Off.into(),
        backend_count: 2,
        revision: 12,
        etag: "12".to_owned(),
        ..v1::Pool::default()
    }
}

pub(crate) fn sample_backend(name: &str, host: u8) -> v1::Backend {
    v1::Backend {
        name: format!("pools/web/backends/{name}"),
        address: format!("10.0.0.{host}:8080"),
        weight: Some(1),
        backup: false,
        admin_state: v1::AdminState::Enabled.into(),
        drain_timeout: None,
        max_connections: 0,
        revision: 13,
        etag: "13".to_owned(),
        ..v1::Backend::default()
    }
}

pub(crate) fn sample_view(member: &str, verdict: v1::Verdict, reason: &str) -> v1::MemberView {
    v1::MemberView {
        member: format!("members/{member}"),
        verdict: verdict.into(),
        reason: reason.to_owned(),
        since: Some(duration(65_250)),
        active_connections: 3,
        ..v1::MemberView::default()
    }
}

pub(crate) fn sample_listener(name: &str) -> v1::Listener {
    v1::Listener {
        name: format!("listeners/{name}"),
        binds: vec!["0.0.0.0:6443".to_owned()],
        pool: "pools/web".to_owned(),
        first_bytes_timeout: Some(duration(5_000)),
        on_silence: v1::OnSilence::Reset.into(),
        revision: 14,
        etag: "14".to_owned(),
        ..v1::Listener::default()
    }
}

pub(crate) fn sample_vip(name: &str) -> v1::Vip {
    v1::Vip {
        name: format!("vips/{name}"),
        address: "10.0.3.100/24".to_owned(),
        interface_overrides: vec![v1::InterfaceOverride {
            member: "members/m2".to_owned(),
            interface: "enp3s0".to_owned(),
        }],
        on_quorum_loss: v1::OnQuorumLoss::Release.into(),
        preferred: vec!["members/m2".to_owned()],
        preference_delay: Some(duration(10_000)),
        revision: 15,
        etag: "15".to_owned(),
        ..v1::Vip::default()
    }
}

pub(crate) fn sample_vip_view(vip: &str, member: &str, holds: bool) -> v1::VipView {
    v1::VipView {
        vip: format!("vips/{vip}"),
        member: format!("members/{member}"),
        holds,
        address_present: holds,
        fence_open_for: holds.then(|| prost_types::Duration { nanos: 212_345_678, ..duration(0) }),
        interface: "eth0".to_owned(),
        announced_ago: holds.then(|| duration(3_000)),
        ..v1::VipView::default()
    }
}

pub(crate) fn sample_member(name: &str, id: u64) -> v1::Member {
    v1::Member {
        name: format!("members/{name}"),
        id,
        peer_address: format!("127.0.0.{id}:7481"),
        admin_address: format!("127.0.0.{id}:7480"),
        role: v1::MemberRole::Voter.into(),
        leader: false,
        revision: 1,
        draining: false,
        drain_timeout: None,
        feature_level_max: 1,
        keys: Vec::new(),
    }
}

pub(crate) fn sample_member_status(name: &str, id: u64, raft_state: v1::RaftState) -> v1::MemberStatus {
    v1::MemberStatus {
        member: Some(sample_member(name, id)),
        reachable: true,
        error: String::new(),
        raft_state: raft_state.into(),
        term: 3,
        applied_index: 12,
        revision: 12,
        in_force_revision: 12,
        digest: "aaaaaaaaaaaa".to_owned(),
        listeners_bound: 1,
        listeners_failed: 0,
        active_connections: 5,
        backends_unhealthy: 0,
        version: "0.1.0".to_owned(),
        uptime: Some(duration(60_000)),
        descriptors_used: 12,
        descriptors_max: 19_000,
        vip_standing: v1::VipStanding::Following.into(),
        unfit: Vec::new(),
        dead_pools: Vec::new(),
        dead_pools_total: 0,
        vip_faults: Vec::new(),
        vip_faults_total: 0,
        fitness_revision: 0,
        election_timeout_max: Some(duration(300)),
        problems: Vec::new(),
        ..v1::MemberStatus::default()
    }
}

/// A pool with some unhealthy backends of which these are named.
pub(crate) fn sample_trouble(pool: &str, enabled: u32, unhealthy: u32, named: &[&str]) -> v1::PoolTrouble {
    let example = |backend: &&str| v1::UnhealthyBackend {
        backend: format!("pools/{pool}/backends/{backend}"),
        reason: "connection refused".to_owned(),
    };
    v1::PoolTrouble {
        pool: format!("pools/{pool}"),
        backends: enabled,
        enabled,
        unhealthy,
        used: true,
        fail_open: false,
        examples: named.iter().map(example).collect(),
        down: false,
    }
}

/// A listener that is not bound at an address.
pub(crate) fn sample_unbound(listener: &str, address: &str, reason: &str) -> v1::ListenerView {
    let (addresses, reason) = (vec![address.to_owned()], reason.to_owned());
    v1::ListenerView {
        listener: format!("listeners/{listener}"),
        errors: vec![format!("{address}: {reason}")],
        bind_failures: vec![v1::BindFailure { addresses, more: 0, reason }],
        ..v1::ListenerView::default()
    }
}

pub(crate) fn sample_status() -> v1::ClusterStatus {
    v1::ClusterStatus {
        cluster_id: "00112233445566778899aabbccddeeff".to_owned(),
        leader: "members/m1".to_owned(),
        term: 3,
        revision: 12,
        members: vec![
            sample_member_status("m1", 1, v1::RaftState::Leader),
            sample_member_status("m2", 2, v1::RaftState::Follower),
            sample_member_status("m3", 3, v1::RaftState::Follower),
        ],
        counts: Some(v1::ResourceCounts { pools: 1, backends: 2, listeners: 1, vips: 0 }),
        vips: Vec::new(),
        feature_level: 1,
        transport: 0,
        problems: Vec::new(),
    }
}

/// An HTTPS check with every setting.
pub(crate) fn sample_https() -> v1::health_check::Kind {
    let field = |name: &str, value: &str| v1::HttpField { name: name.to_owned(), value: value.to_owned() };
    let certificate =
        |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
    v1::health_check::Kind::Http(v1::HttpCheck {
        tls: Some(v1::TlsCheck {
            server_name: "api.example".to_owned(),
            ca: certificate("MII") + &certificate("MIJ"),
            min_days_left: 14,
            client_certificate_file: "/etc/trestle/check.pem".to_owned(),
            client_key_file: "/etc/trestle/check.key".to_owned(),
        }),
        method: "HEAD".to_owned(),
        path: "/readyz?verbose".to_owned(),
        host: "api.example:6443".to_owned(),
        headers: vec![field("Accept", "*/*"), field("X-Probe", "1")],
        expect: vec!["200-299".to_owned(), "401".to_owned()],
        token_file: String::new(),
        body_contains: "o\nk".to_owned(),
    })
}
