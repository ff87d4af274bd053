//! Making a learner a voter.

use std::sync::Arc;

use openraft::ChangeMembers;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use trestle_model::{Member, MemberId};

use super::{
    CAUGHT_UP_WITHIN, MembershipProgress, MembershipStep, Memberships, NOW, POLL, STEP_WAIT, THEN,
    even_warning,
};
use crate::error::Error;
use crate::status::RaftStatus;

impl Memberships {
    /// Makes a learner that has caught up and answers a voter. Answers warnings. Does nothing for a voter.
    pub(crate) async fn promote(
        &self,
        id: MemberId,
        progress: &mpsc::Sender<MembershipProgress>,
    ) -> Result<Vec<String>, Error> {
        let (status, member) = self.promotable(id).await?;
        if status.voters.contains(&id) {
            return Ok(even_warning(NOW, status.voters.len()).into_iter().collect());
        }
        self.report(progress, MembershipStep::Agreeing, &member).await?;
        self.change_members(ChangeMembers::AddVoterIds([id.0].into()), true).await?;
        tracing::info!(member = %member.spec.name, %id, "is a voter now");
        Ok(even_warning(NOW, self.raft.status().voters.len()).into_iter().collect())
    }

    /// Says whether a learner could be made a voter now. Answers the warnings.
    pub(crate) async fn try_promote(&self, id: MemberId) -> Result<Vec<String>, Error> {
        let (status, _) = self.promotable(id).await?;
        let others = status.voters.iter().filter(|voter| **voter != id).count();
        Ok(even_warning(THEN, others + 1).into_iter().collect())
    }

    /// The member, once it has stored what the log has now, if it does not vote already. One that lags by a few entries need not
    /// be able to take them, and heartbeats do not tell.
    async fn promotable(&self, id: MemberId) -> Result<(RaftStatus, Arc<Member>), Error> {
        let deadline = Instant::now() + STEP_WAIT;
        let mut wanted = None;
        loop {
            let (_, status, member) = self.settled(|status| self.check_promotion(id, status)).await?;
            let wanted = *wanted.get_or_insert(status.last_log_index);
            let matched = status.matched.get(&id).copied().unwrap_or(0);
            if status.voters.contains(&id) || matched >= wanted {
                return Ok((status, member));
            }
            if Instant::now() >= deadline {
                return Err(Error::membership(format!(
                    "member \"{}\" has not stored the log within {STEP_WAIT:?}: it has {matched} of {wanted} entries; see its log, and \
                     \"trestle status\"",
                    member.spec.name
                )));
            }
            sleep(POLL).await;
        }
    }

    /// The member, if it votes or may.
    fn check_promotion(&self, id: MemberId, status: &RaftStatus) -> Result<Arc<Member>, Error> {
        let member = self.record(id)?;
        if status.voters.contains(&id) {
            return Ok(member);
        }
        let (name, address) = (&member.spec.name, &member.spec.peer_address);
        let lag = status.last_log_index.saturating_sub(status.matched.get(&id).copied().unwrap_or(0));
        let why = if !status.learners.contains(&id) {
            format!("is not taken in completely; repeat \"trestle member add {address}\" first")
        } else if !self.answering(status).contains(&id) {
            format!(
                "at {address} does not answer, and a voter that does not answer weakens the cluster; start it first"
            )
        } else if self.outdated.contains(id.0) {
            "runs a program that is too old for what the cluster has agreed on; upgrade it to the version of the other members \
             first"
                .to_owned()
        } else if lag > CAUGHT_UP_WITHIN {
            format!("lags by {lag} entries, more than {CAUGHT_UP_WITHIN}; wait until it has caught up")
        } else {
            return Ok(member);
        };
        Err(Error::membership(format!("member \"{name}\" {why}")))
    }
}
