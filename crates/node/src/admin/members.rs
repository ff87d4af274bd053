//! Members: join as learner, catch up, become voter, leave. Each is a call of its own, carried out by the leader.

use std::pin::Pin;

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status};
use trestle_api::convert::Write;
use trestle_api::peer::forward_request::Operation;
use trestle_api::peer::forward_response::Message;
use trestle_api::stored::feature_level;
use trestle_api::v1::member_service_server::MemberService;
use trestle_api::{convert, peer, status, unanswered, v1};
use trestle_consensus::{MembershipProgress, RecoveryId};
use trestle_model::{
    HostPort, Invalid, Kind, Member, MemberId, MemberName, MemberSpec, Outcome, Refusal, TransportSecurity,
    Violations,
};

use super::leader::{OperationStream, unexpected};
use super::{Admin, internal, mismatch};
use crate::access::{Caller, Target, TargetKind};
use crate::peers::REPORT_TIMEOUT;
use crate::vip_clash;

type Stream = Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::MemberProgress, Status>> + Send>>;

#[tonic::async_trait]
impl MemberService for Admin {
    async fn get_member(
        &self,
        request: Request<v1::GetMemberRequest>,
    ) -> Result<Response<v1::Member>, Status> {
        let (caller, request) = Caller::take(request)?;
        let name = parse_member("name", &request.name)?;
        let target = Target::named(TargetKind::Member, &request.name);
        let read = self.read(&caller, &target, request.consistency).await?;
        let missing = || status::refusal(&Refusal::NotFound { kind: Kind::Member, name: name.to_string() });
        let member = read.state().member_named(&name).ok_or_else(missing)?;
        Ok(read.answer(self.local.rendered(member)))
    }

    async fn list_members(
        &self,
        request: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let target = Target::all(TargetKind::Member);
        let read = self.read(&caller, &target, request.consistency).await?;
        let members = read.state().members.values().map(|member| self.local.rendered(member)).collect();
        Ok(Response::new(v1::ListMembersResponse { members, read: Some(read.info) }))
    }

    type AddMemberStream = Stream;

    async fn add_member(
        &self,
        request: Request<v1::AddMemberRequest>,
    ) -> Result<Response<Self::AddMemberStream>, Status> {
        let (caller, request) = Caller::take(request)?;
        let address = convert::parse_add_member(&request).map_err(|found| status::invalid(&found))?;
        let add = peer::AddMember {
            peer_address: address.to_string(),
            if_absent: request.if_absent,
            validate_only: request.validate_only,
        };
        let stream = self.lead(&caller, Operation::Add(add)).await?;
        Ok(Response::new(self.progress(stream)))
    }

    type PromoteMemberStream = Stream;

    async fn promote_member(
        &self,
        request: Request<v1::PromoteMemberRequest>,
    ) -> Result<Response<Self::PromoteMemberStream>, Status> {
        let (caller, request) = Caller::take(request)?;
        let name = parse_member("name", &request.name)?.to_string();
        let promote = peer::PromoteMember { name, validate_only: request.validate_only };
        let stream = self.lead(&caller, Operation::Promote(promote)).await?;
        Ok(Response::new(self.progress(stream)))
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let name = parse_member("name", &request.name)?.to_string();
        let remove = peer::RemoveMember { name, validate_only: request.validate_only };
        match self.led(&caller, Operation::Remove(remove)).await? {
            Message::Removed(peer::RemovedResult { revision, warnings }) => {
                Ok(Response::new(v1::RemoveMemberResponse { revision, warnings }))
            }
            other => Err(unexpected(&other)),
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
        let (caller, request) = Caller::take(request)?;
        let (name, peer, admin) =
            convert::update_member(&request).map_err(|found| status::invalid(&found))?;
        let text = |address: Option<HostPort>| address.map(|at| at.to_string()).unwrap_or_default();
        let relocate = peer::RelocateMember {
            name: name.to_string(),
            peer_address: text(peer),
            admin_address: text(admin),
        };
        match self.led(&caller, Operation::Relocate(relocate)).await? {
            Message::Member(result) => Ok(Response::new(self.changed(&result)?)),
            other => Err(unexpected(&other)),
        }
    }

    async fn enable_member(
        &self,
        request: Request<v1::EnableMemberRequest>,
    ) -> Result<Response<v1::Member>, Status> {
        let (caller, request) = Caller::take(request)?;
        self.drain(&caller, convert::enable_member(&request)).await
    }

    async fn enroll_member(
        &self,
        request: Request<v1::EnrollMemberRequest>,
    ) -> Result<Response<v1::Member>, Status> {
        let (caller, request) = Caller::take(request)?;
        self.enroll(&caller, &request).await.map(Response::new)
    }

    async fn request_member_certificate(
        &self,
        request: Request<v1::RequestMemberCertificateRequest>,
    ) -> Result<Response<v1::RequestMemberCertificateResponse>, Status> {
        let (caller, _) = Caller::take(request)?;
        self.member_request(&caller).map(Response::new)
    }

    async fn install_member_certificate(
        &self,
        request: Request<v1::InstallMemberCertificateRequest>,
    ) -> Result<Response<v1::InstallMemberCertificateResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        self.install_certificate(&caller, &request.certificate).map(Response::new)
    }
}

impl Admin {
    /// Begins or ends a drain.
    async fn drain(
        &self,
        caller: &Caller,
        parsed: Result<Write, Invalid>,
    ) -> Result<Response<v1::Member>, Status> {
        match self.write(caller, parsed).await?.outcome {
            Outcome::Member(member) => Ok(Response::new(self.local.rendered(&member))),
            other => Err(mismatch(&other)),
        }
    }
}

pub(super) fn parse_member(field: &str, name: &str) -> Result<MemberName, Status> {
    let mut v = Violations::new();
    let parsed = convert::parse_member_name(field, name, &mut v);
    parsed.ok_or_else(|| status::invalid(&Invalid(v.into_vec())))
}

fn step(step: peer::MembershipStep) -> v1::member_progress::Step {
    use v1::member_progress::Step;
    match step {
        peer::MembershipStep::Unspecified => Step::Unspecified,
        peer::MembershipStep::Allocated => Step::IdAllocated,
        peer::MembershipStep::Adopted => Step::IdentityTaken,
        peer::MembershipStep::CatchingUp => Step::CatchingUp,
        peer::MembershipStep::Agreeing => Step::Agreeing,
    }
}

impl Admin {
    /// Renders a member as it is after an operation.
    fn changed(&self, result: &peer::MemberResult) -> Result<v1::Member, Status> {
        let record = result.record.clone().ok_or_else(|| internal("the leader left the member out"))?;
        let member = Member::try_from(record).map_err(|error| internal(&error.to_string()))?;
        let role = match result.standing() {
            peer::MemberStanding::Voter => v1::MemberRole::Voter,
            peer::MemberStanding::Learner => v1::MemberRole::Learner,
            peer::MemberStanding::Unspecified
            | peer::MemberStanding::Outside
            | peer::MemberStanding::Removed => v1::MemberRole::Unspecified,
        };
        let leader = self.local.consensus.status().leader == Some(member.id);
        Ok(v1::Member { role: role.into(), leader, ..convert::member(&member) })
    }

    /// How far an operation on a member is, as clients see it.
    fn progress(&self, stream: OperationStream) -> Stream {
        let admin = self.clone();
        Box::pin(stream.map(move |response| match response?.message {
            Some(Message::Progress(progress)) => Ok(v1::MemberProgress {
                step: step(progress.step()).into(),
                matched_index: progress.matched_index,
                last_index: progress.last_index,
                ..Default::default()
            }),
            Some(Message::Member(result)) => Ok(v1::MemberProgress {
                step: v1::member_progress::Step::Done.into(),
                matched_index: result.matched_index,
                last_index: result.last_index,
                member: Some(admin.changed(&result)?),
                warnings: result.warnings,
                existing: result.existing,
            }),
            Some(other) => Err(unexpected(&other)),
            None => Err(internal("the leader answered nothing")),
        }))
    }

    /// Takes in the empty member at `address`, wherever the leader is.
    pub(crate) async fn admit_member(&self, caller: &Caller, address: String) -> Result<(), Status> {
        let add = peer::AddMember { peer_address: address, ..Default::default() };
        self.led(caller, Operation::Add(add)).await.map(drop)
    }

    /// Refuses addresses of a member that are virtual IPs.
    pub(super) async fn refuse_vips(&self, addresses: [Option<&HostPort>; 2]) -> Result<(), Status> {
        for own in addresses.into_iter().flatten() {
            if let Some(why) = vip_clash::vip_at(&self.local.consensus, own).await {
                return Err(status::failure(&status::Failure::Membership(why)));
            }
        }
        Ok(())
    }

    /// Takes in the empty member at `address`; this one must lead.
    pub(super) async fn add_here(
        &self,
        caller: &Caller,
        address: HostPort,
        add: &peer::AddMember,
        progress: mpsc::Sender<MembershipProgress>,
    ) -> Result<Message, Status> {
        let known = if add.if_absent { self.recorded_at(&address).await? } else { None };
        if let Some((id, true)) = known {
            return self.member_result(id, Vec::new(), true);
        }
        if self.local.consensus.view().borrow().state.transport == TransportSecurity::Require {
            let why = "a cluster that requires TLS takes nobody in by an address, because nothing proves who answers there: make a \
                       token with \"trestle token create\", and run \"trestled join\" with it on the new machine";
            return Err(status::failure(&status::Failure::Membership(why.to_owned())));
        }
        let spec = self.describe(&address).await?;
        self.refuse_vips([Some(&spec.peer_address), Some(&spec.admin_address)]).await?;
        if add.validate_only {
            let member = self.local.consensus.try_add(&spec).await?;
            return Ok(Message::Member(peer::MemberResult {
                record: Some((&*member).into()),
                standing: peer::MemberStanding::Outside.into(),
                ..Default::default()
            }));
        }
        let origin = Some(self.origin(caller));
        let member = self.local.consensus.add(spec, origin, &progress).await?;
        self.member_result(member.id, Vec::new(), known.is_some())
    }

    /// The member that is recorded at a peer address, and whether it has a vote.
    async fn recorded_at(&self, address: &HostPort) -> Result<Option<(MemberId, bool)>, Status> {
        let read = self.read_newest().await?;
        let member = read.state().members.values().find(|member| member.spec.peer_address == *address);
        let voter = |member| self.local.rendered(member).role() == v1::MemberRole::Voter;
        Ok(member.map(|member| (member.id, voter(member))))
    }

    /// Asks the process at `address` who it is; it must belong to no other cluster.
    async fn describe(&self, address: &HostPort) -> Result<MemberSpec, Status> {
        let refuse = |why: String| status::failure(&status::Failure::Membership(format!("{address} {why}")));
        let mut client = self.peers.client(address)?;
        let answer = tokio::time::timeout(REPORT_TIMEOUT, client.describe(peer::DescribeRequest {})).await;
        let unreachable = |why: &str| {
            refuse(format!("does not answer ({why}); start trestled there and give its peer address"))
        };
        let described = match answer {
            Err(_) => return Err(unreachable(&unanswered::none_within(REPORT_TIMEOUT))),
            Ok(Err(status)) => return Err(unreachable(&unanswered::why(&status))),
            Ok(Ok(described)) => described.into_inner(),
        };
        let own = self.local.consensus.identity();
        let ours = own.as_ref().map(|identity| identity.cluster_id.to_string());
        if !described.cluster_id.is_empty() && Some(&described.cluster_id) != ours.as_ref() {
            return Err(refuse(format!(
                "is member {} of cluster {}; to move it here, start it with an empty data directory",
                described.member_id, described.cluster_id
            )));
        }
        let theirs = RecoveryId { number: described.recovery, draw: described.recovery_draw };
        if !described.cluster_id.is_empty() && self.local.consensus.is_another_recovery(theirs) {
            return Err(refuse(format!(
                "is member {} of this cluster by another recovery (number {}); to take it in here, start it with an empty data \
                 directory",
                described.member_id, theirs.number
            )));
        }
        let (theirs, mine) = (described.vote_refusal_ms, self.local.consensus.timing().vote_refusal_ms());
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
                feature_level_max: feature_level(described.feature_level_max),
            })
        };
        spec()
            .map_err(|rule: String| refuse(format!("describes itself in a way that makes no sense: {rule}")))
    }
}
