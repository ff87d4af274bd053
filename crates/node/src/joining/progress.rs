//! What the leader does for members that joined by a token, without anybody's help: makes each a learner when its process answers, and
//! a voter when it has caught up and has the authority's key, unless its token says otherwise.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use trestle_api::{peer, unanswered};
use trestle_consensus::{ClusterView, MembershipProgress};
use trestle_model::{JoinAs, Member, MemberId};

use super::Joins;
use crate::peers::REPORT_TIMEOUT;

/// Time between two looks at who joins.
const LOOK: Duration = Duration::from_secs(1);

/// Nobody watches the progress; the log and the status show it.
fn unwatched() -> mpsc::Sender<MembershipProgress> {
    let (sender, mut receiver) = mpsc::channel(1);
    tokio::spawn(async move { while receiver.recv().await.is_some() {} });
    sender
}

/// The members that are not yet what they joined as.
fn waiting(view: &ClusterView) -> Vec<(Arc<Member>, JoinAs)> {
    let is_done = |id: &MemberId, joins_as: JoinAs| match joins_as {
        JoinAs::Voter => view.voters.contains(id),
        JoinAs::Learner => view.learners.contains(id) || view.voters.contains(id),
    };
    let left = view.state.joins_as.iter().filter(|(id, joins_as)| !is_done(id, **joins_as));
    left.filter_map(|(id, joins_as)| Some((view.state.members.get(id)?.clone(), *joins_as))).collect()
}

/// Brings members in whenever this member leads, until the stop.
pub(crate) async fn follow(joins: Joins, stop: CancellationToken) {
    let arrivals = &joins.local.arrivals;
    let (mut lacks, mut lost) = (None, None);
    loop {
        if joins.local.leads() {
            let view = joins.local.consensus.view().borrow().clone();
            let waiting = waiting(&view);
            arrivals.keep(|id| waiting.iter().any(|(member, _)| member.id == *id));
            join_all(waiting.iter().map(|(member, joins_as)| bring_in(&joins, member, *joins_as))).await;
            let lacked = joins.hand_over_to_voters().await.err().map(|status| status.message().to_owned());
            if let Some(why) = lacked.as_ref().filter(|why| lacks.as_ref() != Some(*why)) {
                warn!("a voter lacks what it should have: {why}");
            }
            lacks = lacked;
        } else {
            arrivals.keep(|_| false);
        }
        let missing = joins.find_lost_keys().await.err().map(|status| status.message().to_owned());
        if let Some(why) = missing.as_ref().filter(|why| lost.as_ref() != Some(*why)) {
            warn!("a key that this member should have is lost: {why}");
        }
        lost = missing;
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn bring_in(joins: &Joins, member: &Member, joins_as: JoinAs) {
    let (name, at) = (&member.spec.name, &member.spec.peer_address);
    let what = match joins_as {
        JoinAs::Voter => "voter",
        JoinAs::Learner => "learner",
    };
    let waited = match answers(joins, member).await {
        Err(why) => format!(
            "{name} has joined by a token and is waited for, to be a {what}: {at} does not answer as {name}: {why}; start trestled there, or \
             run \"trestle member remove {name}\""
        ),
        Ok(()) => match step(joins, member, joins_as).await {
            Err(why) => {
                format!("{name} has joined by a token and is no {what} yet: {why}; it is tried again")
            }
            Ok(()) => {
                joins.local.arrivals.keep(|id| *id != member.id);
                return;
            }
        },
    };
    if joins.local.arrivals.note(member.id, waited.clone()) {
        info!("{waited}");
    }
}

/// Whether the member's process runs: one that was only enrolled would be a learner that gets nothing.
async fn answers(joins: &Joins, member: &Member) -> Result<(), String> {
    let mut client =
        joins.peers.client(&member.spec.peer_address).map_err(|status| status.message().to_owned())?;
    let asked = client.describe(peer::DescribeRequest {});
    let described = match tokio::time::timeout(REPORT_TIMEOUT, asked).await {
        Ok(Ok(described)) => described.into_inner(),
        Ok(Err(status)) => return Err(unanswered::why(&status)),
        Err(_) => return Err(unanswered::none_within(REPORT_TIMEOUT)),
    };
    let ours = joins.local.consensus.identity().map(|identity| identity.cluster_id.to_string());
    let is_it =
        Some(&described.cluster_id) == ours.as_ref() && [0, member.id.0].contains(&described.member_id);
    match is_it {
        true => Ok(()),
        // For a moment after it was taken in, or for good where it was taken in by hand and nobody has started it anew.
        false if described.cluster_id.is_empty() => {
            Err("its process has not taken its place in the cluster yet".to_owned())
        }
        false => Err("another process answers there".to_owned()),
    }
}

async fn step(joins: &Joins, member: &Member, joins_as: JoinAs) -> Result<(), String> {
    let consensus = &joins.local.consensus;
    consensus.take_in(member.id, &unwatched()).await.map_err(|error| error.to_string())?;
    match joins_as {
        JoinAs::Learner => info!(member = %member.spec.name, "is a learner now"),
        JoinAs::Voter => {
            joins.hand_over(member.id).await.map_err(|status| status.message().to_owned())?;
            let warnings =
                consensus.promote(member.id, &unwatched()).await.map_err(|error| error.to_string())?;
            warnings.iter().for_each(|warning| info!("{warning}"));
        }
    }
    Ok(())
}
