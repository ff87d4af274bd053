//! What happens to connections when backends are found down, and which backend a client's address leads to.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use tokio::net::TcpSocket;
use trestle_api::v1::{
    Algorithm, AllDown, Backend, CreateBackendRequest, HealthCheck, NoCheck, OnDown, Pool, TcpCheck, Verdict,
    health_check::Kind,
};
use trestle_testkit::{Cluster, Origin, fetch_http, wait_until};

use crate::trestled;

const PATIENCE: Duration = Duration::from_secs(20);

/// A pool that checks another port than the one that serves.
fn checked_on(port: u16) -> Pool {
    let interval = Duration::from_millis(100).try_into().ok();
    let check = HealthCheck {
        kind: Some(Kind::Tcp(TcpCheck {})),
        interval,
        fast_interval: interval,
        port: port.into(),
        ..HealthCheck::default()
    };
    Pool { health_check: Some(check), ..Pool::default() }
}

fn ask(stream: &mut TcpStream) -> std::io::Result<usize> {
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    stream.read(&mut [0; 256])
}

fn connect(target: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(target).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_a_backend_that_is_down_are_reset_or_kept() {
    let mut cluster = Cluster::start(trestled(), 1).await;
    let api = cluster.api(0);
    let serving = Origin::start((cluster.subnet.ip(11), 0), "origin");
    let mut health = Origin::start((cluster.subnet.ip(11), 0), "health");
    let other = Origin::start((cluster.subnet.ip(12), serving.address().port()), "other");
    let mut other_health = Origin::start((cluster.subnet.ip(12), health.address().port()), "health");
    let ip = cluster.members[0].ip;
    let pools = [("close", OnDown::Close, 8001), ("keep", OnDown::Keep, 8002)];
    for (pool, on_down, port) in pools {
        let settings = Pool { on_down: on_down.into(), ..checked_on(health.address().port()) };
        api.create_pool_with(pool, settings).await.unwrap();
        api.create_backend(pool, "a", serving.address()).await.unwrap();
        let spare = Backend { address: other.address().to_string(), backup: true, ..Backend::default() };
        let request = CreateBackendRequest {
            parent: format!("pools/{pool}"),
            backend_id: "b".to_owned(),
            backend: Some(spare),
            ..CreateBackendRequest::default()
        };
        api.pools().create_backend(request).await.unwrap();
        api.create_listener(pool, SocketAddr::from((ip, port)), pool).await.unwrap();
    }
    cluster.agreed().await;
    for (pool, ..) in pools {
        api.verdict(pool, |_| true, Verdict::Healthy).await;
    }
    let [mut closed, mut kept] = [8001, 8002].map(|port| connect((ip, port).into()));
    for open in [&mut closed, &mut kept] {
        assert!(ask(open).unwrap() > 0);
    }

    health.stop();
    for (pool, ..) in pools {
        api.verdict(pool, |backend| backend.ends_with("/a"), Verdict::Unhealthy).await;
    }
    let ended = closed.read(&mut [0; 16]);
    assert!(matches!(&ended, Err(error) if error.kind() == ErrorKind::ConnectionReset), "{ended:?}");
    assert!(ask(&mut kept).unwrap() > 0, "the backend still serves, and its connection was to be kept");

    // Where nothing is left, nobody is better off elsewhere.
    let mut last = connect((ip, 8001).into());
    assert!(ask(&mut last).unwrap() > 0);
    other_health.stop();
    api.verdict("close", |_| true, Verdict::Unhealthy).await;
    assert!(ask(&mut last).unwrap() > 0, "no backend is healthy, and its own still serves");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_starts_leads_nobody_to_a_backend_that_is_down() {
    let mut cluster = Cluster::start(trestled(), 1).await;
    let (api, ip) = (cluster.api(0), cluster.members[0].ip);
    let serving = [11, 12, 13].map(|host| Origin::start((cluster.subnet.ip(host), 8080), &format!("{host}")));
    let health = Origin::start((cluster.subnet.ip(12), 0), "health");
    api.create_pool_with("role", checked_on(health.address().port())).await.unwrap();
    for (name, origin) in ["a", "b", "c"].iter().zip(&serving) {
        api.create_backend("role", name, origin.address()).await.unwrap();
    }
    let target = SocketAddr::from((ip, 8001));
    api.create_listener("role", target, "role").await.unwrap();
    cluster.agreed().await;

    let member = &mut cluster.members[0];
    member.stop();
    member.spawn();
    let connects = async || tokio::net::TcpStream::connect(target).await;
    wait_until("the listener serves again", PATIENCE, connects).await;
    let answers: BTreeSet<String> = (0..12).map(|_| fetch_http(target).unwrap()).collect();
    assert_eq!(answers.into_iter().collect::<Vec<_>>(), ["12"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_fail_open_backends_are_tried_when_all_are_down() {
    let mut cluster = Cluster::start(trestled(), 1).await;
    let api = cluster.api(0);
    let mut serving =
        [11, 12].map(|host| Origin::start((cluster.subnet.ip(host), 8080), &format!("origin{host}")));
    let mut health = Origin::start((cluster.subnet.ip(11), 0), "health");
    let settings = Pool { all_down: AllDown::FailOpen.into(), ..checked_on(health.address().port()) };
    api.create_pool_with("web", settings).await.unwrap();
    for (name, origin) in ["a", "b"].iter().zip(&serving) {
        api.create_backend("web", name, origin.address()).await.unwrap();
    }
    let target = SocketAddr::from((cluster.members[0].ip, 8080));
    api.create_listener("web", target, "web").await.unwrap();
    cluster.agreed().await;

    // One is healthy: the other is not tried.
    api.verdict("web", |backend| backend.ends_with("/a"), Verdict::Healthy).await;
    api.verdict("web", |backend| backend.ends_with("/b"), Verdict::Unhealthy).await;
    assert!((0..10).all(|_| fetch_http(target).unwrap() == "origin11"));

    health.stop();
    api.verdict("web", |_| true, Verdict::Unhealthy).await;
    let answers: BTreeSet<String> = (0..10).map(|_| fetch_http(target).unwrap()).collect();
    assert_eq!(answers.into_iter().collect::<Vec<_>>(), ["origin11", "origin12"]);
    // Only what serves is of use to a client, and a connect that fails is tried elsewhere.
    serving[0].stop();
    assert!((0..10).all(|_| fetch_http(target).unwrap() == "origin12"));
}

/// Gets the name of the backend that a client with this address is led to.
async fn fetch_from(client: Ipv4Addr, target: SocketAddr) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((client, 0).into()).unwrap();
    let stream = tokio::time::timeout(PATIENCE, socket.connect(target)).await.unwrap().unwrap();
    let mut stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().last().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_meets_the_same_backend_through_every_member() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let api = cluster.api(0);
    let origins: Vec<Origin> = (1..=5_u8)
        .map(|number| Origin::start((cluster.subnet.ip(10 + number), 0), &format!("origin{number}")))
        .collect();
    let check = HealthCheck { kind: Some(Kind::None(NoCheck {})), ..HealthCheck::default() };
    let settings =
        Pool { algorithm: Algorithm::SourceHash.into(), health_check: Some(check), ..Pool::default() };
    api.create_pool_with("web", settings).await.unwrap();
    for (number, origin) in origins.iter().enumerate() {
        api.create_backend("web", &format!("b{number}"), origin.address()).await.unwrap();
    }
    api.create_listener("web", "0.0.0.0:8080", "web").await.unwrap();
    cluster.agreed().await;

    let mut met = BTreeSet::new();
    for client in 30..60 {
        let client = cluster.subnet.ip(client);
        let mut names = BTreeSet::new();
        for member in &cluster.members {
            for _ in 0..2 {
                names.insert(fetch_from(client, (member.ip, 8080).into()).await);
            }
        }
        assert_eq!(names.len(), 1, "{client} is led to {names:?}");
        met.extend(names);
    }
    assert!(met.len() > 2, "30 clients are led to {met:?} only");
}
