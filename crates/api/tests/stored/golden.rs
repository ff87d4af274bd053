use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use trestle_api::storage;
use trestle_api::stored::{machine_digest, state_digest};
use trestle_model::{
    AdminState, Algorithm, AllDown, BackendAddress, BackendName, BackendSpec, CheckKind, ClusterId, Command,
    Document, ExchangeCheck, ExchangeStep, Expected, FoundingIdentities, HealthCheck, HostPort, HttpCheck,
    InterfaceName, KeyPin, ListenAddress, ListenerName, ListenerSpec, Machine, MemberId, MemberName,
    MemberSockets, MemberSpec, NamePattern, OnQuorumLoss, Operation, Origin, PoolName, PoolSpec, Port,
    Proposal, Request, RequestId, Role, Route, SendProxy, Tenure, TlsCheck, TransportSecurity, UserKey,
    UserName, UserSpec, VipAddress, VipName, VipSpec,
};

/// Bytes that logs out there hold. They must decode for ever; a line changes only together with the storage format.
const LOG: &str = "log.txt";
/// What a member has that has applied this log, as its snapshot holds it.
const SNAPSHOT: &str = "snapshot.txt";
/// The log of a cluster with an authority and users, and what a member has that has applied it.
const IDENTITIES: &str = "identities.txt";

fn golden(file: &str) -> String {
    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn pool() -> PoolName {
    PoolName::parse("web").unwrap()
}

fn backend(name: &str) -> BackendName {
    BackendName::parse(name).unwrap()
}

fn listener() -> ListenerName {
    ListenerName::parse("https").unwrap()
}

fn vip() -> VipName {
    VipName::parse("front").unwrap()
}

fn member(name: &str, host: u8) -> MemberSpec {
    MemberSpec {
        name: MemberName::parse(name).unwrap(),
        peer_address: HostPort::parse(&format!("10.0.0.{host}:7481")).unwrap(),
        admin_address: HostPort::parse(&format!("{name}.example:7480")).unwrap(),
        feature_level_max: 1,
    }
}

fn pool_spec() -> PoolSpec {
    let seconds = Duration::from_secs;
    let mut spec = PoolSpec {
        algorithm: Algorithm::LeastConnections,
        connect_timeout: Duration::from_millis(1500),
        connect_retries: 2,
        all_down: AllDown::FailOpen,
        minimum_healthy: 2,
        queue_length: 50,
        queue_timeout: seconds(3),
        slow_start: seconds(20),
        stickiness: seconds(60),
        idle_timeout: seconds(3600),
        max_lifetime: seconds(86_400),
        close_spread_percent: 20,
        dead_peer_timeout: seconds(90),
        send_proxy: SendProxy::V2,
        health: HealthCheck {
            kind: CheckKind::Http(HttpCheck {
                tls: Some(TlsCheck { server_name: Some("web.example".into()), ..TlsCheck::default() }),
                headers: vec![("Accept".into(), "*/*".into())],
                body_contains: Some("ok".into()),
                ..HttpCheck::default()
            }),
            interval: seconds(3),
            fast_interval: Duration::from_millis(250),
            timeout: Duration::from_millis(900),
            rise: 4,
            fall: 5,
            jitter_percent: 6,
            port: Port::new(8080),
            ..HealthCheck::default()
        },
        ..PoolSpec::default()
    };
    spec.metadata.owner = "team web".into();
    spec.metadata.annotations.insert("example.com/ticket".into(), "OPS-12".into());
    spec
}

fn exchanging() -> PoolSpec {
    let step = ExchangeStep { send: (*b"QUIT\r\n").into(), expect: (*b"221").into() };
    let check = ExchangeCheck { expect: (*b"220").into(), then: vec![step], ..ExchangeCheck::default() };
    let health = HealthCheck { kind: CheckKind::Exchange(check), ..HealthCheck::default() };
    PoolSpec { health, ..PoolSpec::default() }
}

fn at(address: &str) -> BackendSpec {
    BackendSpec::at(BackendAddress::parse(address).unwrap())
}

fn listener_spec() -> ListenerSpec {
    let binds = ["vip:front:443", "[::]:8443-8450"].map(|bind| ListenAddress::parse(bind).unwrap());
    let route = Route {
        server_names: vec![NamePattern::parse("*.example.com").unwrap()],
        alpn: vec!["h2".into()],
        pool: pool(),
    };
    ListenerSpec { routes: vec![route], max_connections: 1000, ..ListenerSpec::new(binds.to_vec(), pool()) }
}

fn vip_spec() -> VipSpec {
    VipSpec {
        interface: Some(InterfaceName::parse("eth0").unwrap()),
        interface_overrides: [(MemberName::parse("m2").unwrap(), InterfaceName::parse("bond0").unwrap())]
            .into(),
        on_quorum_loss: OnQuorumLoss::Hold,
        preferred: vec![MemberName::parse("m1").unwrap()],
        ..VipSpec::new(VipAddress::parse("10.0.3.100/24").unwrap())
    }
}

/// A cluster and what it serves: every kind of document.
fn members_and_batches() -> Vec<(&'static str, Command)> {
    let cluster_id = ClusterId::parse("0123456789abcdef0123456789abcdef").unwrap();
    let service: [Document; 6] = [
        (vip(), vip_spec()).into(),
        (pool(), pool_spec()).into(),
        (pool(), backend("a"), BackendSpec { weight: 256, backup: true, ..at("[2001:db8::1]:443") }).into(),
        (pool(), backend("b"), at("web.example")).into(),
        (pool(), backend("b"), AdminState::Draining { timeout: Some(Duration::from_secs(30)) }).into(),
        (listener(), listener_spec()).into(),
    ];
    let switch = Operation::put((pool(), backend("a"), AdminState::Disabled));
    let expecting = Operation::Put {
        document: (pool(), backend("b"), BackendSpec { max_connections: 7, ..at("web.example") }).into(),
        expected: Expected::Revision(5),
    };
    let deletes = [
        Operation::Delete { resource: (pool(), backend("a")).into(), expected: Some(6) },
        Operation::put((PoolName::parse("mail").unwrap(), exchanging())),
    ];
    vec![
        ("found-cluster", Command::FoundCluster { cluster_id, member: member("m1", 1), identities: None }),
        ("add-member", Command::AddMember(member("m2", 2))),
        ("add-another", Command::AddMember(member("m3", 3))),
        ("raise-level", Command::RaiseLevel { level: 1 }),
        ("create-service", Command::Batch(service.map(Operation::create).into())),
        ("switch", Command::Batch([switch].into())),
        ("put-expecting", Command::Batch([expecting].into())),
        ("delete-and-put", Command::Batch(deletes.into())),
    ]
}

/// What is no resource.
fn records() -> Vec<(&'static str, Command)> {
    let address = |port| format!("10.0.0.2:{port}").parse().unwrap();
    let sockets = MemberSockets {
        admin: address(7480),
        peer: address(7481),
        http: address(7482),
        data_address: Some([10, 0, 0, 2].into()),
        network: 9,
    };
    let (id, reason) = (MemberId(1), Arc::from("it was elected"));
    let tenure = Tenure { member: id, term: 3, reach: Duration::from_millis(292), released: false };
    let name = MemberName::parse("m2").unwrap();
    let timeout = Some(Duration::from_secs(60));
    vec![
        ("remove-member", Command::RemoveMember(MemberId(3))),
        (
            "note-start",
            Command::NoteStart {
                member: MemberId(2),
                start: 70,
                replaces: 0,
                sockets: Some(sockets.into()),
                feature_level_max: 1,
            },
        ),
        ("drain-member", Command::DrainMember { name, draining: true, timeout }),
        ("take-vips", Command::TakeVips { tenure, time_ms: 1_700_000_000_000, reason }),
        (
            "release-vips",
            Command::ReleaseVips {
                member: id,
                term: 3,
                time_ms: 1_700_000_000_250,
                reason: "asked to".into(),
            },
        ),
        (
            "update-member",
            Command::UpdateMember {
                id,
                peer_address: None,
                admin_address: HostPort::parse("10.0.0.1:7480").ok(),
            },
        ),
        ("stage-piece", Command::StagePiece { upload: 7, number: 0, bytes: [1, 2, 3].into() }),
        ("recover", Command::Recover { member: id, recovery: 1, draw: 99 }),
    ]
}

fn log() -> Vec<(String, Proposal)> {
    let origin = Origin {
        time_ms: 1_700_000_000_250,
        member: Some(MemberId(2)),
        client: Some([10, 0, 0, 5].into()),
        actor: None,
    };
    let mut log: Vec<_> = members_and_batches()
        .into_iter()
        .chain(records())
        .map(|(name, command)| {
            (name.to_owned(), Proposal { origin: Some(origin.clone()), request: None, command })
        })
        .collect();
    // One that named itself.
    log[4].1.request =
        Some(Request { id: RequestId::parse("request-1").unwrap(), fingerprint: 0x0123_4567_89ab_cdef });
    log
}

/// The machine that has applied the log.
fn replayed(log: &[(String, Proposal)]) -> Machine {
    let mut machine = Machine::default();
    for (index, (name, proposal)) in (1..).zip(log) {
        machine.apply(index, proposal).unwrap_or_else(|refused| panic!("{name}: {refused}"));
    }
    machine
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

fn stored_log() -> Vec<(String, Proposal)> {
    let entry = |line: &str| {
        let (name, bytes) = line.split_once(' ').unwrap();
        let message = storage::Proposal::decode(&unhex(bytes)[..]).unwrap();
        (name.to_owned(), Proposal::try_from(message).unwrap())
    };
    golden(LOG).lines().map(entry).collect()
}

#[test]
fn the_log_is_written_and_read_as_ever() {
    let line = |(name, proposal): &(String, Proposal)| {
        format!("{name} {}\n", hex(&storage::Proposal::from(proposal).encode_to_vec()))
    };
    let written: String = log().iter().map(line).collect();
    assert!(written == golden(LOG), "the encoding of stored proposals changed; it is now:\n{written}");
    assert_eq!(stored_log(), log());
}

#[test]
fn a_snapshot_is_what_the_log_makes_as_ever() {
    let machine = replayed(&stored_log());
    let written = hex(&storage::Machine::from(&machine).encode_to_vec());
    let digests = format!("{}\n{}\n", state_digest(&machine.state), machine_digest(&machine));
    let now = format!("{written}\n{digests}");
    assert!(
        now == golden(SNAPSHOT),
        "what the log makes, or its encoding or digests, changed; it is now:\n{now}"
    );
    let bytes = unhex(golden(SNAPSHOT).lines().next().unwrap());
    let restored = Machine::try_from(storage::Machine::decode(&bytes[..]).unwrap()).unwrap();
    assert_eq!(restored, machine);
}

fn user_key(pin: u8, not_after: u64) -> UserKey {
    UserKey { pin: KeyPin([pin; 32]), not_after, not_before: 0, authority: 0 }
}

/// A cluster with an authority and users.
fn identities() -> Vec<Proposal> {
    let cluster_id = ClusterId::parse("0123456789abcdef0123456789abcdef").unwrap();
    let founder = MemberSpec { feature_level_max: 2, ..member("m1", 1) };
    let user = |name: &str, role, pin| UserSpec {
        name: UserName::parse(name).unwrap(),
        role,
        keys: vec![user_key(pin, 1_800_000_000)],
    };
    let put = |user, expected| Command::PutUser { user, expected };
    let mut two_keys = user("alice", Role::Admin, 7);
    two_keys.keys.push(user_key(8, 1_900_000_000));
    let founding = FoundingIdentities {
        authority: [0x30, 0].into(),
        external: false,
        founder_key: Some(KeyPin([5; 32])),
        transport: TransportSecurity::Require,
        token: None,
    };
    let commands = [
        Command::FoundCluster { cluster_id, member: founder, identities: Some(founding) },
        put(user("alice", Role::Viewer, 7), Expected::Absent),
        put(user("bob", Role::Operator, 9), Expected::Any),
        put(two_keys, Expected::Revision(2)),
        Command::DeleteUser { name: UserName::parse("bob").unwrap(), expected: Some(3) },
        Command::PinMemberKey { id: MemberId(1), key: KeyPin([6; 32]) },
        Command::SetTransport(TransportSecurity::Accept),
    ];
    commands.map(|command| Proposal { request: None, origin: None, command }).into()
}

#[test]
fn identities_are_written_and_read_as_ever() {
    let log = identities();
    let named: Vec<_> = log.iter().map(|proposal| ("identities".to_owned(), proposal.clone())).collect();
    let machine = storage::Machine::from(&replayed(&named)).encode_to_vec();
    let messages = log.iter().map(|proposal| storage::Proposal::from(proposal).encode_to_vec());
    let written: String = messages.chain([machine]).map(|bytes| format!("{}\n", hex(&bytes))).collect();
    let golden = golden(IDENTITIES);
    assert!(written == golden, "the encoding of identities changed; it is now:\n{written}");
    let mut lines: Vec<_> = golden.lines().map(unhex).collect();
    let machine = lines.pop().unwrap();
    let read = |bytes: Vec<u8>| Proposal::try_from(storage::Proposal::decode(&bytes[..]).unwrap()).unwrap();
    assert_eq!(lines.into_iter().map(read).collect::<Vec<_>>(), log);
    let restored = Machine::try_from(storage::Machine::decode(&machine[..]).unwrap()).unwrap();
    assert_eq!(restored, replayed(&named));
    assert_eq!((restored.state.users.len(), restored.state.authorities.len()), (1, 1));
}
