#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{Config, Raft, RaftNetworkFactory, RaftNetworkV2};
use prost::bytes::Bytes;
use tokio::sync::watch;
use trestle_api::stored::{machine_digest, state_digest};
use trestle_model::defaults::FEATURE_LEVEL_MAX;
use trestle_model::{Change, Command, Digest, PoolName, PoolSpec, Proposal, Request, RequestId, Revision};

use super::{ChangeSink, ClusterView, Replica, SnapshotData, StatePublisher};
use crate::data_dir::DataDir;
use crate::raft_types::{ApplyResponse, LogCommand, PeerNode, Snapshot, TypeConfig, Vote};
use crate::snapshot::decode;
use crate::storage::Storage;
use crate::store::LogClosed;
use crate::store::tests::identity;

/// A member that has no peers: nothing is ever sent.
pub(crate) struct NoPeers;

fn nobody() -> Unreachable<TypeConfig> {
    Unreachable::new(&io::Error::other("there are no peers"))
}

impl RaftNetworkFactory<TypeConfig> for NoPeers {
    type Network = NoPeers;

    async fn new_client(&mut self, _: u64, _: &PeerNode) -> NoPeers {
        NoPeers
    }
}

impl RaftNetworkV2<TypeConfig> for NoPeers {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(nobody().into())
    }

    async fn vote(
        &mut self,
        _: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(nobody().into())
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: Snapshot,
        _: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Err(nobody().into())
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Event {
    Changed(Revision, usize),
    Jumped(Revision),
}

#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<Vec<Event>>>);

impl ChangeSink for Recorded {
    fn changed(&mut self, revision: Revision, changes: Vec<Change>, _: &LogCommand) {
        self.0.lock().unwrap().push(Event::Changed(revision, changes.len()));
    }

    fn jumped(&mut self, revision: Revision) {
        self.0.lock().unwrap().push(Event::Jumped(revision));
    }
}

struct Member {
    raft: Raft<TypeConfig, Replica>,
    view: watch::Receiver<Arc<ClusterView>>,
    history: Recorded,
    closed: LogClosed,
}

impl Member {
    async fn start(dir: &Path, create: bool) -> Self {
        let data = Arc::new(DataDir::open(dir).unwrap());
        let history = Recorded::default();
        let (sender, view) = watch::channel(Arc::default());
        let published =
            StatePublisher { view: sender, history: Box::new(history.clone()), requests: Arc::default() };
        let storage = match create {
            true => Storage::create(&data, &identity(), published),
            false => Storage::open(&data, &identity(), published, FEATURE_LEVEL_MAX),
        };
        let Storage { log, replica, closed } = storage.unwrap();
        let config = Config {
            heartbeat_interval: 50,
            election_timeout_min: 150,
            election_timeout_max: 300,
            max_in_snapshot_log_to_keep: 2,
            ..Config::default()
        };
        let raft = Raft::new(7, Arc::new(config.validate().unwrap()), NoPeers, log, replica).await.unwrap();
        if create {
            let node = PeerNode { peer_address: "127.0.0.1:7481".to_owned() };
            raft.initialize(BTreeMap::from([(7, node)])).await.unwrap();
        }
        let deadline = Some(Duration::from_secs(10));
        raft.wait(deadline).current_leader(7, "it leads").await.unwrap();
        Self { raft, view, history, closed }
    }

    async fn write(&self, number: u64) -> ApplyResponse {
        let name = PoolName::parse(&format!("pool-{number}")).unwrap();
        let id = RequestId::parse(&format!("request-{number}")).unwrap();
        let command = Command::create((name, PoolSpec::default()));
        let request = Some(Request { id, fingerprint: number });
        self.raft.client_write(Proposal { origin: None, request, command }.into()).await.unwrap().data
    }

    async fn snapshot(&self) -> (u64, Digest) {
        self.raft.trigger().snapshot().await.unwrap();
        let applied = self.view.borrow().applied;
        let deadline = Some(Duration::from_secs(10));
        let reached =
            |m: &openraft::RaftMetrics<TypeConfig>| m.snapshot.is_some_and(|id| id.index >= applied);
        self.raft.wait(deadline).metrics(reached, "the snapshot is there").await.unwrap();
        let snapshot = self.raft.get_snapshot().await.unwrap().unwrap();
        let (meta, machine) = decode(&snapshot.snapshot).unwrap();
        (meta.last_log_id.unwrap().index, machine_digest(&machine))
    }

    async fn stop(self) {
        self.raft.shutdown().await.unwrap();
        drop(self.raft);
        self.closed.wait().await;
    }
}

#[tokio::test]
async fn an_answer_comes_after_the_view_that_shows_it() {
    let dir = tempfile::tempdir().unwrap();
    let member = Member::start(dir.path(), true).await;
    let ApplyResponse::Applied { revision, .. } = member.write(1).await else { panic!("refused") };
    let view = member.view.borrow().clone();
    assert_eq!(view.state.revision, revision);
    assert!(view.applied >= revision);
    assert_eq!(view.voters.iter().map(|id| id.0).collect::<Vec<_>>(), [7]);
    assert!(view.learners.is_empty());
    assert_eq!(*member.history.0.lock().unwrap(), [Event::Changed(revision, 1)]);
    // The same request again changes nothing and is no news.
    assert!(
        matches!(member.write(1).await, ApplyResponse::Applied { revision: again, .. } if again == revision)
    );
    assert_eq!(member.history.0.lock().unwrap().len(), 1);
    assert!(Arc::ptr_eq(&view.state, &member.view.borrow().state), "an unchanged state keeps its address");
    member.stop().await;
}

#[tokio::test]
async fn snapshot_and_log_give_the_same_machine_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let member = Member::start(dir.path(), true).await;
    for number in 1..=20 {
        member.write(number).await;
    }
    let (upto, _) = member.snapshot().await;
    for number in 21..=25 {
        member.write(number).await;
    }
    let before = member.view.borrow().state.clone();
    let of_snapshot =
        before.pools.values().map(|pool| pool.pool.revision).filter(|r| *r <= upto).max().unwrap();
    member.stop().await;

    let member = Member::start(dir.path(), false).await;
    member.write(25).await;
    assert_eq!(state_digest(&member.view.borrow().state), state_digest(&before));
    let events = member.history.0.lock().unwrap().clone();
    assert_eq!(events[0], Event::Jumped(of_snapshot));
    assert_eq!(events.len(), 6, "{events:?}");
    // Remembered requests came through snapshot and log alike, so the machines are equal as a whole.
    for number in 1..=25 {
        member.write(number).await;
    }
    assert_eq!(state_digest(&member.view.borrow().state), state_digest(&before));
    let (_, digest) = member.snapshot().await;
    member.stop().await;
    let member = Member::start(dir.path(), false).await;
    let (_, again) = member.snapshot().await;
    assert_eq!(again, digest);
    member.stop().await;
}

#[tokio::test]
async fn a_snapshot_that_contains_something_else_is_refused() {
    use openraft::storage::RaftStateMachine;

    let dir = tempfile::tempdir().unwrap();
    let data = Arc::new(DataDir::open(dir.path()).unwrap());
    let published = StatePublisher {
        view: watch::channel(Arc::default()).0,
        history: Box::new(Recorded::default()),
        requests: Arc::default(),
    };
    let mut replica = Storage::create(&data, &identity(), published).unwrap().replica;
    let meta = crate::raft_types::SnapshotMeta::default();
    let payload = crate::snapshot::encode(&meta, &trestle_model::Machine::default());
    replica.install_snapshot(&meta, payload.clone()).await.unwrap();
    let other = crate::raft_types::SnapshotMeta {
        last_log_id: Some(crate::raft_types::LogId::new(
            crate::raft_types::LeaderId { term: 1, node_id: 1 },
            5,
        )),
        ..meta
    };
    let error = replica.install_snapshot(&other, payload).await.unwrap_err().to_string();
    assert!(error.contains("snapshot refused"), "{error}");
    let error =
        replica.install_snapshot(&other, Bytes::from_static(b"nonsense")).await.unwrap_err().to_string();
    assert!(error.contains("not a snapshot message"), "{error}");
    assert_eq!(replica.applied_state().await.unwrap().0, None);
}
