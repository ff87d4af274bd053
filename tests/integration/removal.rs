//! Members that were removed: what they do, what they are believed, and how they come back.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tonic::Code;
use trestle_api::v1::{GetClusterStatusRequest, MemberStatus, RaftState, RemoveMemberRequest};
use trestle_testkit::{Api, Cluster, Origin, fetch_http, get, wait_for, wait_until};

use crate::{trestle, trestled};

const LIMIT: Duration = Duration::from_secs(30);

async fn remove(api: &Api, name: &str) {
    wait_until(&format!("removal of {name}"), LIMIT, async || {
        match api
            .members()
            .remove_member(RemoveMemberRequest { name: format!("members/{name}"), ..Default::default() })
            .await
        {
            Ok(_) => Ok(()),
            Err(status) if matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded) => Err(status),
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => panic!("remove {name}: {status}"),
        }
    })
    .await;
}

/// What a member says of itself alone.
async fn own_status(api: &Api) -> MemberStatus {
    let request = GetClusterStatusRequest { local_only: true };
    let status = api.cluster().get_cluster_status(request).await.unwrap().into_inner();
    status.members.into_iter().next().unwrap()
}

/// One request on a connection that stays open.
fn ask(stream: &mut TcpStream) -> std::io::Result<usize> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: origin\r\n\r\n")?;
    stream.read(&mut [0; 1024])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_in_the_wrong_order_removes_nobody() {
    let mut cluster = Cluster::start(trestled(), 4).await;
    let api = cluster.api(0);
    api.create_pool("before", None).await.unwrap();
    cluster.members[2].kill();
    // Its process goes on, and answers whoever calls.
    remove(&api, "m4").await;
    wait_for("m4 to say that it was removed", LIMIT, || {
        let page = get(cluster.members[3].http(), "/readyz").map_err(|e| e.to_string())?;
        if page.body.contains("was removed") { Ok(()) } else { Err(page.body) }
    });
    cluster.members[0].kill();
    cluster.members[1].kill();
    // The first to come back knows nothing of the removal and asks the removed one; the others follow one by one.
    for number in [2, 0, 1] {
        cluster.members[number].start();
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    let status = cluster.agreed().await;
    assert_eq!(status.members.len(), 3, "{status:#?}");
    cluster.api(0).create_pool("after", None).await.unwrap();
    cluster.agreed().await;
    for number in 0..3 {
        let said = cluster.members[number].output();
        assert!(!said.contains("this member was removed"), "{said}");
        let own = own_status(&cluster.api(number)).await;
        assert_ne!(own.raft_state(), RaftState::Removed);
        assert!(own.problems.is_empty(), "{:?}", own.problems);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_drains_and_stays_out_until_it_is_added_again() {
    let mut cluster = Cluster::start_with(trestled(), 3, "shutdown_grace = \"5s\"\n").await;
    let origin = Origin::start((cluster.subnet.ip(11), 0), "origin");
    let api = cluster.api(0);
    api.create_pool("web", None).await.unwrap();
    api.create_backend("web", "a", origin.address()).await.unwrap();
    api.create_listener("web", "0.0.0.0:8080", "web").await.unwrap();
    let drained = drained_without_a_deadline(&cluster, &origin).await;
    let before = cluster.agreed().await;
    let target = SocketAddr::from((cluster.members[2].ip, 8080));
    let mut open = TcpStream::connect(target).unwrap();
    assert!(ask(&mut open).unwrap() > 0);

    let ends = std::thread::spawn(move || ends(drained));
    remove(&api, "m3").await;
    wait_for("new connections to be refused", LIMIT, || match TcpStream::connect(target) {
        Ok(_) => Err("one was accepted"),
        Err(_) => Ok(()),
    });
    assert!(ask(&mut open).unwrap() > 0, "an open connection goes on");
    wait_for("the end of the open connection", LIMIT, || match ask(&mut open) {
        Ok(0) | Err(_) => Ok(()),
        Ok(_) => Err("it goes on"),
    });
    let ends = ends.join().unwrap();
    let (first, last) = (ends.iter().min().unwrap(), ends.iter().max().unwrap());
    // Half of five seconds is what they are spread over.
    assert!(last.saturating_duration_since(*first) > Duration::from_secs(1), "all end at once: {ends:?}");
    stays_out(&cluster, target).await;

    // It knows what it is after a restart as well.
    cluster.members[2].kill();
    cluster.members[2].start();
    stays_out(&cluster, target).await;

    // Then it is taken in as another member, and serves.
    cluster.take_in(2).await;
    let after = cluster.agreed().await;
    let id = |status: &trestle_api::v1::ClusterStatus| {
        let records = status.members.iter().filter_map(|status| status.member.as_ref());
        records.filter(|member| member.name == "members/m3").map(|member| member.id).next()
    };
    assert!(id(&after) > id(&before), "an id is never used again: {:?}, {:?}", id(&before), id(&after));
    wait_for("service by m3", LIMIT, || match fetch_http(target) {
        Ok(text) if text == "origin" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(get(cluster.members[2].http(), "/readyz").unwrap().status, 200);
    let old = cluster.members[2].data_dir().join(format!("removed-member-{}", id(&before).unwrap()));
    assert!(old.join("store").is_dir(), "{} is missing", old.display());
    let said = cluster.members[2].output();
    assert!(said.contains(&old.display().to_string()), "{said}");
}

/// Connections through the third member to a backend that is drained for as long as they take.
async fn drained_without_a_deadline(cluster: &Cluster, origin: &Origin) -> Vec<TcpStream> {
    let endpoint = cluster.members[0].admin().to_string();
    let address = origin.address().to_string();
    for arguments in [
        &["pool", "create", "old", "--health", "none", "--close-spread-percent", "50"][..],
        &["backend", "add", "old/a", &address],
        &["listener", "create", "old", "--bind", "0.0.0.0:8081", "--pool", "old", "--wait"],
    ] {
        trestle(&endpoint, arguments).expect_success();
    }
    let target = SocketAddr::from((cluster.members[2].ip, 8081));
    let connect = |_| {
        let mut stream = TcpStream::connect(target).unwrap();
        assert!(ask(&mut stream).unwrap() > 0);
        stream
    };
    let streams = (0..20).map(connect).collect();
    // A drain that is waited for takes until no connection is left.
    trestle(&endpoint, &["backend", "drain", "old/a"]).expect_success();
    trestle(&endpoint, &["backend", "update", "old/a", "--weight", "2", "--wait"]).expect_success();
    streams
}

/// When each of these connections ends.
fn ends(streams: Vec<TcpStream>) -> Vec<Instant> {
    let wait = |mut stream: TcpStream| {
        std::thread::spawn(move || {
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            let end = stream.read(&mut [0; 1]);
            assert!(matches!(&end, Err(error) if error.kind() == ErrorKind::ConnectionReset), "{end:?}");
            Instant::now()
        })
    };
    let waiting: Vec<_> = streams.into_iter().map(wait).collect();
    waiting.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// The third member is there, says what has become of it, and does nothing else.
async fn stays_out(cluster: &Cluster, target: SocketAddr) {
    let member = &cluster.members[2];
    assert_eq!(get(member.http(), "/livez").unwrap().status, 200);
    let ready = get(member.http(), "/readyz").unwrap();
    assert_eq!((ready.status, ready.body.trim()), (503, "was removed from its cluster"));
    assert!(TcpStream::connect(target).is_err());
    let api = cluster.api(2);
    let own = own_status(&api).await;
    assert_eq!((own.raft_state(), own.listeners_bound), (RaftState::Removed, 0), "{own:#?}");
    assert!(own.problems.iter().any(|problem| problem.contains("trestle member add")), "{own:#?}");
    // Nobody else is asked, and no configuration is shown as if it were one.
    let status = api.status().await.unwrap();
    assert_eq!((status.members.len(), status.counts.unwrap_or_default().pools), (1, 0));
    let refused = api.create_pool("nowhere", None).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
}
