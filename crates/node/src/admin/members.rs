//! Members: join as learner, catch up, become voter, leave. Each is a call of its own, carried out by the leader.

use std::pin::Pin;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use trestle_api::convert::Write;
use trestle_api::v1::member_service_client::MemberServiceClient;
use trestle_api::v1::member_service_server::MemberService;
use trestle_api::{convert, peer, status, unanswered, v1};
use trestle_consensus::{MembershipProgress, RecoveryId, RemovalOutcome};
use trestle_model::{
    HostPort, Invalid, Kind, MemberId, MemberName, MemberSpec, Outcome, Refusal, Violations,
};

use super::forward::{answered, forwarded};
use super::{Admin, mismatch};
use crate::access::{Caller, Target, TargetKind};
use crate::member::REPORT_TIMEOUT;

/// Messages of progress that wait for a slow caller; the operation itself never waits.
const QUEUED_MAX: usize = 16;

type Stream = Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::MemberProgress, Status>> + Send>>;

#[tonic::async_trait]
impl MemberService for Admin {
    async fn get_member(
        &self,
        request: Request<v1::GetMemberRequest>,
    ) -> Result<Response<v1::Member>, Status> {
        let (caller, request) = Caller::take(request)?;
        let mut v = Violations::new();
        let name = convert::parse_member_name("name", &request.name, &mut v);
        let name = name.ok_or_else(|| status::invalid(&Invalid(v.into_vec())))?;
        let target = Target::named(TargetKind::Member, &request.name);
        let read = self.read(&caller, &target, request.consistency).await?;
        let missing = || status::refusal(&Refusal::NotFound { kind: Kind::Member, name: name.to_string() });
        let member = read.state().member_named(&name).ok_or_else(missing)?;
        Ok(read.answer(self.member.rendered(member)))
    }

    async fn list_members(
        &self,
        request: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let target = Target::all(TargetKind::Member);
        let read = self.read(&caller, &target, request.consistency).await?;
        let members = read.state().members.values().map(|member| self.member.rendered(member)).collect();
        Ok(Response::new(v1::ListMembersResponse { members, read: Some(read.info) }))
    }

    type AddMemberStream = Stream;

    async fn add_member(
        &self,
        request: Request<v1::AddMemberRequest>,
    ) -> Result<Response<Self::AddMemberStream>, Status> {
        let address =
            convert::parse_add_member(request.get_ref()).map_err(|found| status::invalid(&found))?;
        if let Some(leader) = self.leader_elsewhere(&request).await? {
            let answer = MemberServiceClient::new(leader).add_member(forwarded(request.into_inner())).await;
            let answer = answered(answer)?;
            return Ok(Response::new(Box::pin(answer.into_inner())));
        }
        let (admin, if_absent) = (self.clone(), request.get_ref().if_absent);
        Ok(streamed(move |progress| async move { admin.add_here(address, if_absent, progress).await }))
    }

    type PromoteMemberStream = Stream;

    async fn promote_member(
        &self,
        request: Request<v1::PromoteMemberRequest>,
    ) -> Result<Response<Self::PromoteMemberStream>, Status> {
        if let Some(leader) = self.leader_elsewhere(&request).await? {
            let answer = answered(
                MemberServiceClient::new(leader).promote_member(forwarded(request.into_inner())).await,
            )?;
            return Ok(Response::new(Box::pin(answer.into_inner())));
        }
        let id = self.member_id(&request.get_ref().name)?;
        let admin = self.clone();
        Ok(streamed(|progress| async move {
            let warnings = admin.member.consensus.promote(id, &progress).await?;
            Ok(admin.done(id, warnings))
        }))
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        if let Some(leader) = self.leader_elsewhere(&request).await? {
            let mut leader = MemberServiceClient::new(leader);
            return answered(leader.remove_member(forwarded(request.into_inner())).await);
        }
        let id = self.member_id(&request.get_ref().name)?;
        match self.member.consensus.remove(id).await? {
            RemovalOutcome::Done { revision, warnings } => {
                Ok(Response::new(v1::RemoveMemberResponse { revision, warnings }))
            }
            // This member was asked to remove itself: whoever leads next does it.
            RemovalOutcome::LeadershipMustMove => {
                let (to, _) = self.member.transfer_leadership(None).await?;
                let mut leader = MemberServiceClient::new(self.channel_to(to)?);
                answered(leader.remove_member(forwarded(request.into_inner())).await)
            }
        }
    }

    async fn drain_member(
        &self,
        request: Request<v1::DrainMemberRequest>,
    ) -> Result<Response<v1::Member>, Status> {
        let (caller, request) = Caller::take(request)?;
        self.drain(&caller, convert::drain_member(&request)).await
    }

    async fn update_member(
        &self,
        request: Request<v1::UpdateMemberRequest>,
    ) -> Result<Response<v1::Member>, Status> {
        let (name, peer, admin) =
            convert::update_member(request.get_ref()).map_err(|found| status::invalid(&found))?;
        if let Some(leader) = self.leader_elsewhere(&request).await? {
            let answer =
                MemberServiceClient::new(leader).update_member(forwarded(request.into_inner())).await;
            return answered(answer);
        }
        let id = self.member_id(&convert::member_name(&name))?;
        self.refuse_vips([peer.as_ref(), admin.as_ref()]).await?;
        let member = self.member.consensus.relocate(id, peer, admin).await?;
        Ok(Response::new(self.member.rendered(&member)))
    }

    async fn enable_member(
        &self,
        request: Request<v1::EnableMemberRequest>,
    ) -> Result<Response<v1::Member>, Status> {
        let (caller, request) = Caller::take(request)?;
        self.drain(&caller, convert::enable_member(&request)).await
    }
}

impl Admin {
    /// Begins or ends a drain.
    async fn drain(
        &self,
        caller: &Caller,
        parsed: Result<Write, Invalid>,
    ) -> Result<Response<v1::Member>, Status> {
        match self.write(caller, parsed).await?.1 {
            Outcome::Member(member) => Ok(Response::new(self.member.rendered(&member))),
            other => Err(mismatch(&other)),
        }
    }
}

/// Runs an operation in a task of its own, so that a caller that goes away leaves nothing half done, and streams its
/// progress and its end.
fn streamed<F>(operation: impl FnOnce(mpsc::Sender<MembershipProgress>) -> F) -> Response<Stream>
where
    F: Future<Output = Result<v1::MemberProgress, Status>> + Send + 'static,
{
    let (progress, mut steps) = mpsc::channel::<MembershipProgress>(QUEUED_MAX);
    let (sender, receiver) = mpsc::channel(QUEUED_MAX);
    let operation = tokio::spawn(operation(progress));
    tokio::spawn(async move {
        while let Some(step) = steps.recv().await {
            let message = v1::MemberProgress {
                step: step.step.to_string(),
                matched_index: step.matched,
                last_index: step.last,
                ..Default::default()
            };
            // A caller that is slow misses steps, and one that is gone misses all; the operation goes on.
            let _ = sender.try_send(Ok(message));
        }
        let end = operation.await.unwrap_or_else(|_| Err(status::failure(&status::Failure::ShuttingDown)));
        let _ = sender.send(end).await;
    });
    Response::new(Box::pin(ReceiverStream::new(receiver)))
}

impl Admin {
    /// Takes in the empty member at `address`, wherever the leader is.
    pub(crate) async fn admit_member(&self, address: HostPort) -> Result<(), Status> {
        let request = v1::AddMemberRequest { peer_address: address.to_string(), if_absent: false };
        let mut progress = self.add_member(Request::new(request)).await?.into_inner();
        while let Some(message) = tokio_stream::StreamExt::next(&mut progress).await {
            message?;
        }
        Ok(())
    }

    /// Refuses addresses of a member that are virtual IPs.
    async fn refuse_vips(&self, addresses: [Option<&HostPort>; 2]) -> Result<(), Status> {
        for own in addresses.into_iter().flatten() {
            if let Some(why) = self.member.refuse_vip_at(own).await {
                return Err(status::failure(&status::Failure::Membership(why)));
            }
        }
        Ok(())
    }

    async fn add_here(
        &self,
        address: HostPort,
        if_absent: bool,
        progress: mpsc::Sender<MembershipProgress>,
    ) -> Result<v1::MemberProgress, Status> {
        let known = if if_absent { self.recorded_at(&address).await? } else { None };
        if let Some((id, true)) = known {
            return Ok(v1::MemberProgress { existing: true, ..self.done(id, Vec::new()) });
        }
        let spec = self.describe(&address).await?;
        self.refuse_vips([Some(&spec.peer_address), Some(&spec.admin_address)]).await?;
        let member = self.member.consensus.add(spec, &progress).await?;
        Ok(v1::MemberProgress { existing: known.is_some(), ..self.done(member.id, Vec::new()) })
    }

    /// The member that is recorded at a peer address, and whether it has a vote.
    async fn recorded_at(&self, address: &HostPort) -> Result<Option<(MemberId, bool)>, Status> {
        let read = self.read_newest().await?;
        let member = read.state().members.values().find(|member| member.spec.peer_address == *address);
        let voter = |member| self.member.rendered(member).role() == v1::MemberRole::Voter;
        Ok(member.map(|member| (member.id, voter(member))))
    }

    /// Asks the process at `address` who it is; it must belong to no other cluster.
    async fn describe(&self, address: &HostPort) -> Result<MemberSpec, Status> {
        let refuse = |why: String| status::failure(&status::Failure::Membership(format!("{address} {why}")));
        let mut client = self.member.clients.peer(address)?;
        let answer = tokio::time::timeout(REPORT_TIMEOUT, client.describe(peer::DescribeRequest {})).await;
        let unreachable = |why: &str| {
            refuse(format!("does not answer ({why}); start trestled there and give its peer address"))
        };
        let described = match answer {
            Err(_) => return Err(unreachable(&unanswered::none_within(REPORT_TIMEOUT))),
            Ok(Err(status)) => return Err(unreachable(&unanswered::why(&status))),
            Ok(Ok(described)) => described.into_inner(),
        };
        let own = self.member.consensus.identity();
        let ours = own.as_ref().map(|identity| identity.cluster_id.to_string());
        if !described.cluster_id.is_empty() && Some(&described.cluster_id) != ours.as_ref() {
            return Err(refuse(format!(
                "is member {} of cluster {}; to move it here, start it with an empty data directory",
                described.member_id, described.cluster_id
            )));
        }
        let theirs = RecoveryId { number: described.recovery, draw: described.recovery_draw };
        if !described.cluster_id.is_empty() && self.member.consensus.is_another_recovery(theirs) {
            return Err(refuse(format!(
                "is member {} of this cluster by another recovery (number {}); to take it in here, start it with an empty data \
                 directory",
                described.member_id, theirs.number
            )));
        }
        let (theirs, mine) = (described.vote_refusal_ms, self.member.consensus.timing().vote_refusal_ms());
        if theirs != mine {
            return Err(refuse(format!(
                "has election timeouts of up to {theirs} ms, and this cluster of up to {mine} ms; start it with the same profile"
            )));
        }
        let spec = || {
            Ok(MemberSpec {
                name: MemberName::parse(&described.name)?,
                peer_address: HostPort::parse(&described.peer_address)?,
                admin_address: HostPort::parse(&described.admin_address)?,
            })
        };
        spec()
            .map_err(|rule: String| refuse(format!("describes itself in a way that makes no sense: {rule}")))
    }

    /// The last message of an operation.
    fn done(&self, id: MemberId, warnings: Vec<String>) -> v1::MemberProgress {
        let raft = self.member.consensus.status();
        let state = self.member.consensus.view().borrow().state.clone();
        v1::MemberProgress {
            step: "done".to_owned(),
            matched_index: raft.matched.get(&id).copied().unwrap_or_default(),
            last_index: raft.last_log_index,
            done: true,
            member: state.members.get(&id).map(|member| self.member.rendered(member)),
            warnings,
            existing: false,
        }
    }
}
