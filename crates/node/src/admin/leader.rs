//! What only the leader can carry out: done here where this member leads, and passed on to the leader's peer port otherwise.
//! Both ways the operation and what comes of it are the peers' messages, so that there is one form of each.

use std::error::Error;
use std::pin::Pin;

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use trestle_api::peer::forward_request::Operation;
use trestle_api::peer::forward_response::Message;
use trestle_api::status::{self, Failure};
use trestle_api::{peer, unanswered};
use trestle_consensus::{DEFAULT_WAIT, MembershipProgress, MembershipStep, RemovalOutcome};
use trestle_model::{HostPort, Kind, MemberId, MemberName, Refusal};

use super::members::parse_member;
use super::{Admin, internal};
use crate::access::{self, Action, Caller, Target, TargetKind};

/// Messages of progress that wait for a slow caller; the operation itself never waits.
const QUEUED_MAX: usize = 16;

/// Progress, and last what came of it.
pub(crate) type OperationStream =
    Pin<Box<dyn tokio_stream::Stream<Item = Result<peer::ForwardResponse, Status>> + Send>>;

/// Who leads.
enum Leader {
    Here,
    At(MemberId),
}

fn no_leader(why: &str) -> Status {
    status::failure(&Failure::NoLeader(why.to_owned()))
}

fn parsed<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, Status> {
    parse(text).map_err(|rule| Status::invalid_argument(format!("\"{}\" {rule}", text.escape_debug())))
}

fn name(text: &str) -> Result<MemberName, Status> {
    parsed(text, MemberName::parse)
}

/// An address, `None` where none is given.
fn address(text: &str) -> Result<Option<HostPort>, Status> {
    if text.is_empty() { Ok(None) } else { parsed(text, HostPort::parse_reachable).map(Some) }
}

/// What an operation does, and to what.
fn target(operation: &Operation) -> (Action, Target) {
    let member = |name: &str| Target::named(TargetKind::Member, format!("members/{name}"));
    match operation {
        Operation::Add(_) => (Action::Create, Target::all(TargetKind::Member)),
        Operation::Promote(promote) => (Action::Update, member(&promote.name)),
        Operation::Remove(remove) => (Action::Delete, member(&remove.name)),
        Operation::Relocate(relocate) => (Action::Update, member(&relocate.name)),
        Operation::Transfer(_) => (Action::Move, Target::all(TargetKind::Cluster)),
        Operation::RotateAuthority(_) | Operation::AddAuthority(_) => {
            (Action::Create, Target::all(TargetKind::Authority))
        }
        Operation::RetireAuthority(retire) => {
            (Action::Delete, Target::named(TargetKind::Authority, format!("authority {}", retire.generation)))
        }
    }
}

/// What the leader answered; where it did not, why.
fn answered<T>(answer: Result<T, Status>) -> Result<T, Status> {
    answer.map_err(|status| match status.source() {
        Some(_) => {
            Status::new(status.code(), format!("the leader did not answer: {}", unanswered::why(&status)))
        }
        None => status,
    })
}

fn progress(progress: &MembershipProgress) -> peer::ForwardResponse {
    let step = match progress.step {
        MembershipStep::Allocated => peer::MembershipStep::Allocated,
        MembershipStep::Adopted => peer::MembershipStep::Adopted,
        MembershipStep::CatchingUp => peer::MembershipStep::CatchingUp,
        MembershipStep::Agreeing => peer::MembershipStep::Agreeing,
    };
    let (matched_index, last_index) = (progress.matched, progress.last);
    let progress = peer::ForwardProgress { step: step.into(), matched_index, last_index };
    peer::ForwardResponse { message: Some(Message::Progress(progress)) }
}

/// Runs an operation in a task of its own, so that a caller that goes away leaves nothing half done, and streams its
/// progress and its end.
fn streamed<F>(operation: impl FnOnce(mpsc::Sender<MembershipProgress>) -> F) -> OperationStream
where
    F: Future<Output = Result<Message, Status>> + Send + 'static,
{
    streamed_as(progress, operation)
}

/// As [`streamed`], with progress of another kind.
fn streamed_as<S, F>(
    told: impl Fn(&S) -> peer::ForwardResponse + Send + 'static,
    operation: impl FnOnce(mpsc::Sender<S>) -> F,
) -> OperationStream
where
    S: Send + 'static,
    F: Future<Output = Result<Message, Status>> + Send + 'static,
{
    let (steps, mut taken) = mpsc::channel::<S>(QUEUED_MAX);
    let (sender, receiver) = mpsc::channel(QUEUED_MAX);
    let operation = tokio::spawn(operation(steps));
    tokio::spawn(async move {
        while let Some(step) = taken.recv().await {
            // A caller that is slow misses steps, and one that is gone misses all; the operation goes on.
            let _ = sender.try_send(Ok(told(&step)));
        }
        let end = operation.await.unwrap_or_else(|_| Err(status::failure(&Failure::ShuttingDown)));
        let _ = sender.send(end.map(|message| peer::ForwardResponse { message: Some(message) })).await;
    });
    Box::pin(ReceiverStream::new(receiver))
}

impl Admin {
    /// Carries an operation out, wherever the leader is.
    pub(crate) async fn lead(
        &self,
        caller: &Caller,
        operation: Operation,
    ) -> Result<OperationStream, Status> {
        match self.leader().await? {
            Leader::Here => self.lead_here(caller, operation),
            Leader::At(id) => self.forward(id, caller, operation).await,
        }
    }

    /// What comes of an operation, without its progress.
    pub(super) async fn led(&self, caller: &Caller, operation: Operation) -> Result<Message, Status> {
        let mut stream = self.lead(caller, operation).await?;
        last(&mut stream).await
    }

    /// Hands leadership and the virtual IPs over, to the best member unless `to` names one, "members/{member}".
    pub(super) async fn transfer_leadership_to(
        &self,
        caller: &Caller,
        to: &str,
    ) -> Result<peer::TransferredResult, Status> {
        let to = if to.is_empty() { String::new() } else { parse_member("name", to)?.to_string() };
        let transfer = peer::TransferLeadership { to };
        match self.led(caller, Operation::Transfer(transfer)).await? {
            Message::Transferred(result) => Ok(result),
            other => Err(unexpected(&other)),
        }
    }

    /// Carries out what another member passes on; this one must lead.
    pub(crate) async fn lead_for(
        &self,
        caller: &Caller,
        operation: Operation,
    ) -> Result<OperationStream, Status> {
        match self.leader().await? {
            Leader::Here => self.lead_here(caller, operation),
            Leader::At(_) => Err(no_leader("leadership moved while the request was under way")),
        }
    }

    fn lead_here(&self, caller: &Caller, operation: Operation) -> Result<OperationStream, Status> {
        let (action, target) = target(&operation);
        access::authorize(caller, action, &target)?;
        let (admin, caller) = (self.clone(), caller.clone());
        Ok(match operation {
            Operation::Add(add) => {
                let address = parsed(&add.peer_address, HostPort::parse_reachable)?;
                streamed(move |steps| async move { admin.add_here(&caller, address, &add, steps).await })
            }
            Operation::Promote(promote) => {
                let id = self.member_id(&name(&promote.name)?)?;
                streamed(move |steps| async move {
                    let consensus = &admin.local.consensus;
                    let votes = consensus.status().voters.contains(&id);
                    let warnings = match promote.validate_only {
                        true => consensus.try_promote(id).await?,
                        false => {
                            admin.joins.hand_over(id).await?;
                            consensus.promote(id, &steps).await?
                        }
                    };
                    admin.member_result(id, warnings, votes)
                })
            }
            Operation::Remove(remove) => {
                let id = self.member_id(&name(&remove.name)?)?;
                streamed(move |steps| async move {
                    drop(steps);
                    admin.remove_here(&caller, id, remove).await
                })
            }
            Operation::Relocate(relocate) => {
                let id = self.member_id(&name(&relocate.name)?)?;
                let (peer, admin_address) =
                    (address(&relocate.peer_address)?, address(&relocate.admin_address)?);
                streamed(move |steps| async move {
                    drop(steps);
                    admin.refuse_vips([peer.as_ref(), admin_address.as_ref()]).await?;
                    let origin = Some(admin.origin(&caller));
                    admin.local.consensus.relocate(id, peer, admin_address, origin).await?;
                    admin.member_result(id, Vec::new(), false)
                })
            }
            Operation::RotateAuthority(rotate) => {
                let told = |step: &peer::AuthorityStep| peer::ForwardResponse {
                    message: Some(Message::AuthorityStep(step.clone())),
                };
                streamed_as(told, move |steps| async move {
                    Box::pin(admin.rotate_here(&caller, rotate, steps)).await
                })
            }
            Operation::AddAuthority(add) => streamed(move |steps| async move {
                drop(steps);
                admin.add_authority_here(&caller, &add.certificate).await
            }),
            Operation::RetireAuthority(retire) => streamed(move |steps| async move {
                drop(steps);
                admin.retire_here(&caller, retire).await
            }),
            Operation::Transfer(transfer) => {
                let to = match transfer.to.as_str() {
                    "" => None,
                    text => Some(self.member_id(&name(text)?)?),
                };
                streamed(move |steps| async move {
                    drop(steps);
                    admin.transfer_here(to).await
                })
            }
        })
    }

    /// Removes a member. One that was asked to remove itself leaves that to whoever leads next.
    async fn remove_here(
        &self,
        caller: &Caller,
        id: MemberId,
        remove: peer::RemoveMember,
    ) -> Result<Message, Status> {
        if remove.validate_only {
            let warnings = self.local.consensus.try_remove(id).await?;
            return Ok(Message::Removed(peer::RemovedResult { revision: 0, warnings }));
        }
        match self.local.consensus.remove(id, Some(self.origin(caller))).await? {
            RemovalOutcome::Done { revision, warnings } => {
                Ok(Message::Removed(peer::RemovedResult { revision, warnings }))
            }
            RemovalOutcome::LeadershipMustMove => {
                let (to, _) = self.transfers.transfer(None).await?;
                last(&mut self.forward(to, caller, Operation::Remove(remove)).await?).await
            }
        }
    }

    /// Hands leadership and the virtual IPs over, to the best member unless `to` names one.
    async fn transfer_here(&self, to: Option<MemberId>) -> Result<Message, Status> {
        let (leader_id, term) = self.transfers.transfer(to).await?;
        let state = self.local.consensus.view().borrow().state.clone();
        let leader = state.members.get(&leader_id).map(|member| member.spec.name.clone());
        let former = &self.local.config.name;
        let moved = leader.as_ref() != Some(former);
        Ok(Message::Transferred(peer::TransferredResult {
            leader: leader.map(|name| name.to_string()).unwrap_or_default(),
            term,
            former: former.to_string(),
            connections_left: if moved { self.connections.on_vips() } else { 0 },
        }))
    }

    /// A member as it is at the end of an operation.
    pub(super) fn member_result(
        &self,
        id: MemberId,
        warnings: Vec<String>,
        existing: bool,
    ) -> Result<Message, Status> {
        let view = self.local.consensus.view().borrow().clone();
        let raft = self.local.consensus.status();
        let record = view.state.members.get(&id);
        let record = record.ok_or_else(|| internal("a member that was changed is not there"))?;
        let standing = match () {
            () if view.voters.contains(&id) => peer::MemberStanding::Voter,
            () if view.learners.contains(&id) => peer::MemberStanding::Learner,
            () => peer::MemberStanding::Outside,
        };
        Ok(Message::Member(peer::MemberResult {
            record: Some((&**record).into()),
            standing: standing.into(),
            matched_index: raft.matched.get(&id).copied().unwrap_or_default(),
            last_index: raft.last_log_index,
            warnings,
            existing,
        }))
    }

    /// The id of a member, as this member knows it.
    fn member_id(&self, name: &MemberName) -> Result<MemberId, Status> {
        let state = self.local.consensus.view().borrow().state.clone();
        let missing = || status::refusal(&Refusal::NotFound { kind: Kind::Member, name: name.to_string() });
        state.member_named(name).map(|member| member.id).ok_or_else(missing)
    }

    /// Who leads; waits for one to be elected.
    async fn leader(&self) -> Result<Leader, Status> {
        let Some(me) = self.local.id() else { return Err(status::failure(&Failure::NoCluster)) };
        let mut role = self.local.consensus.role();
        let known = role.wait_for(|role| role.leader.is_some());
        let leader = match tokio::time::timeout(DEFAULT_WAIT, known).await {
            Ok(Ok(role)) => role.leader.as_ref().map(|(id, _)| *id),
            Ok(Err(_)) => return Err(status::failure(&Failure::ShuttingDown)),
            Err(_) => None,
        };
        match leader.ok_or_else(|| no_leader("none was elected in time"))? {
            id if id == me => Ok(Leader::Here),
            id => Ok(Leader::At(id)),
        }
    }

    /// Passes an operation on to the member that leads.
    async fn forward(
        &self,
        leader: MemberId,
        caller: &Caller,
        operation: Operation,
    ) -> Result<OperationStream, Status> {
        let state = self.local.consensus.view().borrow().state.clone();
        let record = state.members.get(&leader);
        let record = record.ok_or_else(|| no_leader("its address is not known here yet"))?;
        let request = peer::ForwardRequest {
            to: self.local.destination(Some(leader)),
            member_id: self.local.id().map_or(0, |id| id.0),
            client: caller.client().map(|client| client.to_string()).unwrap_or_default(),
            actor: caller.actor().map(Into::into),
            operation: Some(operation),
        };
        let mut client = self.peers.client(&record.spec.peer_address)?;
        let stream = answered(client.forward(request).await)?.into_inner();
        Ok(Box::pin(stream.map(answered)))
    }
}

/// The last message of an operation.
async fn last(stream: &mut OperationStream) -> Result<Message, Status> {
    let mut last = None;
    while let Some(response) = stream.next().await {
        last = response?.message;
    }
    last.ok_or_else(|| internal("the leader answered nothing"))
}

/// A result of another kind than the operation has.
pub(super) fn unexpected(result: &Message) -> Status {
    internal(&format!("the leader answered with {result:?}"))
}

/// The resource name of a member that the peers' messages name; empty for none.
pub(super) fn resource_name(bare: &str) -> String {
    if bare.is_empty() { String::new() } else { format!("members/{bare}") }
}
