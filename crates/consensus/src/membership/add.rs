//! Taking in a member as a learner.

use std::sync::Arc;

use openraft::ChangeMembers;
use tokio::sync::mpsc;
use trestle_model::{
    ClusterState, Command, Kind, Member, MemberId, MemberSpec, Origin, Outcome, Proposal, Refusal,
};

use super::{CAUGHT_UP_WITHIN, MembershipProgress, MembershipStep, Memberships, POLL, STEP_WAIT};
use crate::error::Error;
use crate::propose::DEFAULT_WAIT;
use crate::raft_types::PeerNode;

/// How long a member may stand still while it catches up before the call gives up; replication goes on.
const STALLED_AFTER: std::time::Duration = std::time::Duration::from_secs(30);

/// The record that an earlier call has made of the member that `spec` describes, if one has.
///
/// # Errors
/// When another member has its name, or its program is too old.
fn recorded(state: &ClusterState, spec: &MemberSpec) -> Result<Option<Arc<Member>>, Error> {
    state.check_member_level(&spec.name, spec.feature_level_max)?;
    let Some(member) = state.member_named(&spec.name) else { return Ok(None) };
    // It may run another program by now, and says so itself when it has joined.
    let feature_level_max = member.spec.feature_level_max;
    if member.spec == (MemberSpec { feature_level_max, ..spec.clone() }) {
        return Ok(Some(member.clone()));
    }
    let (kind, name, revision) = (Kind::Member, spec.name.to_string(), member.revision);
    Err(Refusal::Exists { kind, name, revision }.into())
}

impl Memberships {
    /// Takes in the empty member that `spec` describes: allocates an id, gives it its identity, makes it a learner, waits
    /// until it has caught up. A repeated call goes on where an earlier one stopped.
    pub(crate) async fn add(
        &self,
        spec: MemberSpec,
        origin: Option<Origin>,
        progress: &mpsc::Sender<MembershipProgress>,
    ) -> Result<Arc<Member>, Error> {
        self.settled(|_| Ok(())).await?;
        let member = self.allocate(spec, origin).await?;
        self.report(progress, MembershipStep::Allocated, &member).await?;
        self.refuse_voter(&member)?;
        let address = member.spec.peer_address.as_str();
        self.peers.adopt(address, member.id, member.spec.name.as_str(), STEP_WAIT).await?;
        self.report(progress, MembershipStep::Adopted, &member).await?;
        self.replicate_to(&member, progress).await?;
        Ok(member)
    }

    /// Makes a member that has a record and its identity a learner, and waits until it has caught up. A repeated call goes on where
    /// an earlier one stopped. Does nothing for a voter.
    pub(crate) async fn take_in(
        &self,
        id: MemberId,
        progress: &mpsc::Sender<MembershipProgress>,
    ) -> Result<Arc<Member>, Error> {
        self.settled(|_| Ok(())).await?;
        let member = self.record(id)?;
        if !self.raft.role().voters.contains_key(&id) {
            self.replicate_to(&member, progress).await?;
        }
        Ok(member)
    }

    /// Makes a member a learner unless it is one, and waits until it has caught up.
    async fn replicate_to(
        &self,
        member: &Arc<Member>,
        progress: &mpsc::Sender<MembershipProgress>,
    ) -> Result<(), Error> {
        let is_learner = self.raft.role().learners.contains_key(&member.id);
        if !is_learner {
            let node = PeerNode { peer_address: member.spec.peer_address.to_string() };
            self.change_members(ChangeMembers::AddNodes([(member.id.0, node)].into()), true).await?;
        }
        self.caught_up(member, progress).await
    }

    /// Says whether the member that `spec` describes could be added now. Answers it as it is or would be recorded.
    pub(crate) async fn try_add(&self, spec: &MemberSpec) -> Result<Arc<Member>, Error> {
        self.settled(|_| Ok(())).await?;
        let view = self.reads.read(DEFAULT_WAIT).await?;
        if let Some(member) = recorded(&view.state, spec)? {
            self.refuse_voter(&member)?;
            return Ok(member);
        }
        match view.state.decide(view.applied + 1, &Command::AddMember(spec.clone()))?.outcome {
            Outcome::Member(member) => Ok(Arc::new(Member { id: MemberId(0), ..Member::clone(&member) })),
            other => Err(Error::internal(format!("a new member was answered with {other:?}"))),
        }
    }

    fn refuse_voter(&self, member: &Member) -> Result<(), Error> {
        if self.raft.role().voters.contains_key(&member.id) {
            return Err(Error::membership(format!(
                "member \"{}\" is a voter already; \"trestle member add --if-absent\" takes that for done",
                member.spec.name
            )));
        }
        Ok(())
    }

    /// The member's record, made now unless an earlier call has made it.
    async fn allocate(&self, spec: MemberSpec, origin: Option<Origin>) -> Result<Arc<Member>, Error> {
        let state = self.reads.read(DEFAULT_WAIT).await?.state.clone();
        if let Some(member) = recorded(&state, &spec)? {
            return Ok(member);
        }
        let proposal = Proposal { origin, request: None, command: Command::AddMember(spec) };
        match self.proposals.propose_here(proposal, DEFAULT_WAIT).await?.outcome {
            Outcome::Member(member) => Ok(member),
            other => Err(Error::internal(format!("a new member was answered with {other:?}"))),
        }
    }

    /// Tells the caller how far it got; fails when the caller is gone, which leaves things as they are.
    pub(super) async fn report(
        &self,
        to: &mpsc::Sender<MembershipProgress>,
        step: MembershipStep,
        member: &Arc<Member>,
    ) -> Result<(), Error> {
        let status = self.raft.status();
        let matched = status.matched.get(&member.id).copied().unwrap_or(0);
        let progress =
            MembershipProgress { step, member: member.clone(), matched, last: status.last_log_index };
        let gone =
            |_| Error::membership("the caller went away; repeat the command, which goes on where it stopped");
        to.send(progress).await.map_err(gone)
    }

    /// Waits until the member has the log but for a few entries.
    pub(super) async fn caught_up(
        &self,
        member: &Arc<Member>,
        progress: &mpsc::Sender<MembershipProgress>,
    ) -> Result<(), Error> {
        let mut moved = (0, tokio::time::Instant::now());
        let mut told = None;
        loop {
            let (_, status, ()) = self.settled(|_| Ok(())).await?;
            let matched = status.matched.get(&member.id).copied().unwrap_or(0);
            if told != Some(matched) {
                self.report(progress, MembershipStep::CatchingUp, member).await?;
                told = Some(matched);
            }
            if matched > 0 && status.last_log_index.saturating_sub(matched) <= CAUGHT_UP_WITHIN {
                return Ok(());
            }
            if matched > moved.0 {
                moved = (matched, tokio::time::Instant::now());
            } else if moved.1.elapsed() > STALLED_AFTER {
                return Err(Error::membership(format!(
                    "member \"{}\" at {} has not got any entries for {STALLED_AFTER:?}: it has {matched} of {}; see that it \
                     runs and that this member reaches it, then repeat the command",
                    member.spec.name, member.spec.peer_address, status.last_log_index
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
