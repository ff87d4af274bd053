use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use trestle_model::{
    AdminState, Algorithm, AllDown, Backend, BackendAddress, BackendName, BackendPatch, BackendSpec, Bind,
    CheckKind, ClusterId, Command, HealthCheck, HealthPatch, HostPort, HttpCheck, Listener, ListenerName,
    ListenerPatch, ListenerSpec, Member, MemberId, MemberName, MemberSpec, Method, OnDown, Outcome, Pool,
    PoolName, PoolPatch, PoolSpec, Port, Proposal, Request, RequestId, StatusRange, TlsCheck,
};

const NAME: &str = "[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?";

fn pool_name() -> impl Strategy<Value = PoolName> {
    NAME.prop_map(|name| PoolName::parse(&name).unwrap())
}

fn backend_name() -> impl Strategy<Value = BackendName> {
    NAME.prop_map(|name| BackendName::parse(&name).unwrap())
}

fn listener_name() -> impl Strategy<Value = ListenerName> {
    NAME.prop_map(|name| ListenerName::parse(&name).unwrap())
}

fn port() -> impl Strategy<Value = Port> {
    any::<Port>()
}

fn backend_address() -> impl Strategy<Value = BackendAddress> {
    (any::<IpAddr>(), of(port())).prop_filter_map("not an address to dial", |(ip, port)| {
        BackendAddress::parse(&BackendAddress { ip, port }.to_string()).ok()
    })
}

fn bind() -> impl Strategy<Value = Bind> {
    (any::<IpAddr>(), port()).prop_filter_map("not an address to bind", |(ip, port)| {
        Bind::parse(&Bind { ip, port }.to_string()).ok()
    })
}

fn host_port() -> impl Strategy<Value = HostPort> {
    let named =
        ("[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\\.[a-z]{1,9}){0,3}", port()).prop_map(|(h, p)| format!("{h}:{p}"));
    let numbered = any::<std::net::SocketAddrV6>().prop_map(|a| format!("[{}]:{}", a.ip(), a.port().max(1)));
    prop_oneof![named, numbered].prop_map(|text| HostPort::parse(&text).unwrap())
}

fn member_spec() -> impl Strategy<Value = MemberSpec> {
    (NAME, host_port(), host_port()).prop_map(|(name, peer_address, admin_address)| MemberSpec {
        name: MemberName::parse(&name).unwrap(),
        peer_address,
        admin_address,
    })
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    prop_oneof![
        Just(Algorithm::RoundRobin),
        Just(Algorithm::LeastConnections),
        Just(Algorithm::RandomTwo),
        Just(Algorithm::SourceHash),
        Just(Algorithm::First)
    ]
}

fn text() -> impl Strategy<Value = Arc<str>> {
    ".{1,20}".prop_map(|text| text.into())
}

fn tls_check() -> impl Strategy<Value = TlsCheck> {
    (of(text()), of(text()), any::<u32>()).prop_map(|(server_name, ca, min_days_left)| TlsCheck {
        server_name,
        ca,
        min_days_left,
    })
}

fn http_check() -> impl Strategy<Value = HttpCheck> {
    let method = prop_oneof![Just(Method::Get), Just(Method::Head), Just(Method::Options)];
    let range = (100..=599_u16, 100..=599_u16)
        .prop_map(|(a, b)| StatusRange::parse(&format!("{}-{}", a.min(b), a.max(b))).unwrap());
    let request = (method, text(), of(text()), vec((text(), text()), 0..3));
    (of(tls_check()), request, vec(range, 1..4), of(text())).prop_map(
        |(tls, request, expect, body_contains)| {
            let (method, path, host, headers) = request;
            HttpCheck { tls, method, path, host, headers, expect, body_contains }
        },
    )
}

/// On the heap, as the larger strategies below: values on their way through all of them fill a test thread's stack.
fn kind() -> BoxedStrategy<CheckKind> {
    prop_oneof![
        Just(CheckKind::None),
        Just(CheckKind::Tcp),
        tls_check().prop_map(CheckKind::Tls),
        http_check().prop_map(CheckKind::Http)
    ]
    .boxed()
}

fn on_down() -> impl Strategy<Value = OnDown> {
    prop_oneof![Just(OnDown::Close), Just(OnDown::Keep)]
}

fn all_down() -> impl Strategy<Value = AllDown> {
    prop_oneof![Just(AllDown::Refuse), Just(AllDown::FailOpen)]
}

/// Also times that the model refuses when a command is applied: the log carries them nevertheless.
fn time() -> impl Strategy<Value = Duration> {
    (0..1_000_000_000_u64, 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn health() -> BoxedStrategy<HealthCheck> {
    let times = (time(), time(), time());
    (kind(), times, any::<(u32, u32, u32)>(), of(port()))
        .prop_map(|(kind, times, counts, port)| HealthCheck {
            kind,
            interval: times.0,
            fast_interval: times.1,
            timeout: times.2,
            rise: counts.0,
            fall: counts.1,
            jitter_percent: counts.2,
            port,
        })
        .boxed()
}

fn pool_spec() -> BoxedStrategy<PoolSpec> {
    (algorithm(), health(), time(), any::<u32>(), on_down(), all_down())
        .prop_map(|(algorithm, health, connect_timeout, connect_retries, on_down, all_down)| PoolSpec {
            algorithm,
            health,
            connect_timeout,
            connect_retries,
            on_down,
            all_down,
        })
        .boxed()
}

fn health_patch() -> BoxedStrategy<HealthPatch> {
    let times = (of(time()), of(time()), of(time()));
    let counts = any::<(Option<u32>, Option<u32>, Option<u32>)>();
    (of(kind()), times, counts, of(of(port())))
        .prop_map(|(kind, times, counts, port)| HealthPatch {
            kind,
            interval: times.0,
            fast_interval: times.1,
            timeout: times.2,
            rise: counts.0,
            fall: counts.1,
            jitter_percent: counts.2,
            port,
        })
        .boxed()
}

fn pool_patch() -> BoxedStrategy<PoolPatch> {
    (of(algorithm()), of(time()), any::<Option<u32>>(), health_patch(), of(on_down()), of(all_down()))
        .prop_map(|(algorithm, connect_timeout, connect_retries, health, on_down, all_down)| PoolPatch {
            algorithm,
            connect_timeout,
            connect_retries,
            on_down,
            all_down,
            health,
        })
        .boxed()
}

fn admin_state() -> impl Strategy<Value = AdminState> {
    prop_oneof![
        Just(AdminState::Enabled),
        of(time()).prop_map(|timeout| AdminState::Draining { timeout }),
        Just(AdminState::Disabled)
    ]
}

fn backend_spec() -> impl Strategy<Value = BackendSpec> {
    (backend_address(), any::<u16>(), any::<bool>(), admin_state()).prop_map(
        |(address, weight, backup, admin_state)| BackendSpec { address, weight, backup, admin_state },
    )
}

fn backend_patch() -> impl Strategy<Value = BackendPatch> {
    (of(backend_address()), any::<Option<u16>>(), any::<Option<bool>>(), of(admin_state())).prop_map(
        |(address, weight, backup, admin_state)| BackendPatch { address, weight, backup, admin_state },
    )
}

fn listener_spec() -> impl Strategy<Value = ListenerSpec> {
    (vec(bind(), 0..4), pool_name()).prop_map(|(binds, pool)| ListenerSpec { binds, pool })
}

fn listener_patch() -> impl Strategy<Value = ListenerPatch> {
    (of(vec(bind(), 0..4)), of(pool_name())).prop_map(|(binds, pool)| ListenerPatch { binds, pool })
}

fn founding_and_members() -> impl Strategy<Value = Command> {
    let found = ("[0-9a-f]{32}", member_spec()).prop_map(|(id, member)| Command::FoundCluster {
        cluster_id: ClusterId::parse(&id).unwrap(),
        member,
    });
    prop_oneof![
        found,
        member_spec().prop_map(Command::AddMember),
        any::<u64>().prop_map(|id| Command::RemoveMember(MemberId(id))),
    ]
}

pub(crate) fn command() -> impl Strategy<Value = Command> {
    let expect = any::<Option<u64>>;
    prop_oneof![
        founding_and_members(),
        (pool_name(), pool_spec()).prop_map(|(name, spec)| Command::CreatePool { name, spec }),
        (pool_name(), pool_patch(), expect()).prop_map(|(name, patch, expect)| Command::UpdatePool {
            name,
            patch,
            expect
        }),
        (pool_name(), expect()).prop_map(|(name, expect)| Command::DeletePool { name, expect }),
        (pool_name(), backend_name(), backend_spec()).prop_map(|(pool, name, spec)| Command::CreateBackend {
            pool,
            name,
            spec
        }),
        (pool_name(), backend_name(), backend_patch(), expect())
            .prop_map(|(pool, name, patch, expect)| Command::UpdateBackend { pool, name, patch, expect }),
        (pool_name(), backend_name(), expect()).prop_map(|(pool, name, expect)| Command::DeleteBackend {
            pool,
            name,
            expect
        }),
        (listener_name(), listener_spec()).prop_map(|(name, spec)| Command::CreateListener { name, spec }),
        (listener_name(), listener_patch(), expect())
            .prop_map(|(name, patch, expect)| Command::UpdateListener { name, patch, expect }),
        (listener_name(), expect()).prop_map(|(name, expect)| Command::DeleteListener { name, expect }),
    ]
}

pub(crate) fn proposal() -> impl Strategy<Value = Proposal> {
    let request = ("[!-~]{1,64}", any::<u64>())
        .prop_map(|(id, fingerprint)| Request { id: RequestId::parse(&id).unwrap(), fingerprint });
    (of(request), command()).prop_map(|(request, command)| Proposal { request, command })
}

/// Commands that find what they name more often than not, and are in bounds.
pub(crate) fn fitting() -> impl Strategy<Value = Command> {
    let pool = || "[ab]".prop_map(|name| PoolName::parse(&name).unwrap());
    let backend = || "[ab]".prop_map(|name| BackendName::parse(&name).unwrap());
    let listener = || "[ab]".prop_map(|name| ListenerName::parse(&name).unwrap());
    let spec = |algorithm| PoolSpec { algorithm, ..PoolSpec::default() };
    let backend_spec = || {
        (backend_address(), port(), any::<bool>()).prop_map(|(address, port, backup)| {
            let address = BackendAddress { port: Some(port), ..address };
            BackendSpec { backup, ..BackendSpec::at(address) }
        })
    };
    let listener_spec = (bind(), pool()).prop_map(|(bind, pool)| ListenerSpec { binds: vec![bind], pool });
    prop_oneof![
        member_spec().prop_map(Command::AddMember),
        (pool(), algorithm())
            .prop_map(move |(name, algorithm)| Command::CreatePool { name, spec: spec(algorithm) }),
        (pool(), backend(), backend_spec()).prop_map(|(pool, name, spec)| Command::CreateBackend {
            pool,
            name,
            spec
        }),
        (pool(), backend()).prop_map(|(pool, name)| Command::DeleteBackend { pool, name, expect: None }),
        (listener(), listener_spec).prop_map(|(name, spec)| Command::CreateListener { name, spec }),
    ]
}

pub(crate) fn outcome() -> impl Strategy<Value = Outcome> {
    let member = || {
        (any::<u64>(), member_spec(), any::<u64>())
            .prop_map(|(id, spec, revision)| Arc::new(Member { id: MemberId(id), spec, revision }))
    };
    let pool =
        (pool_name(), pool_spec(), any::<u64>(), any::<u32>()).prop_map(|(name, spec, revision, count)| {
            Outcome::Pool(Arc::new(Pool { name, spec, revision }), count as usize)
        });
    let backend = (pool_name(), backend_name(), backend_spec(), any::<u64>()).prop_map(
        |(pool, name, spec, revision)| Outcome::Backend(pool, Arc::new(Backend { name, spec, revision })),
    );
    let listener = (listener_name(), listener_spec(), any::<u64>())
        .prop_map(|(name, spec, revision)| Outcome::Listener(Arc::new(Listener { name, spec, revision })));
    prop_oneof![
        member().prop_map(Outcome::Founded),
        member().prop_map(Outcome::Member),
        pool,
        backend,
        listener,
        Just(Outcome::Deleted)
    ]
}
