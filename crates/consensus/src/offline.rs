//! Making a cluster of one from what a stopped member has on its disk, when a quorum is lost for good.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trestle_model::{Command, HostPort, Machine, MemberId, Proposal, Revision, defaults};

use crate::data_dir::DataDir;
use crate::identity::{FormerVoter, Identity, RecoveryId};
use crate::raft_types::{LeaderId, LogCommand, LogEntry, LogId, Membership, Payload, PeerNode, Vote};
use crate::replica::resolved;
use crate::snapshot::SnapshotFiles;
use crate::store::{ClosedLog, OpenError};

/// Why nothing can be made of a data directory.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no member in it.
    #[error("{} holds no member of a cluster; name the data directory of one that does", .0.display())]
    NoMember(PathBuf),
    /// The member was removed, so the others had gone on without it.
    #[error("this member was removed from its cluster, which went on without it; recover another one")]
    Removed,
    /// Its own record is not in its data.
    #[error("this member's data has no record of itself: it was about to join; recover another one")]
    Unrecorded,
}

/// Another member that the data knows as a voter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    /// Its id.
    pub id: MemberId,
    /// Its name; empty when the data does not know it.
    pub name: String,
    /// Where its peers reach it.
    pub peer_address: String,
}

/// A stopped member's data, locked for as long as this lives.
#[derive(Debug)]
pub struct OfflineMember {
    dir: Arc<DataDir>,
    identity: Identity,
    log: ClosedLog,
    machine: Machine,
    membership: Membership,
}

impl OfflineMember {
    /// Reads everything that the member has, and changes nothing that counts. Blocks.
    ///
    /// # Errors
    /// When the member runs, its data is damaged, or there is nothing to go on from.
    pub fn open(data_dir: &Path) -> Result<Self, OfflineError> {
        let none = || OfflineError::NoMember(data_dir.to_owned());
        if !data_dir.join("identity").exists() {
            return Err(none());
        }
        let dir = Arc::new(DataDir::open(data_dir)?);
        let identity = Identity::read(&dir)?.ok_or_else(none)?;
        if identity.removed {
            return Err(OfflineError::Removed);
        }
        let files = SnapshotFiles::open(&dir, identity.owner(&dir))?;
        let log = ClosedLog::open(&dir, &identity)?;
        let (mut machine, mut membership, after) = match files.newest(log.purged())? {
            Some(restored) => {
                let after = restored.meta.last_log_id.map(|id| id.index);
                (restored.machine, restored.meta.last_membership.membership().clone(), after)
            }
            None => Default::default(),
        };
        for LogEntry { log_id, payload } in log.entries()? {
            match payload {
                // The newest counts for Raft, whether committed or not.
                Payload::Membership(newer) => membership = newer,
                Payload::Normal(LogCommand { proposal, .. })
                    if after.is_none_or(|after| log_id.index > after) =>
                {
                    // Refused ones change nothing.
                    let _ = resolved(&mut machine, proposal).and_then(|p| machine.apply(log_id.index, &p));
                }
                Payload::Normal(_) | Payload::Blank => {}
            }
        }
        let level = machine.state.feature_level;
        if level > defaults::FEATURE_LEVEL_MAX {
            let known = defaults::FEATURE_LEVEL_MAX;
            let what = format!("feature level {level}, and this version knows up to {known}");
            return Err(OpenError::Unknown { file: dir.path().to_owned(), what }.into());
        }
        if !machine.state.members.contains_key(&identity.member_id) {
            return Err(OfflineError::Unrecorded);
        }
        Ok(Self { dir, identity, log, machine, membership })
    }

    /// Who the member is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Term and index of the last entry of its log.
    pub fn last_log(&self) -> (u64, u64) {
        self.log.last().map_or((0, 0), |last| (last.leader_id.term, last.index))
    }

    /// Index of the last entry that it knows to be committed.
    pub fn committed(&self) -> u64 {
        self.log.committed().map_or(0, |id| id.index)
    }

    /// Revision of the configuration after its whole log.
    pub fn revision(&self) -> Revision {
        self.machine.state.revision
    }

    /// Whether its data knows it as a voter.
    pub fn votes(&self) -> bool {
        self.membership.voter_ids().any(|id| id == self.identity.member_id.0)
    }

    /// The other voters.
    pub fn others(&self) -> Vec<Voter> {
        let voters: BTreeSet<u64> = self.membership.voter_ids().collect();
        let nodes: BTreeMap<u64, PeerNode> =
            self.membership.nodes().map(|(id, node)| (*id, node.clone())).collect();
        let other = voters.into_iter().filter(|id| *id != self.identity.member_id.0);
        other
            .map(|id| Voter {
                id: MemberId(id),
                name: self
                    .machine
                    .state
                    .members
                    .get(&MemberId(id))
                    .map(|member| member.spec.name.to_string())
                    .unwrap_or_default(),
                peer_address: nodes.get(&id).map(|node| node.peer_address.clone()).unwrap_or_default(),
            })
            .collect()
    }

    /// Whether these members and this one are a quorum of the voters, of both sets while a change is half done.
    pub fn is_quorum(&self, reached: &BTreeSet<MemberId>) -> bool {
        let there = |id: &&u64| **id == self.identity.member_id.0 || reached.contains(&MemberId(**id));
        let mut sets = self.membership.get_joint_config().iter();
        sets.all(|set| set.iter().filter(there).count() > set.len() / 2)
    }

    /// Makes the member the only one of its cluster: everything that its log has stays, committed or not, and an entry after
    /// it names this member as the only voter. `draw`, a random number, tells this recovery from another one of the same
    /// cluster. Answers the number of the recovery. Blocks.
    ///
    /// # Errors
    /// When the disk cannot be written. The member can be recovered again then.
    pub fn recover(mut self, draw: u64) -> Result<u64, OfflineError> {
        let me = self.identity.member_id;
        let recovery = self.identity.recovery.number.max(self.machine.state.recovery) + 1;
        let last = self.log.last();
        let term = self.log.vote().map_or(0, |vote| vote.leader_id.term);
        let leader = LeaderId { term: last.map_or(0, |id| id.leader_id.term).max(term) + 1, node_id: me.0 };
        let next = last.map_or(0, |id| id.index + 1);
        let recorded = self.machine.state.members.get(&me).map(|member| member.spec.peer_address.to_string());
        let peer_address = recorded.ok_or(OfflineError::Unrecorded)?;
        let alone = Membership::new(vec![[me.0].into()], BTreeMap::from([(me.0, PeerNode { peer_address })]));
        let alone = alone.map_err(|_| OfflineError::Unrecorded)?;
        let command = Command::Recover { member: me, recovery, draw };
        let entries = [
            LogEntry { log_id: LogId::new(leader, next), payload: Payload::Membership(alone) },
            LogEntry {
                log_id: LogId::new(leader, next + 1),
                payload: Payload::Normal(Proposal { origin: None, request: None, command }.into()),
            },
        ];
        // First the number: with it and the old voters this member reaches nobody and can be recovered again; the other way
        // round it would lead and let members from before in.
        let former = self.others().into_iter().filter_map(|voter| {
            let peer_address = HostPort::parse(&voter.peer_address).ok()?;
            Some(FormerVoter { id: voter.id, peer_address })
        });
        self.identity.former = former.take(defaults::MEMBERS_MAX).collect();
        self.identity.recovery = RecoveryId { number: recovery, draw };
        self.identity.write(&self.dir)?;
        self.log.append(&Vote { leader_id: leader, committed: true }, &entries)?;
        Ok(recovery)
    }
}
