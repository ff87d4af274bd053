use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use trestle_model::defaults::{DURATION_MAX, NUMBER_MAX};
use trestle_model::{
    AdminState, Algorithm, AllDown, Backend, BackendAddress, BackendName, BackendPatch, BackendSpec, Bind,
    CheckKind, Cidr, ClientIdentity, ClusterId, Command, Configuration, ExchangeCheck, ExchangeStep,
    GrpcCheck, HealthCheck, HealthPatch, HostPort, HttpCheck, InitialState, Listener, ListenerName,
    ListenerPatch, ListenerSpec, Member, MemberId, MemberName, MemberSockets, MemberSpec, Method,
    NamePattern, OnDown, OnPrimaryUp, Origin, Outcome, Pool, PoolName, PoolPatch, PoolSpec, Port, Proposal,
    Request, RequestId, Restored, Route, SendProxy, StatusRange, TlsCheck, Violations,
};

use crate::vips;

pub(crate) const NAME: &str = "[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?";

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

fn dns_name() -> impl Strategy<Value = String> {
    "[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\\.[a-z]{1,9}){0,3}"
}

fn backend_address() -> impl Strategy<Value = BackendAddress> {
    let host = prop_oneof![
        any::<std::net::Ipv4Addr>().prop_map(|ip| ip.to_string()),
        any::<std::net::Ipv6Addr>().prop_map(|ip| format!("[{ip}]")),
        dns_name(),
    ];
    (host, of(port())).prop_filter_map("not an address to dial", |(host, port)| {
        BackendAddress::parse(&port.map_or(host.clone(), |port| format!("{host}:{port}"))).ok()
    })
}

fn bind() -> impl Strategy<Value = Bind> {
    (any::<IpAddr>(), port(), port()).prop_filter_map("not an address to bind", |(ip, one, other)| {
        Bind::parse(&Bind { ip, first: one.min(other), last: one.max(other) }.to_string()).ok()
    })
}

fn host_port() -> impl Strategy<Value = HostPort> {
    let named = (dns_name(), port()).prop_map(|(h, p)| format!("{h}:{p}"));
    let numbered = any::<std::net::SocketAddrV6>().prop_map(|a| format!("[{}]:{}", a.ip(), a.port().max(1)));
    prop_oneof![named, numbered].prop_map(|text| HostPort::parse(&text).unwrap())
}

pub(crate) fn member_name() -> impl Strategy<Value = MemberName> {
    NAME.prop_map(|name| MemberName::parse(&name).unwrap())
}

fn member_spec() -> impl Strategy<Value = MemberSpec> {
    (member_name(), host_port(), host_port()).prop_map(|(name, peer_address, admin_address)| MemberSpec {
        name,
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
        Just(Algorithm::SourcePortHash),
        Just(Algorithm::First)
    ]
}

fn text() -> impl Strategy<Value = Arc<str>> {
    ".{1,20}".prop_map(|text| text.into())
}

fn tls_check() -> impl Strategy<Value = TlsCheck> {
    let identity = (text(), text())
        .prop_map(|(certificate_file, key_file)| ClientIdentity { certificate_file, key_file });
    (of(text()), of(text()), any::<u32>(), of(identity)).prop_map(
        |(server_name, ca, min_days_left, identity)| TlsCheck { server_name, ca, min_days_left, identity },
    )
}

fn http_check() -> impl Strategy<Value = HttpCheck> {
    let method = prop_oneof![Just(Method::Get), Just(Method::Head), Just(Method::Options)];
    let range = (100..=599_u16, 100..=599_u16)
        .prop_map(|(a, b)| StatusRange::parse(&format!("{}-{}", a.min(b), a.max(b))).unwrap());
    let request = (method, text(), of(text()), of(text()), vec((text(), text()), 0..3));
    (of(tls_check()), request, vec(range, 1..4), of(text())).prop_map(
        |(tls, request, expect, body_contains)| {
            let (method, path, host, token_file, headers) = request;
            HttpCheck { tls, method, path, host, token_file, headers, expect, body_contains }
        },
    )
}

fn exchange_step() -> impl Strategy<Value = ExchangeStep> {
    (vec(any::<u8>(), 0..9), vec(any::<u8>(), 0..9))
        .prop_map(|(send, expect)| ExchangeStep { send: send.into(), expect: expect.into() })
}

/// On the heap, as the larger strategies below: values on their way through all of them fill a test thread's stack.
fn kind() -> BoxedStrategy<CheckKind> {
    prop_oneof![
        Just(CheckKind::None),
        Just(CheckKind::Tcp),
        tls_check().prop_map(CheckKind::Tls),
        http_check().prop_map(CheckKind::Http),
        (of(tls_check()), of(text()), of(text()))
            .prop_map(|(tls, authority, service)| CheckKind::Grpc(GrpcCheck { tls, authority, service })),
        (of(tls_check()), exchange_step(), vec(exchange_step(), 0..3)).prop_map(|(tls, first, then)| {
            let ExchangeStep { send, expect } = first;
            CheckKind::Exchange(ExchangeCheck { tls, send, expect, then })
        }),
    ]
    .boxed()
}

fn on_primary_up() -> impl Strategy<Value = OnPrimaryUp> {
    prop_oneof![Just(OnPrimaryUp::Keep), Just(OnPrimaryUp::Close)]
}

fn on_down() -> impl Strategy<Value = OnDown> {
    prop_oneof![Just(OnDown::Close), Just(OnDown::Keep)]
}

fn all_down() -> impl Strategy<Value = AllDown> {
    prop_oneof![Just(AllDown::Refuse), Just(AllDown::FailOpen)]
}

fn send_proxy() -> impl Strategy<Value = SendProxy> {
    prop_oneof![Just(SendProxy::Off), Just(SendProxy::V1), Just(SendProxy::V2)]
}

fn initial_state() -> impl Strategy<Value = InitialState> {
    prop_oneof![Just(InitialState::Unknown), Just(InitialState::Healthy), Just(InitialState::Unhealthy)]
}

/// Also times that the model refuses when a command is applied: the log carries them nevertheless.
/// A term, log index, revision or id.
pub(crate) fn number() -> impl Strategy<Value = u64> {
    0..=NUMBER_MAX
}

pub(super) fn time() -> impl Strategy<Value = Duration> {
    (0..DURATION_MAX.as_secs(), 0..1_000_000_000_u32)
        .prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

/// Settings are a change in which everything is set.
fn health_patch() -> BoxedStrategy<HealthPatch> {
    let times = (of(time()), of(time()), of(time()));
    let counts = any::<(Option<u32>, Option<u32>, Option<u32>)>();
    (of(kind()), times, counts, of(of(port())), of(initial_state()))
        .prop_map(|(kind, times, counts, port, initial_state)| HealthPatch {
            kind,
            interval: times.0,
            fast_interval: times.1,
            timeout: times.2,
            rise: counts.0,
            fall: counts.1,
            jitter_percent: counts.2,
            port,
            initial_state,
        })
        .boxed()
}

fn pool_patch() -> BoxedStrategy<PoolPatch> {
    let choices = (of(algorithm()), of(on_down()), of(all_down()), of(send_proxy()), of(on_primary_up()));
    let times = (of(time()), of(time()), of(time()), of(time()), of(time()), of(time()));
    (choices, times, any::<(Option<u32>, Option<u32>, Option<u32>, Option<u32>)>(), health_patch())
        .prop_map(|(choices, times, counts, health)| PoolPatch {
            algorithm: choices.0,
            on_down: choices.1,
            all_down: choices.2,
            send_proxy: choices.3,
            on_primary_up: choices.4,
            connect_timeout: times.0,
            queue_timeout: times.1,
            slow_start: times.2,
            stickiness: times.3,
            idle_timeout: times.4,
            max_lifetime: times.5,
            dead_peer_timeout: times.0,
            connect_retries: counts.0,
            minimum_healthy: counts.1,
            queue_length: counts.2,
            close_spread_percent: counts.3,
            health,
        })
        .boxed()
}

fn pool_spec() -> BoxedStrategy<PoolSpec> {
    let kind = kind().prop_map(|kind| HealthCheck { kind, ..HealthCheck::default() });
    (kind, pool_patch())
        .prop_map(|(health, patch)| PoolSpec { health, ..PoolSpec::default() }.patched(&patch))
        .boxed()
}

fn admin_state() -> impl Strategy<Value = AdminState> {
    prop_oneof![
        Just(AdminState::Enabled),
        of(time()).prop_map(|timeout| AdminState::Draining { timeout }),
        Just(AdminState::Disabled)
    ]
}

fn backend_spec() -> BoxedStrategy<BackendSpec> {
    (backend_address(), backend_patch())
        .prop_map(|(address, patch)| BackendSpec::at(address).patched(&patch))
        .boxed()
}

fn backend_patch() -> BoxedStrategy<BackendPatch> {
    let numbers = any::<(Option<u16>, Option<u32>)>();
    (of(backend_address()), numbers, any::<Option<bool>>(), of(admin_state()))
        .prop_map(|(address, (weight, max_connections), backup, admin_state)| BackendPatch {
            address,
            weight,
            backup,
            max_connections,
            admin_state,
        })
        .boxed()
}

fn route() -> impl Strategy<Value = Route> {
    let name =
        ("(\\*\\.)?", dns_name()).prop_map(|(star, name)| NamePattern::parse(&(star + &name)).unwrap());
    (vec(name, 0..3), vec(text(), 0..3), pool_name()).prop_map(|(server_names, alpn, pool)| Route {
        server_names,
        alpn,
        pool,
    })
}

fn networks() -> impl Strategy<Value = Vec<Cidr>> {
    const NETWORKS: &[&str] = &["0.0.0.0/0", "10.0.0.0/8", "192.0.2.7/32", "::/0", "2001:db8::/32"];
    vec(proptest::sample::select(NETWORKS).prop_map(|text| Cidr::parse(text).unwrap()), 0..3)
}

fn listener_spec() -> BoxedStrategy<ListenerSpec> {
    (vec(bind(), 0..4), pool_name(), listener_patch())
        .prop_map(|(binds, pool, patch)| ListenerSpec::new(binds, pool).patched(&patch))
        .boxed()
}

fn listener_patch() -> BoxedStrategy<ListenerPatch> {
    let lists = (of(networks()), of(networks()), of(networks()));
    let numbers = any::<(Option<u32>, Option<u32>, Option<u32>, Option<u32>)>();
    (of(vec(bind(), 0..4)), of(pool_name()), of(vec(route(), 0..3)), lists, numbers)
        .prop_map(|(binds, pool, routes, lists, numbers)| ListenerPatch {
            binds,
            pool,
            routes,
            accept_proxy_from: lists.0,
            allow: lists.1,
            deny: lists.2,
            max_connections: numbers.0,
            max_connections_per_source: numbers.1,
            accept_rate: numbers.2,
            accept_rate_per_source: numbers.3,
        })
        .boxed()
}

fn member_sockets() -> impl Strategy<Value = MemberSockets> {
    let socket = || (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from);
    (socket(), socket(), socket(), of(any::<IpAddr>()), any::<u64>()).prop_map(
        |(admin, peer, http, data_address, network)| MemberSockets {
            admin,
            peer,
            http,
            data_address,
            network,
        },
    )
}

fn founding_and_members() -> impl Strategy<Value = Command> {
    let found = ("[0-9a-f]{32}", member_spec()).prop_map(|(id, member)| Command::FoundCluster {
        cluster_id: ClusterId::parse(&id).unwrap(),
        member,
    });
    prop_oneof![
        found,
        member_spec().prop_map(Command::AddMember),
        number().prop_map(|id| Command::RemoveMember(MemberId(id))),
        (0..1u64 << 32, of(member_spec()), of(member_spec())).prop_map(|(id, peer, admin)| {
            Command::UpdateMember {
                id: MemberId(id),
                peer_address: peer.map(|spec| spec.peer_address),
                admin_address: admin.map(|spec| spec.admin_address),
            }
        }),
        (0..1u64 << 32, any::<u64>(), any::<u64>(), of(member_sockets())).prop_map(
            |(member, start, replaces, sockets)| {
                let sockets = sockets.map(Arc::new);
                Command::NoteStart { member: MemberId(member), start, replaces, sockets }
            },
        ),
    ]
}

fn configuration() -> impl Strategy<Value = Configuration> {
    let pools = vec((pool_name(), pool_spec()), 0..3);
    let backends = vec((pool_name(), backend_name(), backend_spec()), 0..3);
    let listeners = vec((listener_name(), listener_spec()), 0..3);
    (pools, backends, listeners).prop_map(|(pools, backends, listeners)| Configuration {
        pools,
        backends,
        listeners,
        vips: Vec::new(),
    })
}

fn whole() -> impl Strategy<Value = Command> {
    prop_oneof![
        (configuration(), any::<bool>()).prop_map(|(configuration, replace)| Command::Restore {
            configuration: Arc::new(configuration),
            replace
        }),
        (any::<u64>(), 0..3_u32, any::<[u8; 9]>()).prop_map(|(upload, number, bytes)| {
            Command::StagePiece { upload, number, bytes: Arc::new(bytes) }
        }),
        (any::<u64>(), any::<u32>()).prop_map(|(upload, pieces)| Command::ApplyStaged { upload, pieces }),
        (number(), number(), any::<u64>()).prop_map(|(id, recovery, draw)| Command::Recover {
            member: MemberId(id),
            recovery,
            draw
        }),
    ]
}

pub(crate) fn command() -> BoxedStrategy<Command> {
    let expect = any::<Option<u64>>;
    prop_oneof![
        founding_and_members(),
        whole(),
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
        vips::command(),
    ]
    .boxed()
}

fn origin() -> impl Strategy<Value = Origin> {
    (any::<u64>(), of(1..u64::MAX), of(any::<IpAddr>())).prop_map(|(time_ms, member, client)| Origin {
        time_ms,
        member: member.map(MemberId),
        client,
    })
}

pub(crate) fn proposal() -> BoxedStrategy<Proposal> {
    let request = ("[!-~]{1,64}", any::<u64>())
        .prop_map(|(id, fingerprint)| Request { id: RequestId::parse(&id).unwrap(), fingerprint });
    (of(request), of(origin()), command())
        .prop_map(|(request, origin, command)| Proposal { request, origin, command })
        .boxed()
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
    let listener_spec = (bind(), pool()).prop_map(|(bind, pool)| ListenerSpec::new(vec![bind], pool));
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
        vips::fitting(),
        vips::holding(),
    ]
}

pub(crate) fn outcome() -> BoxedStrategy<Outcome> {
    let member = || {
        (number(), member_spec(), any::<bool>(), of(time()), number()).prop_map(
            |(id, spec, draining, drain_timeout, revision)| {
                Arc::new(Member { id: MemberId(id), spec, draining, drain_timeout, revision })
            },
        )
    };
    let pool = (pool_name(), pool_spec(), number(), any::<u32>()).prop_map(|(name, any, revision, count)| {
        // What was accepted is within its bounds, and so are the defaults.
        let PoolSpec { algorithm, on_down, on_primary_up, all_down, send_proxy, .. } = any;
        let spec =
            PoolSpec { algorithm, on_down, on_primary_up, all_down, send_proxy, ..PoolSpec::default() };
        Outcome::Pool(Arc::new(Pool { name, spec, revision }), count as usize)
    });
    let backend = (pool_name(), backend_name(), backend_spec(), number()).prop_map(
        |(pool, name, mut spec, revision)| {
            let mut violations = Violations::new();
            spec.check_numbers(&mut violations);
            if !violations.is_empty() {
                spec = BackendSpec::at(spec.address);
            }
            Outcome::Backend(pool, Arc::new(Backend { name, spec, revision }))
        },
    );
    let listener = (listener_name(), listener_spec(), number()).prop_map(|(name, mut spec, revision)| {
        for number in [
            &mut spec.max_connections,
            &mut spec.max_connections_per_source,
            &mut spec.accept_rate,
            &mut spec.accept_rate_per_source,
        ] {
            *number %= 1_000_001;
        }
        Outcome::Listener(Arc::new(Listener { name, spec, revision, created: 1 + revision / 2 }))
    });
    prop_oneof![
        member().prop_map(Outcome::Founded),
        member().prop_map(Outcome::Member),
        pool,
        backend,
        listener,
        vips::outcome(),
        any::<[u32; 3]>().prop_map(|[created, updated, deleted]| {
            Outcome::Restored(Restored { created, updated, deleted })
        }),
        Just(Outcome::Noted),
        Just(Outcome::Deleted)
    ]
    .boxed()
}
