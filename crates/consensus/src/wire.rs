//! Conversions between openraft's types and our messages on disk and between members.
//!
//! openraft's own layouts have moved between its releases, so none of them is ever serialized. Encoding cannot fail;
//! decoding answers a [`WireError`] for whatever a disk or a peer may get wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use prost::Message as _;
use trestle_api::stored::DecodeError;
use trestle_api::{peer, storage};
use trestle_model::Proposal;
use trestle_model::defaults::NUMBER_MAX;

use crate::raft_types::{
    LeaderId, LogCommand, LogEntry, LogId, Membership, Payload, PeerNode, SnapshotMeta, StoredMembership,
    TypeConfig, Vote, needed_level,
};
use crate::store::{PROPOSAL_MAX, SyncedIndex};

/// Why a message is not one that a member of this cluster can have written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    /// A field that is always set is not there.
    #[error("{message} lacks its {field}, which is always set")]
    Missing {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A membership that contradicts itself.
    #[error("membership is not valid: {0}")]
    Membership(String),
    /// A number that no member of a cluster comes to.
    #[error("{field} {value} is above {max}, and no member of a cluster comes to it")]
    Number {
        /// What it counts.
        field: &'static str,
        /// The number.
        value: u64,
        /// The bound.
        max: u64,
    },
    /// A vote of the wrong kind.
    #[error("{message} has a vote that {rule}")]
    Vote {
        /// The message.
        message: &'static str,
        /// What is wrong with it.
        rule: &'static str,
    },
    /// Entries that do not follow one another as a leader's do.
    #[error("log entry {0} does not follow what is before it in the leader's log")]
    Order(LogId),
    /// An entry that is larger than any that may be proposed.
    #[error("log entry {id} takes {size} bytes, and the most that the log takes is {PROPOSAL_MAX}")]
    TooLarge {
        /// The entry.
        id: LogId,
        /// Its size in bytes.
        size: usize,
    },
    /// A resource or command that the model refuses.
    #[error(transparent)]
    Stored(#[from] DecodeError),
    /// An entry of a leader that this program does not know.
    #[error("log entry {} is none that this version knows ({what}); upgrade this member", .id.index)]
    Newer {
        /// The entry.
        id: LogId,
        /// What is not known.
        what: String,
    },
}

fn required<T>(message: &'static str, field: &'static str, value: Option<T>) -> Result<T, WireError> {
    value.ok_or(WireError::Missing { message, field })
}

/// How far above one's own a term may be that another member names. Elections come one every few hundred milliseconds at the
/// most, so a member that was away misses less than this in forty years.
const TERM_REACH: u64 = 1 << 32;

fn number(field: &'static str, value: u64) -> Result<u64, WireError> {
    within(field, value, NUMBER_MAX)
}

fn within(field: &'static str, value: u64, max: u64) -> Result<u64, WireError> {
    if value <= max { Ok(value) } else { Err(WireError::Number { field, value, max }) }
}

/// Refuses a term that no other member can have come to when this one is at `mine`.
pub(crate) fn within_reach(term: u64, mine: u64) -> Result<(), WireError> {
    within("term", term, mine.saturating_add(TERM_REACH)).map(|_| ())
}

fn leader_id_message(leader: &LeaderId) -> storage::LeaderId {
    storage::LeaderId { term: leader.term, member_id: leader.node_id }
}

fn leader_id(message: storage::LeaderId) -> Result<LeaderId, WireError> {
    let storage::LeaderId { term, member_id } = message;
    Ok(LeaderId { term: number("term", term)?, node_id: number("member id", member_id)? })
}

/// Encodes a log id.
pub(crate) fn log_id_message(id: &LogId) -> storage::LogId {
    storage::LogId { leader: Some(leader_id_message(&id.leader_id)), index: id.index }
}

/// Decodes a log id.
pub(crate) fn log_id(message: storage::LogId) -> Result<LogId, WireError> {
    let leader = leader_id(required("log id", "leader", message.leader)?)?;
    Ok(LogId::new(leader, number("log index", message.index)?))
}

fn maybe_log_id(message: Option<storage::LogId>) -> Result<Option<LogId>, WireError> {
    message.map(log_id).transpose()
}

/// Encodes a vote.
pub(crate) fn vote_message(vote: &Vote) -> storage::Vote {
    storage::Vote { leader: Some(leader_id_message(&vote.leader_id)), committed: vote.committed }
}

/// Decodes a vote.
pub(crate) fn vote(message: storage::Vote) -> Result<Vote, WireError> {
    let leader = leader_id(required("vote", "leader", message.leader)?)?;
    Ok(Vote { leader_id: leader, committed: message.committed })
}

/// Decodes a vote field that is always set in `message`.
pub(crate) fn required_vote(message: &'static str, field: Option<storage::Vote>) -> Result<Vote, WireError> {
    vote(required(message, "vote", field)?)
}

/// Decodes the vote of a leader.
pub(crate) fn leader_vote(message: &'static str, field: Option<storage::Vote>) -> Result<Vote, WireError> {
    let vote = required_vote(message, field)?;
    let rule = "is no leader's: no quorum has confirmed it";
    if vote.committed { Ok(vote) } else { Err(WireError::Vote { message, rule }) }
}

/// Encodes what a member has stored.
pub(crate) fn synced_index_message(mark: &SyncedIndex) -> peer::Stored {
    peer::Stored {
        last_log_id: mark.last.as_ref().map(log_id_message),
        vote: mark.vote.as_ref().map(vote_message),
    }
}

/// Decodes what a member has stored; nothing for none.
pub(crate) fn synced_index(message: Option<&peer::Stored>) -> Result<SyncedIndex, WireError> {
    let Some(message) = message else { return Ok(SyncedIndex::default()) };
    Ok(SyncedIndex { last: maybe_log_id(message.last_log_id)?, vote: message.vote.map(vote).transpose()? })
}

fn membership_message(membership: &Membership) -> storage::Membership {
    let set = |ids: &BTreeSet<u64>| storage::VoterSet { member_ids: ids.iter().copied().collect() };
    let node = |(id, node): (&u64, &PeerNode)| storage::Node {
        member_id: *id,
        peer_address: node.peer_address.clone(),
    };
    storage::Membership {
        configs: membership.get_joint_config().iter().map(set).collect(),
        nodes: membership.nodes().map(node).collect(),
    }
}

fn membership(message: storage::Membership) -> Result<Membership, WireError> {
    let configs = message.configs.into_iter().map(|set| set.member_ids.into_iter().collect()).collect();
    let nodes = message.nodes.into_iter();
    let nodes: BTreeMap<u64, PeerNode> =
        nodes.map(|node| (node.member_id, PeerNode { peer_address: node.peer_address })).collect();
    Membership::new(configs, nodes).map_err(|e| WireError::Membership(e.to_string()))
}

/// Encodes a log entry.
pub(crate) fn entry_message(entry: &LogEntry) -> storage::LogEntry {
    use storage::log_entry::Payload as Message;
    let payload = match &entry.payload {
        Payload::Blank => Message::Blank(storage::Blank {}),
        Payload::Normal(command) => Message::Proposal(command.proposal.as_ref().into()),
        Payload::Membership(membership) => Message::Membership(membership_message(membership)),
    };
    storage::LogEntry { log_id: Some(log_id_message(&entry.log_id)), payload: Some(payload) }
}

/// Decodes a log entry.
pub(crate) fn entry(message: storage::LogEntry) -> Result<LogEntry, WireError> {
    use storage::log_entry::Payload as Message;
    let payload = match message.payload.ok_or(DecodeError::Newer("kind of log entry"))? {
        Message::Blank(storage::Blank {}) => Payload::Blank,
        Message::Proposal(proposal) => {
            let size = proposal.encoded_len();
            Payload::Normal(LogCommand::new(Arc::new(Proposal::try_from(proposal)?), size))
        }
        Message::Membership(message) => Payload::Membership(membership(message)?),
    };
    Ok(LogEntry { log_id: log_id(required("log entry", "log id", message.log_id)?)?, payload })
}

/// Encodes what a snapshot contains.
pub(crate) fn snapshot_meta_message(meta: &SnapshotMeta) -> storage::SnapshotMeta {
    storage::SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(log_id_message),
        membership_log_id: meta.last_membership.log_id().as_ref().map(log_id_message),
        membership: Some(membership_message(meta.last_membership.membership())),
    }
}

/// Decodes what a snapshot contains.
pub(crate) fn snapshot_meta(message: storage::SnapshotMeta) -> Result<SnapshotMeta, WireError> {
    let membership = membership(required("snapshot", "membership", message.membership)?)?;
    Ok(SnapshotMeta {
        last_log_id: maybe_log_id(message.last_log_id)?,
        last_membership: StoredMembership::new(maybe_log_id(message.membership_log_id)?, membership),
    })
}

/// Encodes a request of AppendEntries for the member `to`.
pub(crate) fn append_request_message(
    to: peer::Destination,
    request: &AppendEntriesRequest<TypeConfig>,
) -> peer::AppendEntriesRequest {
    peer::AppendEntriesRequest {
        to: Some(to),
        vote: Some(vote_message(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id_message),
        entries: request.entries.iter().map(entry_message).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_message),
    }
}

/// Decodes an entry that a leader sends to a program that knows levels up to `level_max`. What such a program cannot know is told
/// apart from what no leader sends.
fn sent_entry(message: storage::LogEntry, level_max: u32) -> Result<LogEntry, WireError> {
    let id = log_id(required("log entry", "log id", message.log_id)?)?;
    let entry = entry(message).map_err(|error| match error {
        WireError::Stored(unknown) => WireError::Newer { id, what: unknown.to_string() },
        other => other,
    })?;
    let level = needed_level(&entry);
    if level > level_max {
        let what = format!("feature level {level}, and this version knows up to {level_max}");
        return Err(WireError::Newer { id, what });
    }
    Ok(entry)
}

/// Decodes a request of AppendEntries for a program that knows feature levels up to `level_max`; its destination is the caller's
/// to check.
pub(crate) fn append_request(
    message: peer::AppendEntriesRequest,
    level_max: u32,
) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    let vote = leader_vote("append request", message.vote)?;
    let prev_log_id = maybe_log_id(message.prev_log_id)?;
    let mut last = prev_log_id;
    let follows = |message: storage::LogEntry| {
        let size = match &message.payload {
            Some(storage::log_entry::Payload::Proposal(proposal)) => proposal.encoded_len(),
            _ => 0,
        };
        let entry = sent_entry(message, level_max)?;
        if size > PROPOSAL_MAX {
            return Err(WireError::TooLarge { id: entry.log_id, size });
        }
        appended(&entry, last, &vote)?;
        last = Some(entry.log_id);
        Ok(entry)
    };
    let entries = message.entries.into_iter().map(follows).collect::<Result<_, WireError>>()?;
    let leader_commit = maybe_log_id(message.leader_commit)?;
    let of_leader = |id: &Option<LogId>| id.is_none_or(|id| id.leader_id <= vote.leader_id);
    match [prev_log_id, leader_commit].into_iter().flatten().find(|id| !of_leader(&Some(*id))) {
        Some(id) => Err(WireError::Order(id)),
        None => Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit }),
    }
}

/// Refuses an entry that a leader cannot append after `last`: Raft would take it for a failure of its storage.
fn appended(entry: &LogEntry, last: Option<LogId>, vote: &Vote) -> Result<(), WireError> {
    let id = entry.log_id;
    let next = last.map_or(0, |last| last.index + 1);
    let rises = last.is_none_or(|last| last.leader_id <= id.leader_id);
    if id.index != next || !rises || id.leader_id > vote.leader_id {
        return Err(WireError::Order(id));
    }
    match &entry.payload {
        Payload::Membership(membership) if membership.get_joint_config().is_empty() => {
            Err(WireError::Membership("it has no voters".to_owned()))
        }
        Payload::Membership(_) | Payload::Blank | Payload::Normal(_) => Ok(()),
    }
}

/// Encodes an answer of AppendEntries.
pub(crate) fn append_response_message(
    response: &AppendEntriesResponse<TypeConfig>,
) -> peer::AppendEntriesResponse {
    use peer::append_entries_response::Result as Message;
    let result = match response {
        AppendEntriesResponse::Success => Message::Success(peer::Empty {}),
        AppendEntriesResponse::PartialSuccess(matching) => {
            Message::PartialSuccess(peer::PartialSuccess { matching: matching.as_ref().map(log_id_message) })
        }
        AppendEntriesResponse::Conflict => Message::Conflict(peer::Empty {}),
        AppendEntriesResponse::HigherVote(vote) => Message::HigherVote(vote_message(vote)),
    };
    peer::AppendEntriesResponse { result: Some(result) }
}

/// Decodes an answer of AppendEntries.
pub(crate) fn append_response(
    message: peer::AppendEntriesResponse,
) -> Result<AppendEntriesResponse<TypeConfig>, WireError> {
    use peer::append_entries_response::Result as Message;
    Ok(match required("append response", "result", message.result)? {
        Message::Success(peer::Empty {}) => AppendEntriesResponse::Success,
        Message::PartialSuccess(m) => AppendEntriesResponse::PartialSuccess(maybe_log_id(m.matching)?),
        Message::Conflict(peer::Empty {}) => AppendEntriesResponse::Conflict,
        Message::HigherVote(message) => AppendEntriesResponse::HigherVote(vote(message)?),
    })
}

/// Encodes a request of Vote or PreVote for the member `to`.
pub(crate) fn vote_request_message(
    to: peer::Destination,
    request: &VoteRequest<TypeConfig>,
) -> peer::VoteRequest {
    peer::VoteRequest {
        to: Some(to),
        vote: Some(vote_message(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id_message),
        leadership_transfer: request.leadership_transfer,
    }
}

/// Decodes a request of Vote or PreVote; its destination is the caller's to check.
pub(crate) fn vote_request(message: peer::VoteRequest) -> Result<VoteRequest<TypeConfig>, WireError> {
    let vote = required_vote("vote request", message.vote)?;
    if vote.committed {
        let (message, rule) = ("vote request", "is a leader's, and no candidate's");
        return Err(WireError::Vote { message, rule });
    }
    Ok(VoteRequest {
        vote,
        last_log_id: maybe_log_id(message.last_log_id)?,
        leadership_transfer: message.leadership_transfer,
    })
}

/// Encodes an answer of Vote or PreVote.
pub(crate) fn vote_response_message(response: &VoteResponse<TypeConfig>) -> peer::VoteResponse {
    peer::VoteResponse {
        vote: Some(vote_message(&response.vote)),
        vote_granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(log_id_message),
    }
}

/// Decodes an answer of Vote or PreVote.
pub(crate) fn vote_response(message: peer::VoteResponse) -> Result<VoteResponse<TypeConfig>, WireError> {
    Ok(VoteResponse {
        vote: required_vote("vote response", message.vote)?,
        vote_granted: message.vote_granted,
        last_log_id: maybe_log_id(message.last_log_id)?,
    })
}

/// Encodes a request of TransferLeader for the member `to`.
pub(crate) fn transfer_request_message(
    to: peer::Destination,
    request: &TransferLeaderRequest<TypeConfig>,
) -> peer::TransferLeaderRequest {
    peer::TransferLeaderRequest {
        to: Some(to),
        from_leader: Some(vote_message(request.from_leader())),
        to_member_id: *request.to_node_id(),
        last_log_id: request.last_log_id().map(log_id_message),
    }
}

/// Decodes a request of TransferLeader; its destination is the caller's to check.
pub(crate) fn transfer_request(
    message: peer::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, WireError> {
    Ok(TransferLeaderRequest::new(
        leader_vote("transfer request", message.from_leader)?,
        message.to_member_id,
        maybe_log_id(message.last_log_id)?,
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use prost::Message;
    use trestle_model::{Command, MemberId};

    use super::*;

    fn id(index: u64) -> LogId {
        LogId::new(LeaderId { term: 3, node_id: 9 }, index)
    }

    fn entries() -> Vec<LogEntry> {
        let node = |id: u64| (id, PeerNode { peer_address: format!("10.0.0.{id}:7481") });
        let nodes: BTreeMap<_, _> = [1, 2, 9].map(node).into();
        let joint = Membership::new(vec![[1, 2].into(), [1, 2, 9].into()], nodes).unwrap();
        let proposal = Proposal { origin: None, request: None, command: Command::RemoveMember(MemberId(2)) };
        let payloads = [Payload::Blank, Payload::Membership(joint), Payload::Normal(proposal.into())];
        (5..).zip(payloads).map(|(index, payload)| LogEntry { log_id: id(index), payload }).collect()
    }

    fn to() -> peer::Destination {
        peer::Destination {
            cluster_id: "0".repeat(32),
            member_id: 9,
            vote_refusal_ms: 300,
            ..Default::default()
        }
    }

    /// Through the bytes, as between members.
    fn again<M: Message + Default>(message: &M) -> M {
        M::decode(&message.encode_to_vec()[..]).unwrap()
    }

    #[test]
    fn raft_messages_round_trip() {
        let vote = Vote { leader_id: LeaderId { term: 3, node_id: 9 }, committed: true };
        for prev in [None, Some(id(4))] {
            let request = AppendEntriesRequest {
                vote,
                prev_log_id: prev,
                entries: if prev.is_some() { entries() } else { Vec::new() },
                leader_commit: Some(id(0)),
            };
            let back = append_request(again(&append_request_message(to(), &request)), 1).unwrap();
            assert_eq!((back.vote, back.prev_log_id, back.entries), (vote, prev, request.entries));
            assert_eq!(back.leader_commit, Some(id(0)));
            let asks = Vote { committed: false, ..vote };
            let request = VoteRequest { vote: asks, last_log_id: prev, leadership_transfer: prev.is_some() };
            assert_eq!(vote_request(again(&vote_request_message(to(), &request))), Ok(request));
            let response = VoteResponse { vote, vote_granted: prev.is_some(), last_log_id: prev };
            assert_eq!(vote_response(again(&vote_response_message(&response))), Ok(response));
            let request = TransferLeaderRequest::new(vote, 2, prev);
            assert_eq!(transfer_request(again(&transfer_request_message(to(), &request))), Ok(request));
            for response in [
                AppendEntriesResponse::Success,
                AppendEntriesResponse::PartialSuccess(prev),
                AppendEntriesResponse::Conflict,
                AppendEntriesResponse::HigherVote(vote),
            ] {
                assert_eq!(append_response(again(&append_response_message(&response))), Ok(response));
            }
        }
    }

    #[test]
    fn what_is_stored_round_trips() {
        let vote = Vote { leader_id: LeaderId { term: 3, node_id: 9 }, committed: true };
        for stored in [SyncedIndex::default(), SyncedIndex { last: Some(id(7)), vote: Some(vote) }] {
            assert_eq!(synced_index(Some(&again(&synced_index_message(&stored)))), Ok(stored));
        }
        assert_eq!(synced_index(None), Ok(SyncedIndex::default()));
    }

    #[test]
    fn what_a_peer_leaves_out_is_named() {
        let text = |error: WireError| error.to_string();
        assert!(
            text(append_request(Default::default(), 1).unwrap_err())
                .contains("append request lacks its vote")
        );
        assert!(text(append_response(Default::default()).unwrap_err()).contains("lacks its result"));
        assert!(
            text(vote_response(Default::default()).unwrap_err()).contains("vote response lacks its vote")
        );
        assert!(text(entry(Default::default()).unwrap_err()).contains("stored kind of log entry is none"));
        let headless = storage::LogId { leader: None, index: 1 };
        assert!(text(log_id(headless).unwrap_err()).contains("log id lacks its leader"));
        let strangers =
            storage::Membership { configs: vec![storage::VoterSet { member_ids: vec![4] }], nodes: vec![] };
        assert!(matches!(membership(strangers), Err(WireError::Membership(_))));
    }
}
