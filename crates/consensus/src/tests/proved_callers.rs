//! What a member gets done in the name of another one once it has to prove who it is: nothing.

use futures_util::stream;
use tonic::{Code, Request, Status};
use trestle_api::peer as proto;

use super::cluster::{Cluster, PROVED};
use super::votes::{LONG, destination, request, service};
use crate::raft_types::{LeaderId, Vote};
use crate::wire;

/// A call of the member that has proved to be `id`.
fn by<T>(id: u64, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(PROVED, id.to_string().parse().unwrap());
    request
}

fn is_denied<T>(answer: Result<T, Status>, claimed: u64) {
    let Err(refused) = answer else { panic!("a call in the name of {claimed} was answered") };
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains(&format!("in the name of member {claimed}")), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_calls_in_no_name_but_its_own() {
    let cluster = Cluster::with_timing(3, LONG).await;
    let leader = cluster.leader().await;
    let (at, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let (leads, me) = (cluster.id(leader).0, cluster.id(other).0);
    let to = || Some(destination(&cluster, at));
    let term = cluster.at(leader).status().term;
    let vote = wire::vote_message(&Vote { leader_id: LeaderId { term, node_id: leads }, committed: true });
    let append = proto::AppendEntriesRequest { to: to(), vote: Some(vote), ..Default::default() };
    let mut service = service(&cluster, at).await;
    is_denied(service.append_entries(by(me, append.clone())).await, leads);
    let mut stream = service.append_stream(by(me, stream::iter([append.clone()]))).await.unwrap();
    is_denied(stream.get_mut().message().await, leads);
    service.append_entries(by(leads, append.clone())).await.unwrap();
    let snapshot = proto::InstallSnapshotRequest { to: to(), vote: Some(vote), ..Default::default() };
    is_denied(service.install_snapshot(by(me, stream::iter([snapshot]))).await, leads);
    let transfer = proto::TransferLeaderRequest {
        to: to(),
        from_leader: Some(vote),
        to_member_id: me,
        last_log_id: None,
    };
    is_denied(service.transfer_leader(by(me, transfer)).await, leads);
    let candidate = wire::vote_request_message(destination(&cluster, at), &request(&cluster, leader, false));
    is_denied(service.vote(by(me, candidate.clone())).await, leads);
    is_denied(service.pre_vote(by(me, candidate)).await, leads);
    let own = wire::vote_request_message(destination(&cluster, at), &request(&cluster, other, false));
    service.pre_vote(by(me, own)).await.unwrap();
    let disk = proto::CheckDiskRequest { to: to(), member_id: leads };
    is_denied(service.check_disk(by(me, disk.clone())).await, leads);
    service.check_disk(by(leads, disk)).await.unwrap();
}
