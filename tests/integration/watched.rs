//! Who watches a cluster has its whole state.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use trestle_api::stored::state_digest;
use trestle_api::v1::cluster_service_client::ClusterServiceClient;
use trestle_api::v1::{AdminState, DrainMemberRequest, Pool, WatchClusterRequest};
use trestle_api::watched::WatchedCluster;
use trestle_testkit::{Cluster, wait_until};

use crate::trestled;

/// Revision and digest of the last whole state that a watch has brought.
type Seen = Arc<Mutex<(u64, String)>>;

/// Follows the members' watches in turns: each is left after some messages.
async fn follow(admins: Vec<std::net::SocketAddr>, seen: Seen) {
    let mut watched = WatchedCluster::default();
    for (number, admin) in admins.iter().cycle().enumerate() {
        let request = watched.request();
        let asked = async {
            ClusterServiceClient::connect(format!("http://{admin}"))
                .await
                .ok()?
                .watch_cluster(request)
                .await
                .ok()
        };
        let Some(answer) = asked.await else {
            // It is being restarted.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let mut messages = answer.into_inner();
        for _ in 0..3 + number % 5 {
            let patience = Duration::from_secs(1);
            let Ok(Ok(Some(message))) = tokio::time::timeout(patience, messages.message()).await else {
                break;
            };
            if let Some(state) = watched.take(&message).unwrap() {
                *seen.lock().unwrap() = (state.revision, state_digest(&state).to_string());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watched_state_has_the_digest_of_the_members() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let seen = Seen::default();
    let admins = cluster.members.iter().map(|member| member.admin()).collect();
    let following = tokio::spawn(follow(admins, seen.clone()));
    let api = cluster.api(0);
    for number in 0..12_u16 {
        let pool = format!("pool-{number}");
        api.create_pool_with(&pool, Pool { owner: "team \u{fc}".to_owned(), ..Pool::default() })
            .await
            .unwrap();
        for backend in ["a", "b", "c"] {
            let address = format!("{}:{}", cluster.subnet.ip(20), 8000 + number);
            api.create_backend(&pool, backend, address).await.unwrap();
        }
        api.set_state(&format!("pools/{pool}/backends/b"), AdminState::Draining).await.unwrap();
        api.create_listener(&format!("l-{number}"), &format!("0.0.0.0:{}", 9000 + number), &pool)
            .await
            .unwrap();
    }
    // A member that starts anew says again where it listens, which is no revision.
    cluster.members[2].kill();
    cluster.members[2].start();
    let drain = DrainMemberRequest { name: "members/m3".to_owned(), ..Default::default() };
    cluster.api(1).members().drain_member(drain).await.unwrap();
    let status = cluster.agreed().await;
    let member = &status.members[0];
    wait_until("the members' digest", Duration::from_secs(60), async || {
        let seen = seen.lock().unwrap().clone();
        if seen == (member.revision, member.digest.clone()) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    following.abort();
}

/// Where a member listens is no resource and has no revision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_goes_on_tells_where_a_new_member_listens() {
    let mut cluster = Cluster::start(trestled(), 1).await;
    let admin = cluster.members[0].admin();
    let mut watched = WatchedCluster::default();
    let mut client = ClusterServiceClient::connect(format!("http://{admin}")).await.unwrap();
    let mut messages = client.watch_cluster(watched.request()).await.unwrap().into_inner();
    let new = cluster.prepare();
    cluster.members[new].start();
    cluster.take_in(new).await;
    let wanted = cluster.members[new].admin();
    let told = async {
        loop {
            let message = messages.message().await.unwrap().unwrap();
            if let Some(state) = watched.take(&message).unwrap()
                && state.sockets.values().any(|sockets| sockets.admin == wanted)
            {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_a_revision_claims_no_later_one_before_its_changes() {
    let cluster = Cluster::start(trestled(), 1).await;
    let api = cluster.api(0);
    let mut revisions = Vec::new();
    for name in ["a", "b", "c"] {
        revisions.push(api.create_pool(name, None).await.unwrap().revision);
    }
    let request = WatchClusterRequest { start_revision: revisions[0], include_current: false };
    let mut messages = api.cluster().watch_cluster(request).await.unwrap().into_inner();
    let mut told = vec![messages.message().await.unwrap().unwrap().revision];
    while told.last() != revisions.last() {
        told.push(messages.message().await.unwrap().unwrap().revision);
    }
    assert_eq!(told, [&[revisions[0] - 1], &revisions[..]].concat());
}
