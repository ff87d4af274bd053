//! openraft's state machine, in memory, with its snapshots.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use prost::bytes::Bytes;
use tokio::runtime::Handle;
use trestle_model::{Applied, Machine, Proposal, Refusal, Request};

use super::staged::resolved;
use super::view::{ClusterView, StatePublisher, members};
use crate::raft_types::{
    ApplyResponse, LogId, Payload, Snapshot, SnapshotMeta, StoredMembership, TypeConfig,
};
use crate::snapshot::{self, RestoredSnapshot, SnapshotFiles};

/// A snapshot on its way: the payload of a snapshot file, shared.
pub(crate) type SnapshotData = Bytes;

/// What a snapshot needs to know of the machine; a clone costs pointers.
#[derive(Debug, Clone, Default)]
struct ReplicaState {
    machine: Machine,
    applied: Option<LogId>,
    membership: StoredMembership,
}

/// Snapshot files with the description of the newest one that is good.
#[derive(Debug)]
struct Snapshots {
    files: SnapshotFiles,
    newest: Mutex<Option<SnapshotMeta>>,
}

impl Snapshots {
    fn newest(&self) -> Option<SnapshotMeta> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs file work off the runtime's own threads.
    async fn blocking<T: Send + 'static>(
        &self,
        run: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let ran = self.files.platform().blocking(&Handle::current(), run).await;
        ran.map_err(io::Error::other)?
    }

    fn save(&self, meta: &SnapshotMeta, payload: &[u8]) -> io::Result<()> {
        self.files.save(meta, payload)?;
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        // A snapshot that was being built may end after a newer one was installed.
        if newest.as_ref().is_none_or(|newest| newest.last_log_id <= meta.last_log_id) {
            *newest = Some(meta.clone());
        }
        Ok(())
    }
}

/// The state machine.
pub(crate) struct Replica {
    current: ReplicaState,
    snapshots: Arc<Snapshots>,
    // openraft asks for `Sync`, which a history need not be.
    published: Mutex<StatePublisher>,
}

impl Replica {
    /// A state machine that starts from a snapshot, or from nothing.
    pub(crate) fn new(
        files: SnapshotFiles,
        restored: Option<RestoredSnapshot>,
        published: StatePublisher,
    ) -> Self {
        let newest = Mutex::new(restored.as_ref().map(|restored| restored.meta.clone()));
        let snapshots = Arc::new(Snapshots { files, newest });
        let mut replica =
            Self { current: ReplicaState::default(), snapshots, published: Mutex::new(published) };
        if let Some(RestoredSnapshot { meta, machine }) = restored {
            replica.jump(&meta, machine);
        }
        replica
    }

    /// The answer that a request got before.
    pub(crate) fn repeated(&self, request: &Request) -> Option<Result<Applied, Refusal>> {
        self.current.machine.repeated(request)
    }

    /// The answer that a proposal would get now, if an entry for it would change nothing.
    pub(crate) fn settled(&self, proposal: &Proposal) -> Option<Result<Applied, Refusal>> {
        let next = self.current.applied.map_or(0, |id| id.index) + 1;
        self.current.machine.settled(next, proposal)
    }

    /// Takes over a snapshot's state.
    fn jump(&mut self, meta: &SnapshotMeta, machine: Machine) {
        let revision = machine.state.revision;
        self.current =
            ReplicaState { machine, applied: meta.last_log_id, membership: meta.last_membership.clone() };
        let shown = self.published.get_mut().unwrap_or_else(PoisonError::into_inner);
        shown.requests.restart(&self.current.machine);
        shown.history.jumped(revision);
        self.publish();
    }

    /// Publishes the state as it is now. An unchanged state keeps its address.
    fn publish(&mut self) {
        let applied = self.current.applied.map_or(0, |id| id.index);
        let applied_term = self.current.applied.map_or(0, |id| id.leader_id.term);
        let (voters, learners) = members(self.current.membership.membership());
        let state = &self.current.machine.state;
        let shown = self.published.get_mut().unwrap_or_else(PoisonError::into_inner);
        shown.view.send_modify(|view| {
            // Who may hold the virtual IPs, whose process started when and where, that the cluster was recovered, and what time it is,
            // changes without a revision.
            let holding = |state: &trestle_model::ClusterState| {
                let noted = state.vip_events.back().map(|event| event.revision);
                let places = (state.starts.clone(), state.sockets.clone());
                (state.tenure, noted, places, state.recovery_draws.clone(), state.time_ms)
            };
            let unchanged = view.state.revision == state.revision
                && view.state.cluster_id == state.cluster_id
                && holding(&view.state) == holding(state);
            let state = if unchanged { view.state.clone() } else { Arc::new(state.clone()) };
            *view = Arc::new(ClusterView { state, applied, applied_term, voters, learners });
        });
    }

    /// Applies a proposal, unless it is of a later term than its entry: no leader proposes for a term that is still to come,
    /// and one tenure of such a term would keep everybody from the virtual IPs until then. The log id is the same on every
    /// member, and so is the answer.
    fn apply_proposal(&mut self, log_id: LogId, proposal: Arc<Proposal>) -> Result<Applied, Refusal> {
        let entry = log_id.leader_id;
        match proposal.command.term() {
            Some(term) if term > entry.term => Err(Refusal::NoTenure {
                member: entry.node_id,
                term,
                why: "this term has not begun where it was written",
            }),
            _ => {
                let proposal = resolved(&mut self.current.machine, proposal)?;
                self.current.machine.apply(log_id.index, &proposal)
            }
        }
    }

    fn apply_one(&mut self, log_id: LogId, payload: Payload) -> ApplyResponse {
        self.current.applied = Some(log_id);
        match payload {
            Payload::Blank => ApplyResponse::Nothing,
            Payload::Membership(membership) => {
                self.current.membership = StoredMembership::new(Some(log_id), membership);
                ApplyResponse::Nothing
            }
            Payload::Normal(command) => match self.apply_proposal(log_id, command.proposal.clone()) {
                Ok(applied) => {
                    let shown = self.published.get_mut().unwrap_or_else(PoisonError::into_inner);
                    shown.requests.add(&command.proposal, &self.current.machine);
                    if !applied.changes.is_empty() {
                        shown.history.changed(applied.revision, applied.changes, &command);
                    }
                    ApplyResponse::Applied { revision: applied.revision, outcome: applied.outcome }
                }
                Err(refusal) => ApplyResponse::Refused(refusal),
            },
        }
    }
}

impl RaftStateMachine<TypeConfig> for Replica {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotWriter;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.current.applied, self.current.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut answers = Vec::new();
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let answer = self.apply_one(entry.log_id, entry.payload);
            if let Some(responder) = responder {
                answers.push((responder, answer));
            }
        }
        // Published before it is answered: who has the answer finds the change in this member's view.
        self.publish();
        for (responder, answer) in answers {
            responder.send(answer);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotWriter {
        SnapshotWriter { current: self.current.clone(), snapshots: self.snapshots.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, payload: SnapshotData) -> io::Result<()> {
        let (snapshots, described) = (self.snapshots.clone(), meta.clone());
        let machine = self.snapshots.blocking(move || {
            let wrong = |what: String| {
                io::Error::new(io::ErrorKind::InvalidData, format!("snapshot refused: {what}"))
            };
            let (meta, machine) = snapshot::decode(&payload).map_err(|e| wrong(e.to_string()))?;
            if meta != described {
                return Err(wrong(format!("it contains {meta}, not {described}")));
            }
            // At start openraft installs what lies on the disk already.
            let present = described.last_log_id.is_some_and(|id| snapshots.files.has(&id));
            if !(present && snapshots.newest().as_ref() == Some(&described)) {
                snapshots.save(&described, &payload)?;
            }
            Ok(machine)
        });
        let machine = machine.await?;
        self.jump(meta, machine);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let Some(meta) = self.snapshots.newest() else { return Ok(None) };
        let Some(id) = meta.last_log_id else { return Ok(None) };
        let snapshots = self.snapshots.clone();
        let snapshot =
            self.snapshots.blocking(move || snapshots.files.load(&id).map_err(io::Error::other)).await?;
        Ok(Some(Snapshot { meta, snapshot }))
    }
}

/// Writes a snapshot of the moment at which it was made.
pub(crate) struct SnapshotWriter {
    current: ReplicaState,
    snapshots: Arc<Snapshots>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotWriter {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (current, snapshots) = (self.current.clone(), self.snapshots.clone());
        self.snapshots
            .blocking(move || {
                let meta = SnapshotMeta { last_log_id: current.applied, last_membership: current.membership };
                let snapshot = snapshot::encode(&meta, &current.machine);
                snapshots.save(&meta, &snapshot)?;
                Ok(Snapshot { meta, snapshot })
            })
            .await
    }
}
