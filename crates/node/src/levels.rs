//! Raising the cluster's feature level, as the leader: to the least of what all members' programs know.
//!
//! What a program knows is recorded when its process starts. A member that is off may come back with an older program than it
//! left with, so nothing is raised while a member does not answer, or another process answers than the recorded one. Who comes
//! back too old all the same is refused its place by the state, and says so.

use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use trestle_model::Member;

use crate::events::{Event, Journal};
use crate::registration::{Registrar, start_of_process_at};

/// Time between two looks at what the members know.
const LOOK: Duration = Duration::from_secs(2);

/// Raises the level whenever this member leads and all know more.
pub(crate) async fn follow(registrar: Registrar, journal: Journal, stop: CancellationToken) {
    loop {
        raise(&registrar, &journal).await;
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn raise(registrar: &Registrar, journal: &Journal) {
    let local = &registrar.local;
    if !local.leads() {
        return;
    }
    let state = local.consensus.view().borrow().state.clone();
    let Some(level) = state.common_feature_level().filter(|level| *level > state.feature_level) else {
        return;
    };
    let running = join_all(state.members.values().map(|record| running_start(registrar, record))).await;
    let recorded = state.members.keys().map(|id| state.starts.get(id).copied());
    if !running.into_iter().zip(recorded).all(|(running, recorded)| running.is_some() && running == recorded)
    {
        return;
    }
    let before = state.feature_level;
    match local.consensus.raise_level(level).await {
        Ok(()) => journal.emit(&Event::LevelRaised { before, level }),
        // Another member leads by now, or one was added.
        Err(error) => warn!(level, "the feature level is not raised yet: {error}"),
    }
}

/// The start of the process that is a member now.
async fn running_start(registrar: &Registrar, record: &Member) -> Option<u64> {
    if Some(record.id) == registrar.local.id() {
        return Some(registrar.local.start);
    }
    start_of_process_at(registrar, &record.spec.peer_address, record.id).await
}
