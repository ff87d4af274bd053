//! Handing leadership over.

use openraft::raft::VoteRequest;
use tokio::time::{Instant, timeout, timeout_at};
use trestle_model::MemberId;

use super::{CAUGHT_UP_WITHIN, Memberships};
use crate::error::Error;
use crate::raft_types::{LeaderId, LogId, Vote};
use crate::replica::RaftHandle;
use crate::status::{self, RaftState, RaftStatus};
use crate::vote_guard::PendingVote;

/// Added to the wait for the new leader, for a busy machine.
const MARGIN: std::time::Duration = std::time::Duration::from_secs(1);

impl Memberships {
    /// Hands leadership to a voter, the one that is best caught up unless `to` names one. Returns when it leads, with its
    /// term. openraft cannot take a transfer back, and refuses writes from its start on, so the target is checked first; and
    /// when it does not lead in time, this member stands again.
    pub(crate) async fn transfer(&self, to: Option<MemberId>) -> Result<(MemberId, u64), Error> {
        let (raft, status, to) = self.settled(|status| self.transfer_target(to, status)).await?;
        if Some(to) == self.member.id() {
            return Ok((to, status.term));
        }
        let timing = self.member.timing();
        raft.trigger().transfer_leader(to.0).await.map_err(Error::internal)?;
        // An election after a failed transfer takes a lease and a time-out; after that something else is wrong.
        let deadline = Instant::now() + 4 * timing.election_max + MARGIN;
        let mut role = self.raft.watch_role();
        let other = |role: &crate::RaftRole| {
            role.term > status.term
                && role.leader.as_ref().is_some_and(|(id, _)| Some(*id) != self.member.id())
        };
        let came = tokio::select! {
            came = timeout(timing.election_max, role.wait_for(other)) => came.is_ok(),
            () = self.quorum.transfer_refused(status.term) => false,
        };
        if !came {
            self.stand_for_reelection(&raft, status.term, to).await?;
        }
        let term = status.term;
        let decided = |role: &crate::RaftRole| role.term > term && role.leader.is_some();
        let arrived = timeout_at(deadline, role.wait_for(decided)).await;
        let (leader, term) = match arrived {
            Ok(Ok(role)) => (role.leader.as_ref().map(|(id, _)| *id), role.term),
            _ => (None, 0),
        };
        match leader {
            Some(leader) if leader == to => Ok((leader, term)),
            Some(other) if Some(other) == self.member.id() => Err(Error::membership(format!(
                "member {to} did not take over; this member leads on, in term {term}"
            ))),
            Some(other) => {
                Err(Error::membership(format!("member {to} was to lead, but member {other} was elected")))
            }
            None => Err(Error::membership(format!(
                "member {to} did not take over in time; the cluster elects a leader by itself: see \"trestle leader show\""
            ))),
        }
    }

    /// Makes this leader, whose successor does not come, stand in a later term: a leader cannot take a transfer back, and only
    /// another term makes void what it has told the voters. It steps down by voting for the successor in the next term, of which
    /// nobody learns, and stands in the one after that. Does nothing when it does not lead any more, or its virtual IPs are not free.
    async fn stand_for_reelection(&self, raft: &RaftHandle, term: u64, to: MemberId) -> Result<(), Error> {
        let now = status::of_raft(raft);
        if now.state != RaftState::Leader || now.term != term {
            return Ok(());
        }
        let Some(asked) = PendingVote::ask(&self.member.settings().vote_guard, term + 1) else {
            return Ok(());
        };
        let successor = LeaderId { term: term + 1, node_id: to.0 };
        let step_down = VoteRequest {
            vote: Vote { leader_id: successor, committed: false },
            // Later than any entry that it can have.
            last_log_id: Some(LogId::new(successor, 0)),
            leadership_transfer: true,
        };
        let answer = raft.vote(step_down).await.map_err(Error::internal)?;
        asked.answered(answer.vote_granted);
        if answer.vote_granted {
            tracing::warn!(term, "nobody took leadership over; this member stands again");
            self.quorum.record_reelection(term + 2);
            raft.trigger().elect(false).await.map_err(Error::internal)?;
        }
        Ok(())
    }

    /// The other voters that can take over now, the one with most of the log first; none if this member does not lead.
    pub(crate) fn targets(&self) -> Vec<MemberId> {
        self.leading().map(|(_, status)| self.fit_targets(&status)).unwrap_or_default()
    }

    /// Voters that answer and have caught up, best first.
    fn fit_targets(&self, status: &RaftStatus) -> Vec<MemberId> {
        let answering = self.answering(status);
        let matched = |id: &MemberId| status.matched.get(id).copied().unwrap_or(0);
        // One that has less than it once had is being filled again.
        let whole =
            |id: &MemberId| self.known_disks.of(id.0).last.is_none_or(|last| matched(id) >= last.index);
        let fit = |id: &MemberId| {
            answering.contains(id)
                && !self.outdated.contains(id.0)
                && whole(id)
                && status.last_log_index.saturating_sub(matched(id)) <= CAUGHT_UP_WITHIN
        };
        let others = status.voters.iter().copied().filter(|id| Some(*id) != self.member.id());
        let mut targets: Vec<_> = others.filter(fit).collect();
        targets.sort_by_key(|id| std::cmp::Reverse(matched(id)));
        targets
    }

    fn transfer_target(&self, to: Option<MemberId>, status: &RaftStatus) -> Result<MemberId, Error> {
        let fit = self.fit_targets(status);
        let Some(to) = to else {
            return fit.first().copied().ok_or_else(|| {
                Error::membership(
                    "no other voter answers and has caught up, so there is none to hand leadership to",
                )
            });
        };
        let refuse =
            |why: String| Err(Error::membership(format!("leadership cannot go to member {to}: {why}")));
        if !status.voters.contains(&to) {
            return refuse("it does not vote; promote it first".to_owned());
        }
        if fit.contains(&to) || Some(to) == self.member.id() {
            return Ok(to);
        }
        if !self.answering(status).contains(&to) {
            return refuse("it does not answer".to_owned());
        }
        if self.outdated.contains(to.0) {
            return refuse(
                "its program is too old for what the cluster has agreed on; upgrade it".to_owned(),
            );
        }
        let matched = status.matched.get(&to).copied().unwrap_or(0);
        refuse(format!("it has {matched} of {} log entries", status.last_log_index))
    }
}
