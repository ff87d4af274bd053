//! Removing a member, running or lost.

use std::sync::Arc;

use openraft::ChangeMembers;
use trestle_model::{Command, Member, MemberId, Origin, Proposal};

use super::{Memberships, NOW, RemovalOutcome, STEP_WAIT, THEN, even_warning};
use crate::error::Error;
use crate::propose::DEFAULT_WAIT;
use crate::status::RaftStatus;

impl Memberships {
    /// Removes a member from Raft, then from the state, then tells it. A repeated call goes on where an earlier one
    /// stopped.
    pub(crate) async fn remove(&self, id: MemberId, origin: Option<Origin>) -> Result<RemovalOutcome, Error> {
        let (_, status, member) = self.settled(|status| self.check_removal(id, status)).await?;
        let votes = status.voters.contains(&id);
        if votes && Some(id) == self.member.id() {
            return Ok(RemovalOutcome::LeadershipMustMove);
        }
        if votes {
            // A voter that died a moment ago still counts as answering, and a change that then finds no quorum cannot be
            // taken back: look again once the answers are newer than this call.
            tokio::time::sleep(self.member.timing().patience()).await;
            self.settled(|status| self.check_removal(id, status)).await?;
            self.change_members(ChangeMembers::RemoveVoters([id.0].into()), false).await?;
        } else if status.learners.contains(&id) {
            self.change_members(ChangeMembers::RemoveNodes([id.0].into()), false).await?;
        }
        let proposal = Proposal { origin, request: None, command: Command::RemoveMember(id) };
        let revision = self.proposals.propose_here(proposal, DEFAULT_WAIT).await?.revision;
        tracing::info!(member = %member.spec.name, %id, "was removed");
        self.peers.notify_removed(member.spec.peer_address.as_str(), id, STEP_WAIT).await;
        let left = self.raft.status().voters.len();
        let warnings = if votes { even_warning(NOW, left) } else { None };
        Ok(RemovalOutcome::Done { revision, warnings: warnings.into_iter().collect() })
    }

    /// Says whether a member could be removed now. Answers the warnings.
    pub(crate) async fn try_remove(&self, id: MemberId) -> Result<Vec<String>, Error> {
        let (_, status, _) = self.settled(|status| self.check_removal(id, status)).await?;
        let left = status.voters.iter().filter(|voter| **voter != id).count();
        let even = if left < status.voters.len() { even_warning(THEN, left) } else { None };
        Ok(even.into_iter().collect())
    }

    /// The member, unless those left that answer now would be no quorum of those left.
    fn check_removal(&self, id: MemberId, status: &RaftStatus) -> Result<Arc<Member>, Error> {
        let member = self.record(id)?;
        if !status.voters.contains(&id) {
            return Ok(member);
        }
        let mut left = status.voters.clone();
        left.remove(&id);
        if left.is_empty() {
            return Err(Error::membership(format!(
                "member \"{}\" is the only voter; without it there is no cluster: promote another member first",
                member.spec.name
            )));
        }
        let answering = self.answering(status).intersection(&left).count();
        let needed = left.len() / 2 + 1;
        if answering < needed {
            return Err(Error::membership(format!(
                "without member \"{}\" there are {} voters, of which {answering} answer now and {needed} must: the cluster would \
                 stop; bring a voter back, or add and promote one, first",
                member.spec.name,
                left.len()
            )));
        }
        Ok(member)
    }
}
