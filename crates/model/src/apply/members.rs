//! Members that are drained, or lost for good.

use std::sync::Arc;
use std::time::Duration;

use super::{Result, changed, missing, unchanged, valid};
use crate::change::{Change, ChangeKind, Resource};
use crate::command::Outcome;
use crate::kind::Kind;
use crate::machine::Applied;
use crate::member::{Member, MemberId, check_drain_timeout};
use crate::name::MemberName;
use crate::revision::Revision;
use crate::state::ClusterState;

impl ClusterState {
    pub(super) fn recover(&self, index: Revision, left: MemberId, recovery: u64) -> Result {
        let member = self.members.get(&left).ok_or_else(|| missing(Kind::Member, left))?;
        if recovery <= self.recovery {
            return unchanged(self.revision, Outcome::Member(member.clone()));
        }
        let lost = self.members.values().filter(|other| other.id != left);
        let changes = lost.map(|lost| Change::new(ChangeKind::Deleted, Resource::Member(lost.clone())));
        Ok(Applied { revision: index, outcome: Outcome::Member(member.clone()), changes: changes.collect() })
    }

    pub(super) fn drain_member(
        &self,
        index: Revision,
        name: &MemberName,
        draining: bool,
        timeout: Option<Duration>,
    ) -> Result {
        valid(|v| check_drain_timeout(timeout, v))?;
        let member = self.member_named(name).ok_or_else(|| missing(Kind::Member, name))?;
        let drain_timeout = timeout.filter(|_| draining);
        if (member.draining, member.drain_timeout) == (draining, drain_timeout) {
            return unchanged(member.revision, Outcome::Member(member.clone()));
        }
        let member = Arc::new(Member { draining, drain_timeout, revision: index, ..Member::clone(member) });
        changed(index, ChangeKind::Updated, Resource::Member(member))
    }
}
