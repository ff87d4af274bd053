//! Asking to be taken into a cluster, on an empty member whose configuration names members to ask.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use trestle_api::{peer, unanswered};

use crate::peers::Peers;
use crate::this_member::ThisMember;

/// Pause between two rounds of asking.
const RETRY: Duration = Duration::from_secs(2);
/// How long one member may take to take this one in.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Asks each member of `join` in turn until this member belongs to a cluster.
pub(crate) async fn ask(local: ThisMember, peers: Peers, stop: CancellationToken) {
    if local.config.join.is_empty() {
        info!(
            "this member belongs to no cluster yet; create one with \"trestle cluster bootstrap\", or take it into one with \"trestle member add\""
        );
        return;
    }
    let mut told = String::new();
    while local.id().is_none() {
        for address in &local.config.join {
            match ask_one(&local, &peers, address).await {
                Ok(()) => {
                    info!(through = %address, "taken into the cluster as a learner; make it a voter with \"trestle member promote {}\"", local.config.name);
                    return;
                }
                // The same reason again and again is said once.
                Err(status) => {
                    let why = unanswered::why(&status);
                    if told != why {
                        warn!(through = %address, why, "not taken in yet; asking again every {RETRY:?}");
                        told = why;
                    }
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn ask_one(
    local: &ThisMember,
    peers: &Peers,
    address: &trestle_model::HostPort,
) -> Result<(), tonic::Status> {
    let mut client = peers.client(address)?;
    let request = peer::RequestJoinRequest { peer_address: local.config.advertise_peer_address.to_string() };
    match tokio::time::timeout(ANSWER_MAX, client.request_join(request)).await {
        Ok(answer) => answer.map(|_| ()),
        Err(_) => Err(tonic::Status::deadline_exceeded(format!("no answer within {ANSWER_MAX:?}"))),
    }
}
