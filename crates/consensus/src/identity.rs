//! Who this member is: a small file of its own, written before the member takes part in anything.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;

use trestle_api::storage;
use trestle_model::{ClusterId, HostPort, MemberId, MemberName, defaults};

use crate::data_dir::{ASIDE, DataDir, replace_file};
use crate::store::record::{RecordError, seal, unseal};
use crate::store::{OpenError, StorageOwner};

/// The storage format that this program reads and writes. 1: changes of single settings. 2: whole documents.
pub const STORAGE_FORMAT: u32 = 2;

/// Which recovery of its cluster a member is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecoveryId {
    /// How often the cluster was made anew from one member; 0 for never.
    pub number: u64,
    /// What was drawn at the last time; 0 where nothing was, as before there were draws.
    pub draw: u64,
}

/// Who a member is. The id was allocated by the cluster's log and is never used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The member's id in it.
    pub member_id: MemberId,
    /// The member's name when it joined.
    pub name: MemberName,
    /// True once it was removed from the cluster; such a member takes part in nothing any more.
    pub removed: bool,
    /// The last time that the cluster was made anew from one member, as far as this one was part of it.
    pub recovery: RecoveryId,
    /// On the member that it was made from: who else voted before.
    pub former: Vec<FormerVoter>,
}

/// A voter from before a recovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormerVoter {
    /// Its id.
    pub id: MemberId,
    /// Where it was reached.
    pub peer_address: HostPort,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "member {} of cluster {}", self.member_id, self.cluster_id)
    }
}

const FILE: &str = "identity";

fn path(dir: &DataDir) -> PathBuf {
    dir.join(FILE)
}

impl Identity {
    /// Reads the identity file; `None` when there is none, which is what an empty member looks like.
    pub(crate) fn read(dir: &DataDir) -> Result<Option<Self>, OpenError> {
        let path = path(dir);
        let record = match fs::read(&path) {
            Ok(record) => record,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(OpenError::io("read", path)(e)),
        };
        let owner = StorageOwner { dir: dir.path().to_owned(), member: "NAME".to_owned() };
        let newer = |found| OpenError::NewerFormat { file: path.clone(), found, known: STORAGE_FORMAT };
        let message: storage::Identity = unseal(&record).map_err(|e| match e {
            RecordError::Newer(version) => newer(version.into()),
            e => owner.damaged(&path, e.to_string()),
        })?;
        if message.format > STORAGE_FORMAT {
            return Err(newer(message.format));
        }
        if message.format < STORAGE_FORMAT {
            let (dir, found) = (dir.path().to_owned(), message.format);
            return Err(OpenError::OlderFormat { dir, found, known: STORAGE_FORMAT });
        }
        Self::decode(message).map(Some).map_err(|rule| owner.damaged(&path, rule))
    }

    /// Writes the identity file. When this returns the file is durable; after a crash it is the old one or the new one.
    pub(crate) fn write(&self, dir: &DataDir) -> Result<(), OpenError> {
        let path = path(dir);
        replace_file(&path, &[&seal(&self.message())]).map_err(OpenError::io("write", path))
    }

    /// Moves aside what this member has in its directory, where another one begins, and answers where it is.
    pub(crate) fn set_aside(&self, dir: &DataDir) -> std::io::Result<PathBuf> {
        dir.set_aside(&format!("{ASIDE}{}", self.member_id), FILE)
    }

    pub(crate) fn message(&self) -> storage::Identity {
        let Self { cluster_id, member_id, name, removed, recovery, former } = self;
        let former = former.iter().map(|voter| storage::FormerVoter {
            member_id: voter.id.0,
            peer_address: voter.peer_address.to_string(),
        });
        storage::Identity {
            format: STORAGE_FORMAT,
            cluster_id: cluster_id.to_string(),
            member_id: member_id.0,
            name: name.to_string(),
            removed: *removed,
            recovery: recovery.number,
            recovery_draw: recovery.draw,
            former_voters: former.collect(),
        }
    }

    pub(crate) fn decode(message: storage::Identity) -> Result<Self, String> {
        Ok(Self {
            cluster_id: ClusterId::parse(&message.cluster_id)
                .map_err(|rule| format!("the cluster id {rule}"))?,
            member_id: MemberId(message.member_id),
            name: MemberName::parse(&message.name).map_err(|rule| format!("the member name {rule}"))?,
            removed: message.removed,
            recovery: RecoveryId { number: message.recovery, draw: message.recovery_draw },
            former: former(message.former_voters)?,
        })
    }

    /// Whether both are the same member of the same cluster.
    pub(crate) fn is_same_member(&self, other: &Self) -> bool {
        self.cluster_id == other.cluster_id && self.member_id == other.member_id
    }

    pub(crate) fn owner(&self, dir: &DataDir) -> StorageOwner {
        StorageOwner { dir: dir.path().to_owned(), member: self.name.to_string() }
    }
}

fn former(voters: Vec<storage::FormerVoter>) -> Result<Vec<FormerVoter>, String> {
    if voters.len() > defaults::MEMBERS_MAX {
        return Err(format!(
            "there are {} former voters, and a cluster has at most {}",
            voters.len(),
            defaults::MEMBERS_MAX
        ));
    }
    let parse = |voter: storage::FormerVoter| {
        let peer_address = HostPort::parse(&voter.peer_address);
        let peer_address = peer_address.map_err(|rule| format!("the address of a former voter {rule}"))?;
        Ok(FormerVoter { id: MemberId(voter.member_id), peer_address })
    };
    voters.into_iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn identity() -> Identity {
        Identity {
            cluster_id: ClusterId::parse(&"0a".repeat(16)).unwrap(),
            member_id: MemberId(12),
            name: MemberName::parse("east-1").unwrap(),
            removed: true,
            recovery: RecoveryId { number: 3, draw: 0x0123_4567_89ab_cdef },
            former: vec![FormerVoter {
                id: MemberId(4),
                peer_address: HostPort::parse("m4.example:7481").unwrap(),
            }],
        }
    }

    #[test]
    fn one_of_before_there_were_draws_is_read_with_none() {
        let mut message = identity().message();
        message.recovery_draw = 0;
        message.former_voters.clear();
        let read = Identity::decode(message).unwrap();
        assert_eq!((read.recovery, read.former.len()), (RecoveryId { number: 3, draw: 0 }, 0));
    }

    #[test]
    fn former_voters_have_a_bound_and_addresses() {
        let mut message = identity().message();
        message.former_voters = vec![message.former_voters[0].clone(); 16];
        assert!(Identity::decode(message.clone()).unwrap_err().contains("16 former voters"));
        message.former_voters.truncate(1);
        message.former_voters[0].peer_address = "nowhere".to_owned();
        assert!(Identity::decode(message).unwrap_err().contains("the address of a former voter"));
    }

    #[test]
    fn an_identity_is_read_as_it_was_written() {
        let place = tempfile::tempdir().unwrap();
        let dir = DataDir::open(place.path()).unwrap();
        assert_eq!(Identity::read(&dir).unwrap(), None);
        identity().write(&dir).unwrap();
        assert_eq!(Identity::read(&dir).unwrap(), Some(identity()));
        let renewed = Identity { removed: false, ..identity() };
        renewed.write(&dir).unwrap();
        assert_eq!(Identity::read(&dir).unwrap(), Some(renewed));
        assert!(!place.path().join("identity.tmp").exists());
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_refused_with_the_file_named() {
        let place = tempfile::tempdir().unwrap();
        let dir = DataDir::open(place.path()).unwrap();
        identity().write(&dir).unwrap();
        let good = fs::read(path(&dir)).unwrap();
        let refused = |bytes: &[u8]| {
            fs::write(path(&dir), bytes).unwrap();
            let error = Identity::read(&dir).unwrap_err();
            assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("/identity is damaged"), "{error}");
        };
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            refused(&bytes);
            refused(&good[..at]);
        }
    }

    #[test]
    fn another_format_is_refused_as_such() {
        let place = tempfile::tempdir().unwrap();
        let dir = DataDir::open(place.path()).unwrap();
        let newer = storage::Identity { format: 3, ..identity().message() };
        fs::write(path(&dir), seal(&newer)).unwrap();
        let error = Identity::read(&dir).unwrap_err();
        assert!(matches!(error, OpenError::NewerFormat { found: 3, known: 2, .. }), "{error}");
        assert!(error.to_string().contains("storage format 3"), "{error}");
        let older = storage::Identity { format: 1, ..identity().message() };
        fs::write(path(&dir), seal(&older)).unwrap();
        let error = Identity::read(&dir).unwrap_err();
        assert!(matches!(error, OpenError::OlderFormat { found: 1, known: 2, .. }), "{error}");
    }
}
