//! SIGTERM: what is open may finish, and nobody else notices.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use trestle_testkit::{Cluster, Member, Origin, Traffic, fetch_http, get, wait_for};

use crate::trestled;

/// A cluster of so many members, started with this program, that leads port 8080 to an origin.
pub(crate) async fn serving(daemon: impl AsRef<Path>, size: u8) -> (Cluster, Origin) {
    let mut cluster = Cluster::start(daemon, size).await;
    let origin = serve(&mut cluster).await;
    (cluster, origin)
}

/// Has a cluster lead port 8080 to an origin.
pub(crate) async fn serve(cluster: &mut Cluster) -> Origin {
    let origin = Origin::start((cluster.subnet.ip(11), 0), "origin");
    let api = cluster.api(0);
    api.create_pool("web", None).await.unwrap();
    api.create_backend("web", "a", origin.address()).await.unwrap();
    api.create_listener("web", "0.0.0.0:8080", "web").await.unwrap();
    cluster.agreed().await;
    origin
}

/// One request on a connection that stays open.
pub(crate) fn ask(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: origin\r\n\r\n")?;
    let mut answer = [0; 1024];
    let count = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..count]).into_owned())
}

/// Waits until a member has ended that fails readiness and takes no new connections, each within this time, and goes on with
/// an open one until that ends.
pub(crate) fn ends_in_order(
    member: &mut Member,
    target: SocketAddr,
    mut open: TcpStream,
    limit: Duration,
) -> ExitStatus {
    wait_for("readiness to fail", limit, || match get(member.http(), "/readyz") {
        Ok(page) if page.status == 200 => Err("it is ready"),
        _ => Ok(()),
    });
    wait_for("new connections to be refused", limit, || match TcpStream::connect(target) {
        Ok(_) => Err("one was accepted"),
        Err(_) => Ok(()),
    });
    for _ in 0..3 {
        assert!(ask(&mut open).unwrap().contains("origin"), "an open connection goes on");
    }
    assert!(member.is_running(), "it waits for the open connection");
    drop(open);
    member.exited()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_stops_lets_connections_finish() {
    let (mut cluster, _origin) = serving(trestled(), 3).await;
    let leader = cluster.leader().await;
    let others: Vec<SocketAddr> = (0..3)
        .filter(|number| *number != leader)
        .map(|number| (cluster.members[number].ip, 8080).into())
        .collect();
    let traffic = Traffic::start(&others, fetch_http);
    traffic.next(3);

    let member = &mut cluster.members[leader];
    let target = SocketAddr::from((member.ip, 8080));
    let mut open = TcpStream::connect(target).unwrap();
    assert!(ask(&mut open).unwrap().contains("origin"));
    assert_eq!(get(member.http(), "/readyz").unwrap().status, 200);

    member.process().terminate();
    let status = ends_in_order(member, target, open, Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "{}", member.output());

    traffic.next(3);
    traffic.stop().assert_no_failure();
    let next = cluster.leader().await;
    assert_ne!(next, leader, "leadership was handed over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let (mut cluster, _origin) = serving(trestled(), 1).await;
    let member = &mut cluster.members[0];
    let mut open = TcpStream::connect((member.ip, 8080)).unwrap();
    ask(&mut open).unwrap();
    member.process().terminate();
    wait_for("new connections to be refused", Duration::from_secs(10), || {
        match TcpStream::connect((member.ip, 8080)) {
            Ok(_) => Err("one was accepted"),
            Err(_) => Ok(()),
        }
    });
    member.process().terminate();
    // Well before the grace time of 30 s: `exited` would give up then.
    let status = member.process().exited(Duration::from_secs(15));
    assert_ne!(status.code(), Some(0), "it did not end in good order, and says so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_are_restarted_one_by_one_while_others_serve() {
    let (mut cluster, _origin) = serving(trestled(), 3).await;
    for number in 0..3 {
        let others: Vec<SocketAddr> = (0..3)
            .filter(|other| *other != number)
            .map(|other| (cluster.members[other].ip, 8080).into())
            .collect();
        let traffic = Traffic::start(&others, fetch_http);
        traffic.next(2);
        assert_eq!(cluster.members[number].stop().code(), Some(0), "{}", cluster.members[number].output());
        traffic.next(2);
        cluster.members[number].start();
        cluster.agreed().await;
        traffic.next(2);
        traffic.stop().assert_no_failure();
    }
}
