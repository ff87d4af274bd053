//! openraft's types, as this crate uses them. Nothing here reaches a disk or a peer: [`crate::wire`] does that.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use openraft::alias;
use prost::Message as _;
use trestle_api::storage;
use trestle_model::defaults::FEATURE_LEVEL_FIRST;
use trestle_model::{Command, Outcome, Proposal, Refusal, Revision, TransportSecurity};

/// A proposal in the log. Shared, because an entry is handed to the disk, to every peer and to the state machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogCommand {
    pub(crate) proposal: Arc<Proposal>,
    /// Bytes of its encoding.
    pub(crate) size: u32,
}

impl LogCommand {
    /// A proposal whose encoding has `size` bytes.
    pub(crate) fn new(proposal: Arc<Proposal>, size: usize) -> Self {
        Self { proposal, size: u32::try_from(size).unwrap_or(u32::MAX) }
    }
}

impl From<Proposal> for LogCommand {
    fn from(proposal: Proposal) -> Self {
        let size = storage::Proposal::from(&proposal).encoded_len();
        Self::new(Arc::new(proposal), size)
    }
}

impl Deref for LogCommand {
    type Target = Proposal;

    fn deref(&self) -> &Proposal {
        &self.proposal
    }
}

impl fmt::Display for LogCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.proposal.command, f)
    }
}

/// What the state machine answers to an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ApplyResponse {
    /// To a blank entry or a change of membership.
    Nothing,
    /// To a command that was accepted.
    Applied {
        /// Revision at which the answer holds.
        revision: Revision,
        /// What became of the resource.
        outcome: Outcome,
    },
    /// To a command that was refused.
    Refused(Refusal),
}

/// Where Raft reaches a member. The default, an empty address, exists for openraft's own test suite.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PeerNode {
    /// `HOST:PORT` of the member's peer service.
    pub(crate) peer_address: String,
}

openraft::declare_raft_types!(
    /// The types that this cluster fills openraft's parameters with.
    pub(crate) TypeConfig:
        D = LogCommand,
        R = ApplyResponse,
        NodeId = u64,
        Node = PeerNode,
        Term = u64,
        LeaderId = openraft::impls::leader_id_adv::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = openraft_rt_tokio::TokioRuntime,
);

/// A leader: its term and member id.
pub(crate) type LeaderId = alias::LeaderIdOf<TypeConfig>;
/// Identity of a log entry.
pub(crate) type LogId = alias::LogIdOf<TypeConfig>;
/// Raft's vote.
pub(crate) type Vote = alias::VoteOf<TypeConfig>;
/// A log entry.
pub(crate) type LogEntry = alias::EntryOf<TypeConfig>;
/// What a log entry does.
pub(crate) type Payload = alias::PayloadOf<TypeConfig>;
/// The feature level that an entry needs.
pub(crate) fn needed_level(entry: &LogEntry) -> u32 {
    match &entry.payload {
        Payload::Normal(command) => command.proposal.command.feature_level(),
        Payload::Blank | Payload::Membership(_) => FEATURE_LEVEL_FIRST,
    }
}

/// What an entry says that ports accept, if it does.
pub(crate) fn named_transport(entry: &LogEntry) -> Option<TransportSecurity> {
    let Payload::Normal(command) = &entry.payload else { return None };
    match &command.proposal.command {
        Command::SetTransport(transport) => Some(*transport),
        Command::FoundCluster { identities, .. } => {
            Some(identities.as_ref().map(|founding| founding.transport).unwrap_or_default())
        }
        _ => None,
    }
}

/// The members of the Raft group.
pub(crate) type Membership = openraft::Membership<u64, PeerNode>;
/// A membership with the log entry that brought it.
pub(crate) type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot contains.
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot: its description and the payload of its file.
pub(crate) type Snapshot = alias::SnapshotOf<TypeConfig, prost::bytes::Bytes>;
/// A callback that tells openraft that its write is on disk.
pub(crate) type IoFlushed = openraft::storage::IOFlushed<TypeConfig>;
