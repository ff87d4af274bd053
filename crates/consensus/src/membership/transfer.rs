//! Handing leadership over.

use tokio::time::{Instant, timeout_at};
use trestle_model::MemberId;

use super::CAUGHT_UP_WITHIN;
use crate::error::Error;
use crate::shared::Core;
use crate::status::RaftStatus;

/// Added to the wait for the new leader, for a busy machine.
const MARGIN: std::time::Duration = std::time::Duration::from_secs(1);

impl Core {
    /// Hands leadership to a voter, the one that is best caught up unless `to` names one. Returns when it leads, with its
    /// term. openraft cannot take a transfer back, and refuses writes from its start on, so the target is checked first.
    pub(crate) async fn transfer(&self, to: Option<MemberId>) -> Result<(MemberId, u64), Error> {
        let (raft, status, to) = self.settled(|status| self.transfer_target(to, status)).await?;
        if Some(to) == self.me() {
            return Ok((to, status.term));
        }
        let timing = self.settings.timing;
        raft.trigger().transfer_leader(to.0).await.map_err(Error::internal)?;
        // An election after a failed transfer takes a lease and a time-out; after that something else is wrong.
        let deadline = Instant::now() + 4 * timing.election_max + MARGIN;
        let mut role = self.role.subscribe();
        let other = |role: &crate::Role| {
            role.term > status.term && role.leader.as_ref().is_some_and(|(id, _)| Some(*id) != self.me())
        };
        let arrived = timeout_at(deadline, role.wait_for(other)).await;
        let (leader, term) = match arrived {
            Ok(Ok(role)) => (role.leader.as_ref().map(|(id, _)| *id), role.term),
            _ => (None, 0),
        };
        match leader {
            Some(leader) if leader == to => Ok((leader, term)),
            Some(other) => {
                Err(Error::membership(format!("member {to} was to lead, but member {other} was elected")))
            }
            None => Err(Error::membership(format!(
                "member {to} did not take over in time; the cluster elects a leader by itself: see \"trestle leader show\""
            ))),
        }
    }

    /// The other voters that can take over now, the one with most of the log first; none if this member does not lead.
    pub(crate) fn targets(&self) -> Vec<MemberId> {
        self.leading().map(|(_, status)| self.fit_targets(&status)).unwrap_or_default()
    }

    /// Voters that answer and have caught up, best first.
    fn fit_targets(&self, status: &RaftStatus) -> Vec<MemberId> {
        let answering = self.answering(status);
        let matched = |id: &MemberId| status.matched.get(id).copied().unwrap_or(0);
        let fit = |id: &MemberId| {
            answering.contains(id) && status.last_log_index.saturating_sub(matched(id)) <= CAUGHT_UP_WITHIN
        };
        let others = status.voters.iter().copied().filter(|id| Some(*id) != self.me());
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
        if fit.contains(&to) || Some(to) == self.me() {
            return Ok(to);
        }
        if !self.answering(status).contains(&to) {
            return refuse("it does not answer".to_owned());
        }
        let matched = status.matched.get(&to).copied().unwrap_or(0);
        refuse(format!("it has {matched} of {} log entries", status.last_log_index))
    }
}
