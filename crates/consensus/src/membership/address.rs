//! Where a member is, and which of its processes is the member.

use openraft::ChangeMembers;
use trestle_model::{Command, HostPort, Member, MemberId, MemberSockets, Outcome, Proposal};

use crate::error::Error;
use crate::propose::DEFAULT_WAIT;
use crate::raft_types::PeerNode;
use crate::shared::Core;

impl Core {
    /// Abstains from the first moment when the others look for this member elsewhere: another process may be there, which is
    /// this member too.
    pub(crate) fn compare_address(&self) {
        let own = self.settings.peer_address.as_str();
        let Some(recorded) = self.own_address_on_disk().filter(|recorded| recorded != own) else { return };
        tracing::warn!(
            recorded,
            configured = own,
            "the cluster knows this member at another address than its configuration; until it is known that nobody answers \
             there as this member, it abstains"
        );
        self.displace(Some(format!(
            "it is to be reached at {own}, and the cluster knows it at {recorded}: it takes no part in elections until the \
             leader has recorded the new address"
        )));
    }

    /// Says that this process is not the member that it was, and why, or that it is.
    pub(crate) fn displace(&self, why: Option<String>) {
        let why = why.map(Into::into);
        self.abstention.send_if_modified(|abstention| {
            let changed = abstention.displaced != why;
            abstention.displaced = why;
            changed
        });
    }

    /// Changes where a member is reached: in the state, and for Raft. On the leader only; a repeated call goes on where an
    /// earlier one stopped.
    pub(crate) async fn relocate(
        &self,
        id: MemberId,
        peer_address: Option<HostPort>,
        admin_address: Option<HostPort>,
    ) -> Result<std::sync::Arc<Member>, Error> {
        self.settled(|_| Ok(())).await?;
        let before = self.member(id)?;
        let command = Command::UpdateMember { id, peer_address, admin_address };
        let proposal = Proposal { origin: None, request: None, command };
        let after = match self.propose_here(proposal, DEFAULT_WAIT).await?.outcome {
            Outcome::Member(member) => member,
            other => return Err(Error::internal(format!("a changed member was answered with {other:?}"))),
        };
        let peer_address = after.spec.peer_address.to_string();
        let raft = self.role.borrow().address_of(id).map(str::to_owned);
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
        start: u64,
        replaces: u64,
        sockets: Option<MemberSockets>,
    ) -> Result<(), Error> {
        let sockets = sockets.map(std::sync::Arc::new);
        let command = Command::NoteStart { member, start, replaces, sockets };
        self.propose_here(Proposal { origin: None, request: None, command }, DEFAULT_WAIT).await.map(|_| ())
    }
}
