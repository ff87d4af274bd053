//! Asking to be taken into a cluster, on an empty member whose configuration names members to ask, or a file with a token.

use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use trestle_api::{peer, unanswered};
use trestle_identity::{TokenText, read_private};
use trestle_model::HostPort;

use crate::identities::OwnLeaf;
use crate::peers::Peers;
use crate::this_member::ThisMember;
use crate::{founding, joining};

/// Pause between two rounds of asking.
const RETRY: Duration = Duration::from_secs(2);
/// How long one member may take to take this one in.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Founds a cluster with the other initial members, or asks to be taken in, by its token or else each member of `join` in turn, until this
/// member belongs to a cluster.
pub(crate) async fn ask(local: ThisMember, leaf: OwnLeaf, peers: Peers, stop: CancellationToken) {
    if local.config.founding.is_some() {
        return founding::found_or_join(local, leaf, stop).await;
    }
    if local.config.join.is_empty() && local.config.join_token_file.is_none() {
        info!(
            "this member belongs to no cluster yet; create one with \"trestle cluster bootstrap\", or let it join one by a token with \
             \"trestled join\"; into one without identities \"trestle member add\" takes it"
        );
        return;
    }
    let mut told = String::new();
    while local.id().is_none() {
        let failed = match &local.config.join_token_file {
            Some(file) => {
                by_token(&local, &leaf, file).await.err().map(|why| (file.display().to_string(), why))
            }
            None => by_address(&local, &peers).await,
        };
        match failed {
            None => return,
            // The same reason again and again is said once.
            Some((through, why)) if told != why => {
                warn!(through, why, "not taken in yet; asking again every {RETRY:?}");
                told = why;
            }
            Some(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Joins by the token of a file, which is read anew each time: a better one may be put there.
async fn by_token(local: &ThisMember, leaf: &OwnLeaf, file: &Path) -> Result<(), String> {
    let text = read_private(file).map_err(|error| format!("the token cannot be read: {error}"))?;
    let text = text.ok_or_else(|| "there is no such file".to_owned())?;
    let token = TokenText::parse(&text).map_err(|error| error.to_string())?;
    joining::by_token(local, leaf, &token).await.map_err(|error| error.to_string())
}

/// Asks each member of `join`; answers the last one that refused, and why.
async fn by_address(local: &ThisMember, peers: &Peers) -> Option<(String, String)> {
    let mut last = None;
    for address in &local.config.join {
        match ask_one(local, peers, address).await {
            Ok(()) => {
                info!(through = %address, "taken into the cluster as a learner; make it a voter with \"trestle member promote {}\"", local.config.name);
                return None;
            }
            Err(status) => last = Some((address.to_string(), unanswered::why(&status))),
        }
    }
    last
}

async fn ask_one(local: &ThisMember, peers: &Peers, address: &HostPort) -> Result<(), tonic::Status> {
    let mut client = peers.client(address)?;
    let request = peer::RequestJoinRequest { peer_address: local.config.advertise_peer_address.to_string() };
    match tokio::time::timeout(ANSWER_MAX, client.request_join(request)).await {
        Ok(answer) => answer.map(|_| ()),
        Err(_) => Err(tonic::Status::deadline_exceeded(format!("no answer within {ANSWER_MAX:?}"))),
    }
}
