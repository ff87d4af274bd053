//! Connections of clients: who has which, closing them, where those to backends come from, and how many there may be.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpSocket;
use tonic::Code;
use trestle_api::v1::{
    BootstrapClusterRequest, CloseConnectionsGraduallyRequest, CloseConnectionsRequest,
    CloseConnectionsResponse, Connection, ConnectionFilter, ConnectionState, ListConnectionsRequest,
    ListConnectionsResponse,
};
use trestle_testkit::{Api, Cluster, Member, Origin, Subnet, fetch_http, get, wait_until};

use crate::{trestle, trestled};

const LIMIT: Duration = Duration::from_secs(20);

/// A connection from this address that has been led to a backend.
async fn open(from: Ipv4Addr, target: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream = socket.connect(target).await.unwrap().into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    assert!(works(&mut stream));
    stream
}

fn works(stream: &mut TcpStream) -> bool {
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").is_ok()
        && stream.read(&mut [0; 256]).is_ok_and(|count| count > 0)
}

fn was_reset(stream: &mut TcpStream) -> bool {
    stream.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

async fn list(api: &Api, filter: ConnectionFilter) -> ListConnectionsResponse {
    let request = ListConnectionsRequest { filter: Some(filter), page_size: 1000, page_token: String::new() };
    api.connections().list_connections(request).await.unwrap().into_inner()
}

async fn count(api: &Api, filter: ConnectionFilter) -> u64 {
    let answer = list(api, filter).await;
    assert_eq!(answer.total_size, answer.connections.len() as u64);
    answer.total_size
}

async fn close(api: &Api, request: CloseConnectionsRequest) -> CloseConnectionsResponse {
    api.connections().close_connections(request).await.unwrap().into_inner()
}

fn closed(answer: &CloseConnectionsResponse) -> Vec<u64> {
    answer.members.iter().map(|member| member.count).collect()
}

/// Three members with the listeners `front` on 8080 and `back` on 8081, each with a pool of the same name.
async fn two_services() -> (Cluster, Origin) {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let origin = Origin::start((cluster.subnet.ip(11), 0), "origin");
    let api = cluster.api(0);
    for (name, port) in [("front", 8080), ("back", 8081)] {
        api.create_pool(name, None).await.unwrap();
        api.create_backend(name, "a", origin.address()).await.unwrap();
        api.create_listener(name, SocketAddr::from(([0, 0, 0, 0], port)), name).await.unwrap();
    }
    cluster.agreed().await;
    (cluster, origin)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_member_lists_the_connections_of_all() {
    let (mut cluster, origin) = two_services().await;
    let (one, two) = (cluster.subnet.ip(21), cluster.subnet.ip(22));
    let mut streams = Vec::new();
    for member in &cluster.members {
        streams.push(open(one, (member.ip, 8080).into()).await);
        streams.push(open(two, (member.ip, 8080).into()).await);
        streams.push(open(one, (member.ip, 8081).into()).await);
    }
    let api = cluster.api(1);
    let all = list(&api, ConnectionFilter::default()).await;
    assert_eq!((all.connections.len(), all.total_size, all.unreachable_members.len()), (9, 9, 0));
    let mine = streams[0].local_addr().unwrap().to_string();
    let found = all.connections.iter().find(|connection| connection.client_address == mine).unwrap();
    let expected = Connection {
        client_address: mine,
        listener: "listeners/front".to_owned(),
        local_address: SocketAddr::from((cluster.members[0].ip, 8080)).to_string(),
        pool: "pools/front".to_owned(),
        backend: "pools/front/backends/a".to_owned(),
        backend_address: origin.address().to_string(),
        state: ConnectionState::Relaying.into(),
        bytes_in: 18,
        ..found.clone()
    };
    assert_eq!(*found, expected);
    assert!(found.name.starts_with("members/m1/connections/") && found.bytes_out > 18, "{found:?}");

    let filter = |change: fn(&mut ConnectionFilter)| {
        let mut filter = ConnectionFilter::default();
        change(&mut filter);
        filter
    };
    assert_eq!(count(&api, filter(|f| f.member = "members/m3".to_owned())).await, 3);
    assert_eq!(count(&api, filter(|f| f.listener = "listeners/back".to_owned())).await, 3);
    assert_eq!(count(&api, filter(|f| f.pool = "pools/front".to_owned())).await, 6);
    assert_eq!(count(&api, filter(|f| f.backend = "pools/back/backends/a".to_owned())).await, 3);
    let nobody = Some(filter(|f| f.backend = "pools/back/backends/b".to_owned()));
    let request = ListConnectionsRequest { filter: nobody, page_size: 1000, page_token: String::new() };
    let refused = api.connections().list_connections(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound, "{refused:?}");
    assert_eq!(count(&api, filter(|f| f.min_age = Duration::from_secs(3600).try_into().ok())).await, 0);
    let from = |client: String| ConnectionFilter { client, ..ConnectionFilter::default() };
    assert_eq!(count(&api, from(one.to_string())).await, 6);
    assert_eq!(
        count(&api, ConnectionFilter { pool: "pools/back".to_owned(), ..from(two.to_string()) }).await,
        0
    );

    let (mut names, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListConnectionsRequest { filter: None, page_size: 2, page_token: token };
        let page = api.connections().list_connections(request).await.unwrap().into_inner();
        assert_eq!(page.total_size, 9);
        names.extend(page.connections.into_iter().map(|connection| connection.name));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(names, all.connections.iter().map(|connection| connection.name.clone()).collect::<Vec<_>>());

    let endpoints = cluster.endpoints();
    let said =
        trestle(&endpoints, &["connection", "list", "--listener", "front", "-o", "json"]).expect_success();
    let said: Vec<Value> = serde_json::from_str(&said).unwrap();
    let members: BTreeSet<&str> = said.iter().filter_map(|c| c["name"].as_str()?.split('/').next()).collect();
    assert_eq!((said.len(), members), (6, BTreeSet::from(["m1", "m2", "m3"])));
    let few = trestle(&endpoints, &["connection", "list", "--limit", "4"]);
    assert!(few.stderr.contains("4 of 9 connections"), "{}", few.stderr);
    assert_eq!(few.expect_success().lines().count(), 5);

    cluster.members[2].kill();
    let rest = list(&api, ConnectionFilter::default()).await;
    assert_eq!((rest.connections.len(), rest.unreachable_members), (6, vec!["members/m3".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_is_closed_and_at_a_rate() {
    let (mut cluster, _origin) = two_services().await;
    let mut fronts = Vec::new();
    for member in &cluster.members {
        for _ in 0..14 {
            fronts.push(open(cluster.subnet.ip(21), (member.ip, 8080).into()).await);
        }
    }
    let (api, endpoints) = (cluster.api(0), cluster.endpoints());
    let pool = ConnectionFilter { pool: "pools/front".to_owned(), ..ConnectionFilter::default() };
    let filter = || Some(pool.clone());
    let some =
        |share_percent| CloseConnectionsRequest { filter: filter(), share_percent, ..Default::default() };
    let in_all = |answer: &CloseConnectionsResponse| closed(answer).iter().sum::<u64>();
    let tried = close(&api, CloseConnectionsRequest { validate_only: true, ..some(10) }).await;
    assert_eq!((in_all(&tried), count(&api, pool.clone()).await), (5, 42), "a tenth of 42, rounded up");
    let close_front = ["connection", "close", "--pool", "front"];
    let slow = trestle(&endpoints, &[&close_front[..], &["--rate", "36/h"]].concat());
    assert_eq!(slow.code, Some(1), "{}", slow.stderr);
    assert!(slow.stderr.contains("must be at least 0.02 a second for 42 connections"), "{}", slow.stderr);
    assert_eq!(count(&api, pool.clone()).await, 42);
    assert_eq!(in_all(&close(&api, some(10)).await), 5);
    wait_until("37 are left", LIMIT, async || match count(&api, pool.clone()).await {
        37 => Ok(()),
        left => Err(left),
    })
    .await;

    let gradually = CloseConnectionsGraduallyRequest { closing: Some(some(0)), rate: 4.0 };
    let answer = api.connections().close_connections_gradually(gradually).await.unwrap();
    let mut progress = answer.into_inner();
    let first = progress.message().await.unwrap().unwrap();
    let gone: u64 = first.members.iter().map(|member| member.count).sum();
    assert!((1..=6).contains(&gone) && gone + first.remaining == 37, "4 a second: {first:?}");
    drop(progress);
    // What was on its way as the call was cancelled may still end.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let left = count(&api, pool.clone()).await;
    assert!((30..37).contains(&left), "{left}");

    cluster.members[2].kill();
    // Between 16 and 28 are left on the others: more than a second's worth, after which progress is told.
    let said = trestle(&endpoints, &[&close_front[..], &["--share", "100%", "--rate", "8/s"]].concat());
    assert_eq!(said.code, Some(1), "m3 did not answer: {}", said.stderr);
    assert!(said.stdout.starts_with("closed ") && said.stderr.contains(" to go"), "{}", said.stderr);
    wait_until("none left", LIMIT, async || match count(&api, pool.clone()).await {
        0 => Ok(()),
        left => Err(left),
    })
    .await;
    assert!(fronts[..28].iter_mut().all(was_reset));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_closed_by_name_and_by_filter() {
    let (cluster, _origin) = two_services().await;
    let mut fronts = Vec::new();
    let mut backs = Vec::new();
    for member in &cluster.members {
        fronts.push(open(cluster.subnet.ip(21), (member.ip, 8080).into()).await);
        backs.push(open(cluster.subnet.ip(22), (member.ip, 8081).into()).await);
    }
    let api = cluster.api(2);
    for request in [
        CloseConnectionsRequest::default(),
        CloseConnectionsRequest { filter: Some(ConnectionFilter::default()), ..Default::default() },
    ] {
        let refused = api.connections().close_connections(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("name what to close; `all: true` closes all"), "{refused}");
    }
    let back = ConnectionFilter { pool: "pools/back".to_owned(), ..ConnectionFilter::default() };
    let request = CloseConnectionsRequest { filter: Some(back), ..CloseConnectionsRequest::default() };
    let tried = CloseConnectionsRequest { validate_only: true, ..request.clone() };
    assert_eq!(closed(&close(&api, tried).await), [1, 1, 1]);
    assert!(backs.iter_mut().all(works), "validate_only closes nothing");
    let answer = close(&api, request.clone()).await;
    assert_eq!((closed(&answer), answer.unreachable_members.len()), (vec![1, 1, 1], 0));
    assert!(backs.iter_mut().all(was_reset));
    assert!(fronts.iter_mut().all(works), "other connections go on");
    wait_until("none left", LIMIT, async || {
        if closed(&close(&api, request.clone()).await) == [0, 0, 0] { Ok(()) } else { Err("some are") }
    })
    .await;

    let mine = fronts[1].local_addr().unwrap().to_string();
    let filter =
        ConnectionFilter { client: cluster.subnet.ip(21).to_string(), ..ConnectionFilter::default() };
    let listed = list(&api, filter).await.connections;
    let name = listed.iter().find(|c| c.client_address == mine).unwrap().name.clone();
    let names = vec![name.clone(), "members/m1/connections/999999".to_owned()];
    let answer = close(&api, CloseConnectionsRequest { names, ..Default::default() }).await;
    assert_eq!(closed(&answer), [0, 1]);
    assert!(was_reset(&mut fronts[1]) && works(&mut fronts[0]) && works(&mut fronts[2]));
    let names = vec!["members/nobody/connections/1".to_owned()];
    let request = CloseConnectionsRequest { names, ..Default::default() };
    assert_eq!(api.connections().close_connections(request).await.unwrap_err().code(), Code::NotFound);

    let endpoints = cluster.endpoints();
    assert_eq!(trestle(&endpoints, &["connection", "close"]).code, Some(2));
    let dry = ["connection", "close", "--listener", "front", "--dry-run"];
    assert_eq!(trestle(&endpoints, &dry).expect_success(), "would close 1 connection on m1, 1 on m3\n");
    let said = trestle(&endpoints, &["connection", "close", "--member", "m3", "--listener", "front"]);
    assert_eq!(said.expect_success(), "closed 1 connection on m3\n");
    assert!(was_reset(&mut fronts[2]));
    assert_eq!(
        trestle(&endpoints, &["connection", "close", "--all"]).expect_success(),
        "closed 1 connection on m1\n"
    );
    assert!(was_reset(&mut fronts[0]));
    let metrics = get(cluster.members[0].http(), "/metrics").unwrap().body;
    for series in
        ["trestle_listener_closes_total{listener=\"front\"", "trestle_backend_closes_total{pool=\"front\""]
    {
        let counted =
            metrics.lines().find(|line| line.starts_with(series) && line.contains("closed_by_operator"));
        assert!(counted.is_some_and(|line| line.ends_with(" 1")), "{counted:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_backends_come_from_the_source_address() {
    let subnet = Subnet::claim();
    let own = subnet.ip(40);
    let mut member = Member::new(trestled(), "m1", subnet.ip(1), &format!("source_address = [\"{own}\"]\n"));
    member.start();
    let api = member.api();
    api.cluster().bootstrap_cluster(BootstrapClusterRequest::default()).await.unwrap();
    let backend = TcpListener::bind((subnet.ip(11), 0)).unwrap();
    api.create_pool("web", None).await.unwrap();
    api.create_backend("web", "a", backend.local_addr().unwrap()).await.unwrap();
    let front = SocketAddr::from((member.ip, 8080));
    api.create_listener("web", front, "web").await.unwrap();
    let clients = wait_until("the listener", LIMIT, async || TcpStream::connect(front)).await;
    assert_eq!(backend.accept().unwrap().1.ip(), own);
    drop(clients);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_connections_leaves_descriptors_for_the_api() {
    let subnet = Subnet::claim();
    let dir = tempfile::tempdir().unwrap();
    let limited = dir.path().join("trestled");
    let script = format!("#!/bin/sh\nulimit -n 400\nexec {} \"$@\"\n", trestled().display());
    std::fs::write(&limited, script).unwrap();
    std::fs::set_permissions(&limited, PermissionsExt::from_mode(0o755)).unwrap();
    let mut member = Member::new(&limited, "m1", subnet.ip(1), "");
    member.start();
    let api = member.api();
    api.cluster().bootstrap_cluster(BootstrapClusterRequest::default()).await.unwrap();
    let origin = Origin::start((subnet.ip(11), 0), "origin");
    api.create_pool("web", None).await.unwrap();
    api.create_backend("web", "a", origin.address()).await.unwrap();
    let front = SocketAddr::from((member.ip, 8080));
    api.create_listener("web", front, "web").await.unwrap();
    wait_until("the listener", LIMIT, async || fetch_http(front)).await;

    // Half of so few descriptors is kept: one socket listens, and 99 connections have two each. One address would not get
    // all of them.
    let mut flood = Vec::new();
    for number in 0..250 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((subnet.ip(21 + number % 100), 0).into()).unwrap();
        let stream = socket.connect(front).await.unwrap().into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        flood.push(stream);
    }
    let active = async || api.status().await.unwrap().members.remove(0);
    let full = wait_until("the budget used up", LIMIT, async || {
        let status = active().await;
        if status.active_connections == 99 { Ok(status) } else { Err(format!("{status:?}")) }
    })
    .await;
    assert_eq!((full.descriptors_used, full.descriptors_max), (199, 200));
    let metrics = get(member.http(), "/metrics").unwrap().body;
    assert!(metrics.contains("\ntrestle_descriptors_max 200\n"), "{metrics}");
    assert!(!metrics.contains("\ntrestle_accept_pauses_total 0\n"), "{metrics}");
    // New clients of the API find room too.
    for _ in 0..20 {
        member.api().status().await.unwrap();
    }
    assert!(works(&mut flood[0]));
    flood.truncate(1);
    wait_until("the others served and gone", LIMIT, async || {
        let status = active().await;
        if status.active_connections == 1 { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    fetch_http(front).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_do_not_exist_are_told_and_a_deleted_listener_has_its_connections_still() {
    let (cluster, _origin) = two_services().await;
    let at = cluster.endpoints();
    let run = |args: &[&str]| trestle(&at, args);
    for (option, name, told) in [
        (
            "--pool",
            "nothing",
            "error: pool \"nothing\" does not exist\n  \"trestle pool list\" shows those that do\n",
        ),
        (
            "--listener",
            "nothing",
            "error: listener \"nothing\" does not exist\n  \"trestle listener list\" shows those that do\n",
        ),
        (
            "--member",
            "nothing",
            "error: member \"nothing\" does not exist\n  \"trestle member list\" shows those that do\n",
        ),
        (
            "--backend",
            "front/nothing",
            "error: backend \"front/nothing\" does not exist\n  \"trestle backend list front\" shows those that do\n",
        ),
    ] {
        for verb in [&["list"][..], &["close"], &["close", "--share", "50%"], &["close", "--rate", "5/s"]] {
            let done = run(&[&["connection"], verb, &[option, name]].concat());
            assert_eq!((done.code, done.stderr.as_str()), (Some(1), told), "{verb:?} {option}");
            assert_eq!(done.stdout, "", "{verb:?} {option}");
        }
    }
    // One that exists has none, and that is no mistake.
    let done = run(&["connection", "list", "--listener", "front"]);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), "no open connections\n"));
    let done = run(&["connection", "close", "m1/999"]);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), "the connection that was named is not open\n"));

    let member = cluster.members[0].ip;
    let mut stream = open(cluster.subnet.ip(20), (member, 8080).into()).await;
    run(&["listener", "delete", "front", "--wait"]).expect_success();
    let listed = run(&["connection", "list", "--listener", "front"]).expect_success();
    assert_eq!(listed.lines().count(), 2, "{listed}");
    let done = run(&["connection", "close", "--listener", "front"]).expect_success();
    assert!(done.starts_with("closed 1 connection on "), "{done}");
    assert!(was_reset(&mut stream));
    let done = run(&["connection", "close", "--listener", "front"]);
    assert!(done.stderr.starts_with("error: listener \"front\" does not exist\n"), "{}", done.stderr);
}
