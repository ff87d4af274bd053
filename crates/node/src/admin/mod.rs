//! The admin API: parse, propose or read, render. Decisions are the state's and Raft's; nothing is decided here.

mod authorities;
mod closing;
mod cluster;
mod cluster_status;
mod configuration;
mod connections;
mod events;
mod health;
mod if_absent;
mod leader;
mod listeners;
mod members;
mod outside;
mod own_ports;
mod paging;
mod pools;
mod resources;
mod rotating;
mod securing;
mod tokens;
mod update_queue;
mod users;
mod vip_addresses;
mod vips;
mod wait;
mod watch;

#[cfg(test)]
mod largest;

pub(crate) use leader::OperationStream;
pub(crate) use paging::{PageBounds, fill};

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tonic::{Response, Status};
use trestle_api::convert::Write;
use trestle_api::{convert, peer, status, v1};
use trestle_consensus::{ClusterView, DEFAULT_WAIT};
use trestle_dataplane::DataPlane;
use trestle_model::{
    Applied, Change, ClusterState, Command, Invalid, Origin, Outcome, Proposal, Refusal, Request, RequestId,
    Revision, Violation,
};

use self::update_queue::UpdateQueue;
use crate::access::{self, Action, Caller, Target};
use crate::connections::OwnConnections;
use crate::events::EventSources;
use crate::identities::{OwnLeaf, Signer};
use crate::joining::Joins;
use crate::peers::Peers;
use crate::process::draw_id;
use crate::report::Reports;
use crate::revision_waits::RevisionWaits;
use crate::this_member::ThisMember;
use crate::vips::Transfers;

/// How long a question about health waits for a leader before it is answered from what this member knows.
const HEALTH_WAIT: Duration = Duration::from_secs(1);
/// How long a write is made anew because what it changes has moved in the meantime.
const MOVED_MAX: Duration = DEFAULT_WAIT;

/// A write that was accepted, or would be.
struct Accepted {
    /// Revision at which the answer holds.
    revision: Revision,
    /// What became of the resource.
    outcome: Outcome,
    /// What would change, of a write that is only tried.
    changes: Vec<Change>,
    /// What else is to be said of it.
    warnings: Vec<String>,
}

/// Why an attempt at a write failed.
enum Refused {
    /// By what this member knew, which may be old.
    Here(Status),
    /// What it changes has moved since it was read.
    Moved(Status),
    /// As the cluster is.
    ForGood(Status),
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self::ForGood(status)
    }
}

/// The admin services of one member.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) local: ThisMember,
    pub(crate) peers: Peers,
    pub(crate) plane: Arc<DataPlane>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) waits: RevisionWaits,
    pub(crate) events: EventSources,
    pub(crate) connections: OwnConnections,
    pub(crate) transfers: Transfers,
    pub(crate) signer: Signer,
    pub(crate) leaf: OwnLeaf,
    pub(crate) joins: Joins,
    pub(crate) turns: AdminTurns,
}

/// What callers of one member have in turn. Clones share it.
#[derive(Clone)]
pub(crate) struct AdminTurns {
    restoring: Arc<tokio::sync::Semaphore>,
    updates: Arc<UpdateQueue>,
}

impl Default for AdminTurns {
    fn default() -> Self {
        Self { restoring: configuration::one_at_a_time(), updates: Arc::default() }
    }
}

/// A state to read, and how fresh it is.
struct ReadView {
    view: Arc<ClusterView>,
    info: v1::ReadInfo,
}

impl ReadView {
    fn state(&self) -> &ClusterState {
        &self.view.state
    }

    /// A bare resource as answer, with how fresh it is in the metadata.
    fn answer<T>(&self, resource: T) -> Response<T> {
        let mut response = Response::new(resource);
        let metadata = response.metadata_mut();
        metadata.insert("trestle-revision", self.info.revision.into());
        if let Ok(member) = self.info.member.parse() {
            metadata.insert("trestle-member", member);
        }
        if self.info.possibly_stale {
            metadata.insert("trestle-stale", tonic::metadata::MetadataValue::from_static("maybe"));
        }
        response
    }
}

impl Admin {
    /// The state at the freshness that the caller asks for, to read `target` in it.
    async fn read(&self, caller: &Caller, target: &Target, consistency: i32) -> Result<ReadView, Status> {
        access::authorize(caller, Action::Read, target)?;
        let local = match v1::Consistency::try_from(consistency) {
            Ok(v1::Consistency::Local) => true,
            Ok(v1::Consistency::Linearizable | v1::Consistency::Unspecified) => false,
            Err(_) => {
                let rule = "must be CONSISTENCY_LINEARIZABLE (1) or CONSISTENCY_LOCAL (2)";
                return Err(status::invalid(&Invalid(vec![Violation::new(
                    "consistency",
                    consistency,
                    rule,
                )])));
            }
        };
        if !local {
            return self.read_newest().await;
        }
        self.require_membership()?;
        if let Some(why) = self.local.consensus.abstains() {
            let why = format!("this member answers no reads; {why}");
            return Err(status::failure(&status::Failure::NoLeader(why)));
        }
        let view = self.local.consensus.view().borrow().clone();
        Ok(self.read_of(view, true))
    }

    /// The state with everything that was acknowledged before, for what this member must know to answer.
    async fn read_newest(&self) -> Result<ReadView, Status> {
        let view = self.local.consensus.read(DEFAULT_WAIT).await?;
        Ok(self.read_of(view, false))
    }

    /// Refuses what is asked of a member that belongs to no cluster: what it does not know of exists all the same.
    fn require_membership(&self) -> Result<(), Status> {
        if self.local.consensus.was_removed() {
            return Err(status::failure(&status::Failure::Removed));
        }
        match self.local.id() {
            Some(_) => Ok(()),
            None => Err(status::failure(&status::Failure::NoCluster)),
        }
    }

    /// The newest state that can be had: what members see of backends is most wanted when there is no leader.
    async fn read_best_effort(&self) -> Result<ReadView, Status> {
        self.require_membership()?;
        let fresh = self.local.consensus.read(HEALTH_WAIT).await;
        let view = fresh.unwrap_or_else(|_| self.local.consensus.view().borrow().clone());
        Ok(self.read_of(view, true))
    }

    fn read_of(&self, view: Arc<ClusterView>, possibly_stale: bool) -> ReadView {
        let member = convert::member_name(&self.local.config.name);
        let info = v1::ReadInfo { revision: view.state.revision, possibly_stale, member };
        ReadView { view, info }
    }

    /// Where what a call asks for comes from, for the log. The leader that writes it notes when.
    fn origin(&self, caller: &Caller) -> Origin {
        let member = caller.taken_by().or_else(|| self.local.id());
        Origin { time_ms: 0, member, client: caller.client(), actor: caller.actor().cloned() }
    }

    /// Proposes a parsed write, or tries it on a copy of the state.
    async fn write(&self, caller: &Caller, parsed: Result<Write, Invalid>) -> Result<Accepted, Status> {
        let mut write = parsed.map_err(|found| status::invalid(&found))?;
        let is_named = write.request.is_some();
        if !is_named && !write.validate_only {
            // Under a name of its own the write can be repeated here when the leader dies under it, and is applied once.
            let id = draw_id().and_then(|id| RequestId::parse(&id)).map_err(|rule| internal(&rule))?;
            write.request = Some(Request { id, fingerprint: 0 });
        }
        let _turn = match write.follows() {
            // It goes without its turn where those before it wait for a leader: it waits as long as they do, and not after them.
            Some(resource) => timeout(MOVED_MAX, self.turns.updates.turn(resource)).await.ok(),
            None => None,
        };
        // What this member knows will do at first: a write that it is too old for is refused, and made anew from the newest.
        let mut view = self.local.consensus.view().borrow().clone();
        let begun = Instant::now();
        let mut is_first = true;
        loop {
            match self.write_to(caller, &view, &write).await {
                Err(Refused::Here(_)) if is_first => {}
                Err(Refused::Moved(_)) if begun.elapsed() < MOVED_MAX => {}
                Ok(accepted) => return Ok(accepted),
                Err(Refused::Here(status) | Refused::Moved(status) | Refused::ForGood(status)) => {
                    return Err(status);
                }
            }
            is_first = false;
            view = self.local.consensus.read(DEFAULT_WAIT).await?;
            if let Some(request) = write.request.as_ref().filter(|_| is_named)
                && let Some(first) = self.local.consensus.answered(request).await?
            {
                return Ok(Accepted {
                    revision: first.revision,
                    outcome: first.outcome,
                    changes: Vec::new(),
                    warnings: Vec::new(),
                });
            }
        }
    }

    /// One attempt, for the state of a view.
    async fn write_to(
        &self,
        caller: &Caller,
        view: &Arc<ClusterView>,
        write: &Write,
    ) -> Result<Accepted, Refused> {
        let refused = |refusal: &Refusal| Refused::Here(status::refusal(refusal));
        let command = write.command(&view.state).map_err(|refusal| refused(&refusal))?;
        view.state.check_level(&command).map_err(|refusal| refused(&refusal))?;
        access::authorize_command(caller, &command, &view.state)?;
        let warnings = self.judge(&command).await?;
        if write.validate_only {
            let view = self.local.consensus.read(DEFAULT_WAIT).await.map_err(Status::from)?;
            let tried = view.state.decide(view.applied + 1, &command);
            let applied = tried.map_err(|refusal| refused(&refusal))?;
            let Applied { revision, outcome, mut changes } = applied;
            view.state.note_before(&mut changes);
            return Ok(Accepted { revision, outcome, changes, warnings });
        }
        let proposal =
            Proposal { request: write.request.clone(), origin: Some(self.origin(caller)), command };
        let proposed = self.local.consensus.propose(proposal, DEFAULT_WAIT);
        // A proposal is large, and so is what waits for it.
        match Box::pin(proposed).await {
            Ok(accepted) => Ok(Accepted {
                revision: accepted.revision,
                outcome: accepted.outcome,
                changes: Vec::new(),
                warnings,
            }),
            Err(error) => {
                let status = Status::from(error);
                let moved = status.code() == tonic::Code::Aborted && write.follows().is_some();
                Err(if moved { Refused::Moved(status) } else { Refused::ForGood(status) })
            }
        }
    }

    /// Proposes for another member, as the leader, what `may` allows. Its updates take turns with this member's own of the same
    /// resource.
    pub(crate) async fn propose_for_member(
        &self,
        request: peer::ProposeRequest,
        may: impl FnOnce(&Proposal) -> Result<(), Status> + Send,
    ) -> Result<peer::ProposeResponse, Status> {
        let consensus = &self.local.consensus;
        let updated = update_queue::updated(&request);
        let answer = consensus.serve_propose(request, may).await;
        if let Some(name) = updated {
            let moved = matches!(&answer, Err(status) if status.code() == tonic::Code::Aborted);
            self.turns.updates.note_passed_on(name, moved, consensus.timing().election_min);
        }
        answer
    }

    /// Judges a command by what the state does not know: the members' own ports and addresses, and what they could hold.
    ///
    /// # Errors
    /// Every mistake of the first kind that is found.
    async fn judge(&self, command: &Command) -> Result<Vec<String>, Status> {
        self.refuse_own_ports(command)?;
        self.refuse_unfit(command).await?;
        self.judge_addresses(command).await
    }
}

fn internal(why: &str) -> Status {
    status::failure(&status::Failure::Internal(why.to_owned()))
}

/// An accepted command answers with its own kind of resource; anything else is a fault of ours.
fn mismatch(outcome: &Outcome) -> Status {
    internal(&format!("a command answered with {outcome:?}"))
}
