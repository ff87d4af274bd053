use std::fmt::Write;
use std::time::Duration;

use prost::Message;
use trestle_api::storage;
use trestle_model::{
    AdminState, Algorithm, AllDown, BackendAddress, BackendName, BackendPatch, BackendSpec, Bind, CheckKind,
    ClusterId, Command, HealthCheck, HealthPatch, HostPort, ListenerName, ListenerPatch, ListenerSpec,
    MemberId, MemberName, MemberSpec, OnDown, Origin, PoolName, PoolPatch, PoolSpec, Port, Proposal, Request,
    RequestId,
};

/// Bytes that logs out there hold. They must decode for ever; a line changes only together with the storage format.
const GOLDEN: &str = include_str!("../golden/proposals.txt");

fn pool() -> PoolName {
    PoolName::parse("web").unwrap()
}

fn backend() -> BackendName {
    BackendName::parse("web-1").unwrap()
}

fn listener() -> ListenerName {
    ListenerName::parse("https").unwrap()
}

fn member() -> MemberSpec {
    MemberSpec {
        name: MemberName::parse("east-1").unwrap(),
        peer_address: HostPort::parse("10.0.0.1:7481").unwrap(),
        admin_address: HostPort::parse("east-1.example:7480").unwrap(),
    }
}

fn pool_spec() -> PoolSpec {
    PoolSpec {
        algorithm: Algorithm::LeastConnections,
        connect_timeout: Duration::from_millis(1500),
        connect_retries: 2,
        on_down: OnDown::Close,
        all_down: AllDown::Refuse,
        health: HealthCheck {
            kind: CheckKind::Tcp,
            interval: Duration::from_secs(3),
            fast_interval: Duration::from_millis(250),
            timeout: Duration::from_millis(900),
            rise: 4,
            fall: 5,
            jitter_percent: 6,
            port: Port::new(8080),
            ..HealthCheck::default()
        },
        ..PoolSpec::default()
    }
}

fn pool_commands() -> Vec<(&'static str, Command)> {
    let patch = PoolPatch {
        algorithm: Some(Algorithm::RoundRobin),
        health: HealthPatch { kind: Some(CheckKind::None), port: Some(None), ..Default::default() },
        ..Default::default()
    };
    vec![
        ("create-pool", Command::CreatePool { name: pool(), spec: pool_spec() }),
        ("update-pool", Command::UpdatePool { name: pool(), patch, expect: Some(300) }),
        ("delete-pool", Command::DeletePool { name: pool(), expect: None }),
    ]
}

fn backend_commands() -> Vec<(&'static str, Command)> {
    let address = |text| BackendAddress::parse(text).unwrap();
    let spec = BackendSpec { weight: 256, backup: true, ..BackendSpec::at(address("[2001:db8::1]:443")) };
    let drain = BackendPatch {
        admin_state: Some(AdminState::Draining { timeout: Some(Duration::from_secs(30)) }),
        ..Default::default()
    };
    let move_ = BackendPatch {
        address: Some(address("10.0.0.2")),
        weight: Some(0),
        backup: Some(false),
        admin_state: Some(AdminState::Disabled),
        ..Default::default()
    };
    vec![
        ("create-backend", Command::CreateBackend { pool: pool(), name: backend(), spec }),
        (
            "drain-backend",
            Command::UpdateBackend { pool: pool(), name: backend(), patch: drain, expect: None },
        ),
        (
            "move-backend",
            Command::UpdateBackend { pool: pool(), name: backend(), patch: move_, expect: Some(0) },
        ),
        ("delete-backend", Command::DeleteBackend { pool: pool(), name: backend(), expect: Some(u64::MAX) }),
    ]
}

fn listener_commands() -> Vec<(&'static str, Command)> {
    let binds = || vec![Bind::parse("0.0.0.0:443").unwrap(), Bind::parse("[::]:443").unwrap()];
    let patch = |binds, pool| ListenerPatch { binds, pool, ..ListenerPatch::default() };
    let update = |patch| Command::UpdateListener { name: listener(), patch, expect: None };
    vec![
        (
            "create-listener",
            Command::CreateListener { name: listener(), spec: ListenerSpec::new(binds(), pool()) },
        ),
        ("rebind-listener", update(patch(Some(binds()), None))),
        ("unbind-listener", update(patch(Some(vec![]), None))),
        ("repoint-listener", update(patch(None, Some(pool())))),
        ("delete-listener", Command::DeleteListener { name: listener(), expect: Some(9) }),
    ]
}

fn proposals() -> Vec<(&'static str, Proposal)> {
    let cluster_id = ClusterId::parse("0123456789abcdef0123456789abcdef").unwrap();
    let mut commands = vec![
        ("found-cluster", Command::FoundCluster { cluster_id, member: member() }),
        ("add-member", Command::AddMember(member())),
        ("remove-member", Command::RemoveMember(MemberId(300))),
    ];
    commands.extend(pool_commands());
    commands.extend(backend_commands());
    commands.extend(listener_commands());
    let mut proposals: Vec<_> = commands
        .into_iter()
        .map(|(name, command)| (name, Proposal { origin: None, request: None, command }))
        .collect();
    let request = Request { id: RequestId::parse("request-1").unwrap(), fingerprint: 0x0123_4567_89ab_cdef };
    let command = Command::DeletePool { name: pool(), expect: None };
    proposals.push(("with-request", Proposal { origin: None, request: Some(request), command }));
    let origin =
        Origin { time_ms: 1_700_000_000_250, member: Some(MemberId(2)), client: Some([10, 0, 0, 5].into()) };
    let command = Command::DeletePool { name: pool(), expect: None };
    proposals.push(("with-origin", Proposal { origin: Some(origin), request: None, command }));
    proposals
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn proposals_are_written_as_ever() {
    let line = |(name, proposal): &(&str, Proposal)| {
        format!("{name} {}\n", hex(&storage::Proposal::from(proposal).encode_to_vec()))
    };
    let written: String = proposals().iter().map(line).collect();
    assert!(written == GOLDEN, "the encoding of stored proposals changed; it is now:\n{written}");
}

#[test]
fn proposals_are_read_as_ever() {
    let stored: Vec<_> = GOLDEN
        .lines()
        .map(|line| {
            let (name, bytes) = line.split_once(' ').unwrap();
            let message = storage::Proposal::decode(&unhex(bytes)[..]).unwrap();
            (name, Proposal::try_from(message).unwrap())
        })
        .collect();
    assert_eq!(stored, proposals());
}
