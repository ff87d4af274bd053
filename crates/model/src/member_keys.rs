//! Which keys the members of a cluster have.

use crate::defaults::MEMBER_KEYS_MAX;
use crate::key_pin::KeyPin;
use crate::member::MemberId;
use crate::state::ClusterState;

impl ClusterState {
    /// Whether a key is one of a member's.
    pub fn is_key_of(&self, id: MemberId, key: &KeyPin) -> bool {
        self.member_keys.get(&id).is_some_and(|keys| keys.contains(key))
    }

    /// The member that a key is of.
    pub fn member_with_key(&self, key: &KeyPin) -> Option<MemberId> {
        self.member_keys.iter().find_map(|(id, keys)| keys.contains(key).then_some(*id))
    }

    /// The members, in the order of their ids, whose keys the cluster does not know.
    pub fn members_without_key(&self) -> impl Iterator<Item = &crate::member::Member> {
        let without = |id: &MemberId| self.member_keys.get(id).is_none_or(Vec::is_empty);
        self.members.values().filter(move |member| without(&member.id)).map(AsRef::as_ref)
    }

    /// Adds a key to a member's, which keeps the newest ones.
    pub(crate) fn pin_key(&mut self, id: MemberId, key: KeyPin) {
        let keys = self.member_keys.entry(id).or_default();
        keys.retain(|known| *known != key);
        keys.insert(0, key);
        keys.truncate(MEMBER_KEYS_MAX);
    }
}
