use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use trestle_model::defaults::{DURATION_MAX, FIRST_BYTES_TIMEOUT_BOUNDS, NUMBER_MAX};
use trestle_model::{
    Actor, AdminState, Backend, BackendAddress, BackendName, BackendSpec, Bind, ChangeKind, CheckKind,
    Choice, Cidr, ClientIdentity, ClusterId, Command, Configuration, Document, ExchangeCheck, ExchangeStep,
    Expected, FoundingIdentities, GrpcCheck, HealthCheck, HostPort, HttpCheck, KeyPin, ListenAddress,
    Listener, ListenerName, ListenerSpec, Member, MemberId, MemberName, MemberSockets, MemberSpec, Metadata,
    Method, NamePattern, Operation, Origin, Outcome, Pool, PoolName, PoolSpec, Port, Proposal, Request,
    RequestId, Restored, Role, Route, StatusRange, TlsCheck, TransportSecurity, Violations, VipName,
};

use crate::users::{self, user_name};
use crate::{tokens, vips};

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

/// The highest feature level of a program.
fn level() -> impl Strategy<Value = u32> {
    prop_oneof![1..4_u32, 1..=u32::MAX]
}

pub(crate) fn member_spec() -> impl Strategy<Value = MemberSpec> {
    (member_name(), host_port(), host_port(), level()).prop_map(
        |(name, peer_address, admin_address, feature_level_max)| MemberSpec {
            name,
            peer_address,
            admin_address,
            feature_level_max,
        },
    )
}

/// Any value of a choice.
pub(crate) fn choice<T: Choice>() -> impl Strategy<Value = T> {
    (0..T::TABLE.len()).prop_map(|at| T::TABLE[at].value)
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

/// Also times that the model refuses when a command is applied: the log carries them nevertheless.
/// A term, log index, revision or id.
pub(crate) fn number() -> impl Strategy<Value = u64> {
    0..=NUMBER_MAX
}

pub(super) fn time() -> impl Strategy<Value = Duration> {
    (0..DURATION_MAX.as_secs(), 0..1_000_000_000_u32)
        .prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn health_check() -> BoxedStrategy<HealthCheck> {
    let counts = any::<(u32, u32, u32)>();
    (kind(), (time(), time(), time()), counts, of(port()), choice())
        .prop_map(|(kind, times, counts, port, initial_state)| HealthCheck {
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

pub(crate) fn metadata() -> impl Strategy<Value = Metadata> {
    (".{0,20}", btree_map(text(), text(), 0..3))
        .prop_map(|(owner, annotations)| Metadata { owner: owner.into(), annotations })
}

fn pool_spec() -> BoxedStrategy<PoolSpec> {
    let choices = (choice(), choice(), choice(), choice(), choice());
    let times = (time(), time(), time(), time(), time(), time(), time());
    (choices, times, any::<(u32, u32, u32, u32)>(), health_check(), metadata())
        .prop_map(|(choices, times, counts, health, metadata)| PoolSpec {
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
            dead_peer_timeout: times.6,
            connect_retries: counts.0,
            minimum_healthy: counts.1,
            queue_length: counts.2,
            close_spread_percent: counts.3,
            health,
            metadata,
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

fn backend_spec() -> BoxedStrategy<BackendSpec> {
    (backend_address(), any::<(u16, u32, bool)>(), metadata())
        .prop_map(|(address, (weight, max_connections, backup), metadata)| BackendSpec {
            address,
            weight,
            backup,
            max_connections,
            metadata,
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

fn listen_address() -> impl Strategy<Value = ListenAddress> {
    let on_vip = (NAME, port(), port()).prop_map(|(name, one, other)| ListenAddress::Vip {
        name: VipName::parse(&name).unwrap(),
        first: one.min(other),
        last: one.max(other),
    });
    prop_oneof![bind().prop_map(ListenAddress::Ip), on_vip]
}

fn listener_spec() -> BoxedStrategy<ListenerSpec> {
    let lists = (networks(), networks(), networks());
    let numbers = any::<(u32, u32, u32, u32)>();
    let bounds = FIRST_BYTES_TIMEOUT_BOUNDS;
    let nanos = bounds.start().as_nanos() as u64..=bounds.end().as_nanos() as u64;
    let first = (nanos.prop_map(Duration::from_nanos), choice());
    (vec(listen_address(), 0..4), pool_name(), vec(route(), 0..3), lists, numbers, first, metadata())
        .prop_map(|(binds, pool, routes, lists, numbers, first, metadata)| ListenerSpec {
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
            first_bytes_timeout: first.0,
            on_silence: first.1,
            metadata,
        })
        .boxed()
}

pub(crate) fn member_sockets() -> impl Strategy<Value = MemberSockets> {
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

fn pin() -> impl Strategy<Value = KeyPin> {
    any::<[u8; 32]>().prop_map(KeyPin)
}

fn transport() -> impl Strategy<Value = TransportSecurity> {
    proptest::sample::select(TransportSecurity::TABLE).prop_map(|chosen| chosen.value)
}

fn founding() -> impl Strategy<Value = FoundingIdentities> {
    (vec(any::<u8>(), 1..40), any::<bool>(), of(pin()), transport(), of(crate::tokens::token())).prop_map(
        |(authority, external, founder_key, transport, token)| FoundingIdentities {
            authority: authority.into(),
            external,
            founder_key,
            transport,
            token,
        },
    )
}

fn founding_and_members() -> impl Strategy<Value = Command> {
    let found = ("[0-9a-f]{32}", member_spec(), of(founding())).prop_map(|(id, member, identities)| {
        Command::FoundCluster { cluster_id: ClusterId::parse(&id).unwrap(), member, identities }
    });
    prop_oneof![
        found,
        member_spec().prop_map(Command::AddMember),
        number().prop_map(|id| Command::RemoveMember(MemberId(id))),
        (number(), pin()).prop_map(|(id, key)| Command::PinMemberKey { id: MemberId(id), key }),
        transport().prop_map(Command::SetTransport),
        (0..1u64 << 32, of(member_spec()), of(member_spec())).prop_map(|(id, peer, admin)| {
            Command::UpdateMember {
                id: MemberId(id),
                peer_address: peer.map(|spec| spec.peer_address),
                admin_address: admin.map(|spec| spec.admin_address),
            }
        }),
        (0..1u64 << 32, any::<u64>(), any::<u64>(), of(member_sockets()), level()).prop_map(
            |(member, start, replaces, sockets, feature_level_max)| {
                let sockets = sockets.map(Arc::new);
                Command::NoteStart { member: MemberId(member), start, replaces, sockets, feature_level_max }
            },
        ),
    ]
}

fn document() -> BoxedStrategy<Document> {
    prop_oneof![
        (pool_name(), pool_spec()).prop_map(Document::from),
        (pool_name(), backend_name(), backend_spec()).prop_map(Document::from),
        (pool_name(), backend_name(), admin_state()).prop_map(Document::from),
        (listener_name(), listener_spec()).prop_map(Document::from),
        vips::document(),
    ]
    .boxed()
}

fn operation() -> impl Strategy<Value = Operation> {
    let expected =
        prop_oneof![Just(Expected::Any), Just(Expected::Absent), any::<u64>().prop_map(Expected::Revision)];
    prop_oneof![
        (document(), expected).prop_map(|(document, expected)| Operation::Put { document, expected }),
        (document(), any::<Option<u64>>())
            .prop_map(|(document, expected)| Operation::Delete { resource: document.resource(), expected }),
    ]
}

fn batch() -> impl Strategy<Value = Command> {
    vec(operation(), 0..4).prop_map(|operations| Command::Batch(operations.into()))
}

fn whole() -> impl Strategy<Value = Command> {
    prop_oneof![
        (vec(document(), 0..4), any::<bool>()).prop_map(|(documents, replace)| Command::Restore {
            configuration: Arc::new(Configuration(documents)),
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
    let raise = any::<u32>().prop_map(|level| Command::RaiseLevel { level });
    prop_oneof![
        founding_and_members().boxed(),
        whole().boxed(),
        batch().boxed(),
        batch().boxed(),
        raise.boxed(),
        users::command().boxed(),
        tokens::command().boxed(),
        vips::command()
    ]
    .boxed()
}

fn origin() -> impl Strategy<Value = Origin> {
    let role = prop_oneof![Just(Role::Viewer), Just(Role::Operator), Just(Role::Admin)];
    let user = (any::<u32>(), role).prop_map(|(uid, role)| Actor::LocalUser { uid, role });
    let role = prop_oneof![Just(Role::Viewer), Just(Role::Operator), Just(Role::Admin)];
    let of_cluster = (user_name(), role).prop_map(|(name, role)| Actor::User { name, role });
    let actor = prop_oneof![Just(Actor::LocalRoot), user, of_cluster];
    (any::<u64>(), of(1..u64::MAX), of(any::<IpAddr>()), of(actor)).prop_map(
        |(time_ms, member, client, actor)| Origin { time_ms, member: member.map(MemberId), client, actor },
    )
}

pub(crate) fn proposal() -> BoxedStrategy<Proposal> {
    let request = ("[!-~]{1,64}", any::<u64>())
        .prop_map(|(id, fingerprint)| Request { id: RequestId::parse(&id).unwrap(), fingerprint });
    (of(request), of(origin()), command())
        .prop_map(|(request, origin, command)| Proposal { request, origin, command })
        .boxed()
}

fn in_bounds() -> impl Strategy<Value = AdminState> {
    prop_oneof![
        Just(AdminState::Disabled),
        of(1..600_u64).prop_map(|seconds| AdminState::Draining { timeout: seconds.map(Duration::from_secs) })
    ]
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
        (pool(), choice()).prop_map(move |(name, algorithm)| Command::create((name, spec(algorithm)))),
        (pool(), backend(), backend_spec()).prop_map(Command::create),
        (pool(), backend(), in_bounds()).prop_map(Command::put),
        (pool(), backend()).prop_map(Command::delete),
        (listener(), listener_spec).prop_map(Command::create),
        vips::fitting(),
        vips::holding(),
    ]
}

const KINDS: [ChangeKind; 3] = [ChangeKind::Created, ChangeKind::Updated, ChangeKind::Deleted];

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
            let admin_state = if revision % 2 == 0 { AdminState::Enabled } else { AdminState::Disabled };
            Outcome::Backend(pool, Arc::new(Backend { name, spec, admin_state, revision }))
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
        let binds = vec![Bind::parse("10.0.0.1:80-90").unwrap()];
        Outcome::Listener(Arc::new(Listener { name, spec, binds, revision, created: 1 + revision / 2 }))
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
        vec(of(proptest::sample::select(&KINDS[..])), 0..4).prop_map(|kinds| Outcome::Batch(kinds.into())),
        Just(Outcome::Noted),
        Just(Outcome::Deleted)
    ]
    .boxed()
}
