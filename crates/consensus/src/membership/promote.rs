//! Making a learner a voter.

use openraft::ChangeMembers;
use tokio::sync::mpsc;
use trestle_model::MemberId;

use super::{CAUGHT_UP_WITHIN, Progress, Step, even_warning};
use crate::error::Error;
use crate::shared::Core;

impl Core {
    /// Makes a learner that has caught up and answers a voter. Answers warnings. Does nothing for a voter.
    pub(crate) async fn promote(
        &self,
        id: MemberId,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<Vec<String>, Error> {
        let (_, status) = self.leading()?;
        let member = self.member(id)?;
        if status.voters.contains(&id) {
            return Ok(even_warning(status.voters.len()).into_iter().collect());
        }
        let name = &member.spec.name;
        if !status.learners.contains(&id) {
            return Err(Error::membership(format!(
                "member \"{name}\" is not taken in completely; repeat \"trestle member add {}\" first",
                member.spec.peer_address
            )));
        }
        if !self.answering(&status).contains(&id) {
            return Err(Error::membership(format!(
                "member \"{name}\" at {} does not answer, and a voter that does not answer weakens the cluster; start it \
                 first",
                member.spec.peer_address
            )));
        }
        let matched = status.matched.get(&id).copied().unwrap_or(0);
        let lag = status.last_log_index.saturating_sub(matched);
        if lag > CAUGHT_UP_WITHIN {
            return Err(Error::membership(format!(
                "member \"{name}\" lags by {lag} entries, more than {CAUGHT_UP_WITHIN}; wait until it has caught up"
            )));
        }
        self.report(progress, Step::Agreeing, &member).await?;
        self.change_members(ChangeMembers::AddVoterIds([id.0].into()), true).await?;
        tracing::info!(member = %name, %id, "is a voter now");
        Ok(even_warning(self.status().voters.len()).into_iter().collect())
    }
}
