//! Where a member is, and which of its processes is the member.

use openraft::ChangeMembers;
use trestle_model::{Command, HostPort, Member, MemberId, MemberSockets, Origin, Outcome, Proposal};

use super::Memberships;
use crate::error::Error;
use crate::propose::DEFAULT_WAIT;
use crate::raft_types::PeerNode;

impl Memberships {
    /// Changes where a member is reached: in the state, and for Raft. On the leader only; a repeated call goes on where an
    /// earlier one stopped.
    pub(crate) async fn relocate(
        &self,
        id: MemberId,
        peer_address: Option<HostPort>,
        admin_address: Option<HostPort>,
        origin: Option<Origin>,
    ) -> Result<std::sync::Arc<Member>, Error> {
        self.settled(|_| Ok(())).await?;
        let before = self.record(id)?;
        let command = Command::UpdateMember { id, peer_address, admin_address };
        let proposal = Proposal { origin, request: None, command };
        let after = match self.proposals.propose_here(proposal, DEFAULT_WAIT).await?.outcome {
            Outcome::Member(member) => member,
            other => return Err(Error::internal(format!("a changed member was answered with {other:?}"))),
        };
        let peer_address = after.spec.peer_address.to_string();
        let raft = self.raft.role().address_of(id).map(str::to_owned);
        if raft.is_some_and(|raft| raft != peer_address) {
            let node = PeerNode { peer_address };
            self.change_members(ChangeMembers::SetNodes([(id.0, node)].into()), true).await?;
        }
        if before.spec != after.spec {
            tracing::warn!(
                member = %after.spec.name,
                before = %before.spec.peer_address,
                after = %after.spec.peer_address,
                admin_before = %before.spec.admin_address,
                admin_after = %after.spec.admin_address,
                "a member is reached at another address now"
            );
        }
        Ok(after)
    }

    /// Records which process is a member now, unless another one was recorded since `replaces` was. On the leader only.
    pub(crate) async fn note_start(
        &self,
        member: MemberId,
        (start, replaces): (u64, u64),
        sockets: Option<MemberSockets>,
        feature_level_max: u32,
    ) -> Result<(), Error> {
        let sockets = sockets.map(std::sync::Arc::new);
        let command = Command::NoteStart { member, start, replaces, sockets, feature_level_max };
        self.proposals
            .propose_here(Proposal { origin: None, request: None, command }, DEFAULT_WAIT)
            .await
            .map(|_| ())
    }
}
