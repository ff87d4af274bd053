//! The member's own ports under attack from whoever reaches them: what is held for strangers is bounded, and others are
//! answered meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use tonic::Code;
use trestle_api::v1::{
    BootstrapClusterRequest, GetPoolHealthRequest, ListMembersRequest, ListPoolsRequest, RemoveMemberRequest,
    TransferLeadershipRequest, WaitForRevisionRequest, WatchClusterRequest, WatchClusterResponse,
};
use trestle_testkit::attacks::{self, connect_from};
use trestle_testkit::{Api, Cluster, Member, Origin, Subnet, fetch_http, get, wait_for, wait_until};

use crate::trestled;

const LIMIT: Duration = Duration::from_secs(20);
/// What a member may take more while it is attacked.
const GROWTH_MAX: u64 = 100 << 20;
/// How long anybody else may have to wait for an answer. A debug build beside an attacker on two shared cores is slow; without
/// bounds there was no answer at all.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Members that share two cores with an attacker and other tests: what counts is that nothing keeps heartbeats for seconds.
const PATIENT: &str = "profile = \"wide\"\n";

/// Whether the other side has ended the connection, without waiting.
fn is_over(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut buffer = [0; 65_536];
    let over = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break true,
            Ok(_) => {}
            Err(error) => break error.kind() != ErrorKind::WouldBlock,
        }
    };
    stream.set_nonblocking(false).unwrap();
    over
}

/// Asks all that an operator asks, `count` times, and answers the longest wait.
async fn slowest(member: &Member, count: usize) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..count {
        let start = Instant::now();
        // A new client each time, as each call of the CLI is.
        member.api().status().await.unwrap();
        let http = member.http();
        let page = tokio::task::spawn_blocking(move || get(http, "/livez")).await.unwrap().unwrap();
        assert_eq!(page.status, 200);
        slowest = slowest.max(start.elapsed());
    }
    slowest
}

/// A member that leads a cluster of one, with as many descriptors.
async fn alone(subnet: &Subnet, descriptors: usize) -> (Member, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let limited = dir.path().join("trestled");
    let script = format!("#!/bin/sh\nulimit -n {descriptors}\nexec {} \"$@\"\n", trestled().display());
    std::fs::write(&limited, script).unwrap();
    std::fs::set_permissions(&limited, PermissionsExt::from_mode(0o755)).unwrap();
    let mut member = Member::new(&limited, "m1", subnet.ip(1), "");
    member.start();
    member.api().cluster().bootstrap_cluster(BootstrapClusterRequest::default()).await.unwrap();
    (member, dir)
}

/// A pool with one backend and a listener that leads to it.
async fn service(member: &Member, subnet: &Subnet) -> (SocketAddr, Origin) {
    let origin = Origin::start((subnet.ip(11), 0), "origin");
    let api = member.api();
    api.create_pool("web", None).await.unwrap();
    api.create_backend("web", "a", origin.address()).await.unwrap();
    let front = SocketAddr::from((member.ip, 8080));
    api.create_listener("web", front, "web").await.unwrap();
    wait_until("the listener", LIMIT, async || fetch_http(front)).await;
    (front, origin)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_ports_tell_their_bounds_and_one_connection_stays_within_them() {
    let subnet = Subnet::claim();
    let (mut member, _dir) = alone(&subnet, 2000).await;
    for target in [member.admin(), member.peer()] {
        let settings = attacks::Raw::open(target).unwrap().settings();
        assert!(settings.contains(&(3, 128)), "SETTINGS_MAX_CONCURRENT_STREAMS at {target}: {settings:?}");
        assert!(settings.contains(&(6, 16_384)), "SETTINGS_MAX_HEADER_LIST_SIZE at {target}: {settings:?}");
    }
    let before = member.usage().resident;
    for target in [member.admin(), member.peer()] {
        attacks::endless_headers(target).unwrap();
    }
    assert!(slowest(&member, 5).await < ANSWER_MAX);
    let grown = member.usage().resident.saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_without_bodies_keep_nobody_from_the_api() {
    let mut cluster = Cluster::start_with(trestled(), 3, PATIENT).await;
    let leader = cluster.leader().await;
    let before = cluster.members[leader].usage().resident;
    let term = cluster.api(leader).status().await.unwrap().term;
    let target = cluster.members[leader].admin();
    let peer = cluster.members[leader].peer();
    let mut held = Vec::new();
    for (target, path, connections) in [
        (target, "/trestle.v1.ClusterService/GetClusterStatus", 22),
        (peer, "/trestle.peer.v1.RaftService/AppendStream", 8),
    ] {
        held.extend(attacks::calls_without_bodies(target, path, connections));
    }
    for _ in 0..3 {
        let slowest = slowest(&cluster.members[leader], 5).await;
        assert!(slowest < ANSWER_MAX, "{slowest:?}");
    }
    wait_for("the end of connections whose calls gave way to others", LIMIT, || {
        let over = held.iter_mut().filter_map(|raw| is_over(raw.stream()).then_some(())).count();
        // The last to come have the places.
        if over >= 20 { Ok(()) } else { Err(format!("{over} of {} are over", held.len())) }
    });
    let status = cluster.agreed().await;
    assert_eq!(status.term, term, "no leader was elected meanwhile");
    let grown = cluster.members[leader].usage().resident.saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_are_closed_and_stop_nothing() {
    let subnet = Subnet::claim();
    let (mut member, _dir) = alone(&subnet, 2000).await;
    let (front, _origin) = service(&member, &subnet).await;
    let mut silent = Vec::new();
    for (target, words) in [(member.http(), "G"), (member.admin(), "P"), (member.peer(), "")] {
        // Some are refused at once.
        silent.extend(attacks::silent_connections(&subnet, target, words, 700).await);
        assert!(slowest(&member, 3).await < ANSWER_MAX);
        assert_eq!(fetch_http(front).unwrap(), "origin");
        let open = member.descriptors();
        assert!(open < 700, "{open} descriptors at {target}");
    }
    wait_for("the end of those that say nothing", LIMIT, || {
        let left = silent.iter_mut().filter_map(|stream| (!is_over(stream)).then_some(())).count();
        if left == 0 { Ok(()) } else { Err(format!("{left} are open")) }
    });
    let metrics = get(member.http(), "/metrics").unwrap().body;
    assert!(
        !metrics.contains("\ntrestle_port_refusals_total{port=\"http\",reason=\"deadline\"} 0\n"),
        "{metrics}"
    );
    let health = member.api().status().await.unwrap();
    assert!(health.members[0].problems.is_empty(), "{health:?}");
    let told = member.output().lines().filter(|line| line.contains("connection closed")).count();
    assert!(told <= 800, "{told} lines: one for a kind, a source and a minute");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raft_keeps_its_lanes_in_a_flood_of_connections_to_the_peer_port() {
    let mut cluster = Cluster::start_with(trestled(), 3, PATIENT).await;
    let leader = cluster.leader().await;
    let term = cluster.api(leader).status().await.unwrap().term;
    let mut held = Vec::new();
    for round in 0..4 {
        for number in 0..cluster.members.len() {
            held.extend(attacks::peer_flood(&cluster.subnet, cluster.members[number].peer(), round).await);
        }
        cluster.api(leader).create_pool(&format!("p{round}"), None).await.unwrap();
    }
    let status = cluster.agreed().await;
    assert_eq!(status.term, term, "no leader was elected meanwhile");
    assert!(held.len() > 1000, "{}", held.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_rendering_of_the_metrics_serves_all_and_eight_fetch_it() {
    let subnet = Subnet::claim();
    let (mut member, _dir) = alone(&subnet, 4000).await;
    big_pool(&member, 400).await;
    let before = member.usage();
    let http = member.http();
    let mut scrapes = attacks::scrapers(&subnet, http, 60).await;
    assert_eq!(scrapes.len(), 60);
    assert!(slowest(&member, 5).await < ANSWER_MAX);
    let mut codes = Vec::new();
    for stream in &mut scrapes {
        let mut status = [0; 12];
        // Those that are refused for want of a place see no answer.
        codes.extend(
            stream.read_exact(&mut status).ok().map(|()| String::from_utf8_lossy(&status).into_owned()),
        );
    }
    let refused = codes.iter().filter(|code| code.ends_with("503")).count();
    let served = codes.iter().filter(|code| code.ends_with("200")).count();
    assert!(refused >= 1 && served >= 8, "{codes:?}");
    let after = member.usage();
    assert!(after.resident.saturating_sub(before.resident) < GROWTH_MAX);
    drop(scrapes);
    // A scraper that keeps its connection is served on it again and again.
    let mut stream = connect_from(subnet.ip(20), http).await.unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut answer = [0; 4096];
        let count = stream.read(&mut answer).unwrap();
        assert!(answer[..count].starts_with(b"HTTP/1.1 200"));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_end_with_their_callers_and_are_bounded() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let status = cluster.agreed().await;
    let before = cluster.members[0].usage().resident;
    let far = WaitForRevisionRequest {
        revision: status.revision + 1_000_000,
        timeout: Some(prost_types::Duration { seconds: 300, nanos: 0 }),
    };
    let api = cluster.api(0);
    let (mut waits, mut refused) = (Vec::new(), 0);
    for _ in 0..300 {
        match api.cluster().wait_for_revision(far).await {
            Ok(wait) => waits.push(wait),
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
                refused += 1;
            }
        }
    }
    assert!(refused >= 150 && waits.len() >= 40, "{} wait, {refused} were refused", waits.len());
    drop(waits);
    // Their places come back, and so do those of the calls that they made to other members.
    wait_until("room for others", LIMIT, async || api.cluster().wait_for_revision(far).await.map(drop)).await;
    for member in &cluster.members {
        assert!(slowest(member, 3).await < ANSWER_MAX);
    }
    let grown = cluster.members[0].usage().resident.saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_very_many_connections_stops_nobody_else() {
    let subnet = Subnet::claim();
    let (member, _dir) = alone(&subnet, 1000).await;
    let (front, _origin) = service(&member, &subnet).await;
    let _held = attacks::hog(subnet.ip(66), front, 1200).await;
    let mut waits = Vec::new();
    for number in 0..20_u8 {
        let start = Instant::now();
        let mut stream = connect_from(subnet.ip(20 + number), front).await.unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("origin\n") || answer.ends_with("origin"), "{answer:?}");
        waits.push(start.elapsed());
    }
    assert!(waits.iter().max().unwrap() < &ANSWER_MAX, "{waits:?}");
    let status = member.api().status().await.unwrap().members.remove(0);
    let (used, max) = (status.descriptors_used, status.descriptors_max);
    assert!(used * 5 <= max * 4 + 20, "{used} of {max}: one address has three quarters");
    let metrics = get(member.http(), "/metrics").unwrap().body;
    assert!(metrics.contains("reason=\"source_limit\""), "{metrics}");
    assert!(metrics.contains("\ntrestle_accept_pauses_total 0\n"), "{metrics}");
}

/// The pool `big` with so many backends, and the revision of the last of them.
async fn big_pool(member: &Member, backends: u16) -> u64 {
    let api = member.api();
    api.create_pool("big", None).await.unwrap();
    let create = |number: u16| {
        let api = api.clone();
        async move {
            let address = SocketAddr::from(([127, 200, 0, 1], 10_000 + number));
            let name = format!("{}-{number}", "b".repeat(55));
            api.create_backend("big", &name, address).await.unwrap().revision
        }
    };
    let mut last = 0;
    for start in (0..backends).step_by(50) {
        let numbers = start..(start + 50).min(backends);
        let revisions = futures_util::future::join_all(numbers.map(create)).await;
        last = revisions.into_iter().fold(last, u64::max);
    }
    last
}

/// How many events a watch sends until it says that all up to `revision` were sent, and after which messages it says that
/// more of the same revision follow.
async fn watched_to(watch: &mut tonic::Streaming<WatchClusterResponse>, revision: u64) -> (usize, Vec<bool>) {
    let (mut events, mut more) = (0, Vec::new());
    loop {
        let message = tokio::time::timeout(LIMIT, watch.message()).await.unwrap().unwrap().unwrap();
        events += message.events.len();
        more.push(message.more);
        if message.revision >= revision && !message.more {
            return (events, more);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_delete_of_a_big_pool_comes_in_messages_that_every_client_takes() {
    let subnet = Subnet::claim();
    let (member, _dir) = alone(&subnet, 2000).await;
    let api = member.api();
    let last = big_pool(&member, 600).await;
    let request = WatchClusterRequest { start_revision: last + 1, include_current: false };
    let mut watch = api.cluster().watch_cluster(request).await.unwrap().into_inner();
    let request = trestle_api::v1::DeletePoolRequest { name: "pools/big".to_owned(), ..Default::default() };
    api.pools().delete_pool(request).await.unwrap();
    let (events, more) = watched_to(&mut watch, last + 1).await;
    assert_eq!(events, 601);
    assert!(more.iter().filter(|more| **more).count() >= 1, "{more:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_connections_nor_checks_go_to_a_members_own_ports() {
    let subnet = Subnet::claim();
    let (member, _dir) = alone(&subnet, 2000).await;
    let api = member.api();
    api.create_pool("self", Some(Duration::from_millis(200))).await.unwrap();
    for address in [member.admin(), member.peer(), member.http()] {
        let refused = api.create_backend("self", "a", address).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
        assert!(format!("{refused:?}").contains("port of a member"), "{address}: {refused:?}");
        // Another way to write it is no way around.
        let mapped = format!("[::ffff:{}]:{}", address.ip(), address.port());
        assert!(api.create_backend("self", "a", &mapped).await.is_err(), "{mapped}");
    }
    // What the port of a client leads to is known when it is dialled.
    api.create_pool("any", None).await.unwrap();
    api.create_backend("any", "a", subnet.ip(1)).await.unwrap();
    api.create_listener("leak", format!("{}:7480", subnet.ip(2)), "any").await.unwrap();
    let leak = SocketAddr::from((subnet.ip(2), 7480));
    wait_until("the listener", LIMIT, async || TcpStream::connect(leak)).await;
    wait_until("a reset as loop", LIMIT, async || {
        let mut client = TcpStream::connect(leak).map_err(|error| error.to_string())?;
        assert!(client.read(&mut [0]).is_err());
        let metrics = get(member.http(), "/metrics")?.body;
        let line = "trestle_listener_closes_total{listener=\"leak\",reason=\"loop\"}";
        if metrics.contains(line) { Ok(()) } else { Err(metrics) }
    })
    .await;
    // Other programs of this machine may be backends.
    let origin = Origin::start((subnet.ip(1), 0), "beside");
    api.create_backend("self", "b", origin.address()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_outside_of_the_members_networks_are_not_reached() {
    let subnet = Subnet::claim();
    let (inside, outside) =
        (Origin::start((subnet.ip(11), 0), "inside"), Origin::start((subnet.ip(12), 0), "outside"));
    let more = format!("backend_networks = [\"{}/32\"]\n", subnet.ip(11));
    let mut member = Member::new(trestled(), "m1", subnet.ip(1), &more);
    member.start();
    let api = member.api();
    api.cluster().bootstrap_cluster(BootstrapClusterRequest::default()).await.unwrap();
    api.create_pool("web", Some(Duration::from_millis(200))).await.unwrap();
    for (name, origin) in [("in", &inside), ("out", &outside)] {
        api.create_backend("web", name, origin.address()).await.unwrap();
    }
    let front = SocketAddr::from((member.ip, 8080));
    api.create_listener("web", front, "web").await.unwrap();
    wait_until("the verdict", LIMIT, async || {
        let request = GetPoolHealthRequest { name: "pools/web".to_owned(), ..Default::default() };
        let health = api.pools().get_pool_health(request).await.map_err(|status| status.to_string())?;
        let health = format!("{health:?}");
        if health.contains("backend_networks") { Ok(()) } else { Err(health) }
    })
    .await;
    for _ in 0..10 {
        assert_eq!(fetch_http(front).unwrap(), "inside");
    }
}

/// What operators call is on the admin port alone, where its bounds are. What only the leader can do reaches it all the same,
/// through whichever member is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_peer_port_serves_no_operator_and_followers_pass_operations_on() {
    let mut cluster = Cluster::start(&trestled(), 3).await;
    let at_peer_port = Api::new(cluster.members[0].peer());
    let refused = [
        at_peer_port.status().await.unwrap_err(),
        at_peer_port.members().list_members(ListMembersRequest::default()).await.unwrap_err(),
        at_peer_port.cluster().transfer_leadership(TransferLeadershipRequest::default()).await.unwrap_err(),
        at_peer_port.pools().list_pools(ListPoolsRequest::default()).await.unwrap_err(),
    ];
    for status in refused {
        assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    }
    let leader = cluster.leader().await;
    let follower = cluster.api((leader + 1) % 3);
    let to = format!("members/m{}", (leader + 2) % 3 + 1);
    let request = TransferLeadershipRequest { to: to.clone() };
    let moved = follower.cluster().transfer_leadership(request).await.unwrap().into_inner();
    assert_eq!(moved.leader, to);
    // The old leader is a follower now.
    let name = format!("members/m{}", (leader + 1) % 3 + 1);
    let former = cluster.api(leader);
    former
        .members()
        .remove_member(RemoveMemberRequest { name: name.clone(), ..Default::default() })
        .await
        .unwrap();
    let unknown =
        former.members().remove_member(RemoveMemberRequest { name, ..Default::default() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound, "{unknown:?}");
}
