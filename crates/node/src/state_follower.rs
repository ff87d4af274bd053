//! What the data plane is to do follows what this member knows.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use trestle_consensus::RaftState;
use trestle_dataplane::DataPlane;
use trestle_model::ClusterState;

use crate::peers::Peers;
use crate::removal::RemovalGrace;
use crate::this_member::ThisMember;

/// Passes each new state on to the data plane; once this member was removed, what is left of the last one.
pub(crate) async fn follow(
    local: ThisMember,
    peers: Peers,
    plane: Arc<DataPlane>,
    state: watch::Sender<Arc<ClusterState>>,
) {
    let (mut view, mut role) = (local.consensus.view(), local.consensus.role());
    let mut removal = RemovalGrace::default();
    loop {
        let known = view.borrow_and_update().state.clone();
        let removed = role.borrow_and_update().state == RaftState::Removed;
        let addresses: Vec<_> =
            known.members.values().map(|member| member.spec.peer_address.clone()).collect();
        peers.keep(|address| addresses.contains(address));
        let (grace, was_leaving) = (local.config.shutdown_grace, removal.is_leaving());
        let (new, again) = removal.remaining_state(known, removed, grace, Instant::now());
        if removal.is_leaving() != was_leaving {
            plane.end_within(removal.is_leaving().then_some(grace));
        }
        let grace_ends = async move {
            match again {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        if state.send(new).is_err() {
            return;
        }
        let ended = tokio::select! {
            changed = view.changed() => changed.is_err(),
            changed = role.changed() => changed.is_err(),
            () = grace_ends => false,
        };
        if ended {
            return;
        }
    }
}
