//! Digests that prove that members agree: over what is stored, so that no field can be forgotten.

use prost::Message;
use sha2::{Digest as _, Sha256};
use trestle_model::{ClusterState, Digest, Machine};

use crate::storage;

/// Adds a message with its length, so that no two different sequences look alike.
fn feed(hash: &mut Sha256, message: &impl Message) {
    hash.update(message.encode_length_delimited_to_vec());
}

/// The digest of the configuration. Who holds the virtual IPs and whose process started when is left out: that changes without a
/// revision, so that two members of one revision may differ in it. So are users and authorities, which are not shown to everybody who
/// watches a cluster and compares what was seen with the members.
pub fn state_digest(state: &ClusterState) -> Digest {
    let mut hash = Sha256::new();
    let head = storage::Machine {
        cluster_id: state.cluster_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        recovery: state.recovery,
        feature_level: state.feature_level,
        revision: state.revision,
        ..storage::Machine::default()
    };
    feed(&mut hash, &head);
    for entry in state.pools.values() {
        feed(&mut hash, &storage::PoolEntry::from(&**entry));
    }
    // Between one kind and the next, for a kind may have none.
    feed(&mut hash, &storage::Blank {});
    for listener in state.listeners.values() {
        feed(&mut hash, &storage::Listener::from(&**listener));
    }
    feed(&mut hash, &storage::Blank {});
    for member in state.members.values() {
        feed(&mut hash, &storage::Member::from(&**member));
    }
    feed(&mut hash, &storage::Blank {});
    for vip in state.vips.values() {
        feed(&mut hash, &storage::Vip::from(&**vip));
    }
    Digest(hash.finalize().into())
}

/// The digest of everything that a snapshot has.
pub fn machine_digest(machine: &Machine) -> Digest {
    Digest(Sha256::digest(storage::Machine::from(machine).encode_to_vec()).into())
}
