//! Virtual IPs and who holds them.

use std::sync::Arc;

use super::{Result, changed, exists, expect_revision, missing, unchanged, valid};
use crate::command::Outcome;
use crate::defaults;
use crate::diff::{ChangeKind, Resource};
use crate::machine::Applied;
use crate::member::MemberId;
use crate::name::VipName;
use crate::refusal::{Kind, Refusal};
use crate::state::{ClusterState, Revision};
use crate::tenure::{Tenure, VipEvent, VipEventKind};
use crate::vip::{Vip, VipPatch, VipSpec};

impl ClusterState {
    /// The settings must be in order, and name only members that there are.
    fn check_vip(&self, spec: &VipSpec) -> std::result::Result<(), Refusal> {
        valid(|v| {
            spec.check(v);
            for (field, name) in spec.members().filter(|(_, name)| self.member_named(name).is_none()) {
                v.add(field, name, "is no member of this cluster; see \"trestle member list\"");
            }
        })
    }

    pub(super) fn create_vip(&self, index: Revision, name: &VipName, spec: &VipSpec) -> Result {
        let decided = self.new_vip(index, name, spec)?;
        self.check_vip(spec)?;
        Ok(decided)
    }

    /// As [`create_vip`](Self::create_vip), whatever members the settings name.
    pub(super) fn new_vip(&self, index: Revision, name: &VipName, spec: &VipSpec) -> Result {
        if let Some(vip) = self.vips.get(name) {
            return Err(exists(Kind::Vip, name, vip.revision));
        }
        valid(|v| {
            let taken = self.vips.values().find(|vip| vip.spec.address.ip == spec.address.ip);
            if let Some(other) = taken {
                v.add(
                    "vip.address",
                    spec.address,
                    format!("is the address of vip \"{}\" already", other.name),
                );
            }
        })?;
        if self.vips.len() >= defaults::VIPS_MAX {
            return Err(Refusal::Full { kind: Kind::Vip, max: defaults::VIPS_MAX });
        }
        valid(|v| spec.check(v))?;
        let vip = Arc::new(Vip { name: name.clone(), spec: spec.clone(), revision: index });
        changed(index, ChangeKind::Created, Resource::Vip(vip))
    }

    fn existing_vip(
        &self,
        name: &VipName,
        expect: Option<Revision>,
    ) -> std::result::Result<&Arc<Vip>, Refusal> {
        let vip = self.vips.get(name).ok_or_else(|| missing(Kind::Vip, name))?;
        expect_revision(Kind::Vip, name, expect, vip.revision)?;
        Ok(vip)
    }

    pub(super) fn update_vip(
        &self,
        index: Revision,
        name: &VipName,
        patch: &VipPatch,
        expect: Option<Revision>,
    ) -> Result {
        let vip = self.existing_vip(name, expect)?;
        let spec = vip.spec.patched(patch);
        if spec == vip.spec {
            return unchanged(vip.revision, Outcome::Vip(vip.clone()));
        }
        self.check_vip(&spec)?;
        let vip = Arc::new(Vip { name: name.clone(), spec, revision: index });
        changed(index, ChangeKind::Updated, Resource::Vip(vip))
    }

    pub(super) fn delete_vip(&self, index: Revision, name: &VipName, expect: Option<Revision>) -> Result {
        let vip = self.existing_vip(name, expect)?.clone();
        let bound = |ip| self.listeners.values().filter(move |l| l.spec.binds.iter().any(|b| b.ip == ip));
        let listeners: Vec<String> = bound(vip.spec.address.ip).map(|l| l.name.to_string()).collect();
        if !listeners.is_empty() {
            return Err(Refusal::InUse { kind: Kind::Vip, name: name.to_string(), listeners });
        }
        changed(index, ChangeKind::Deleted, Resource::Vip(vip))
    }

    pub(super) fn take_vips(
        &mut self,
        index: Revision,
        tenure: Tenure,
        time_ms: u64,
        reason: &Arc<str>,
    ) -> Result {
        let Tenure { member, term, .. } = tenure;
        let refused = |why| Err(Refusal::NoTenure { member: member.0, term, why });
        match self.tenure {
            Some(now) if now.term > term => return refused("a leader of a later term has taken them"),
            // A release is final for its term: its leader may have begun to hand over.
            Some(now) if now.term == term && now.released => return refused("it has released them"),
            Some(now) if now == tenure => return Ok(noted(index)),
            _ => {}
        }
        self.tenure = Some(tenure);
        self.note(index, time_ms, member, term, VipEventKind::Taken, reason);
        Ok(noted(index))
    }

    pub(super) fn release_vips(
        &mut self,
        index: Revision,
        member: MemberId,
        term: u64,
        time_ms: u64,
        reason: &Arc<str>,
    ) -> Result {
        match &mut self.tenure {
            Some(tenure) if tenure.member == member && tenure.term == term => {
                if !std::mem::replace(&mut tenure.released, true) {
                    self.note(index, time_ms, member, term, VipEventKind::Released, reason);
                }
                Ok(noted(index))
            }
            _ => {
                Err(Refusal::NoTenure { member: member.0, term, why: "they are another member's or term's" })
            }
        }
    }

    fn note(
        &mut self,
        revision: Revision,
        time_ms: u64,
        member: MemberId,
        term: u64,
        kind: VipEventKind,
        reason: &Arc<str>,
    ) {
        while self.vip_events.len() >= defaults::VIP_EVENTS_KEPT {
            self.vip_events.pop_front();
        }
        let cut = reason.floor_char_boundary(defaults::VIP_REASON_MAX);
        let reason = reason.get(..cut).unwrap_or_default().into();
        let name = self.members.get(&member).map(|member| member.spec.name.clone());
        let vips = self.vips.keys().cloned().collect();
        let event = VipEvent { revision, time_ms, member, name, term, kind, reason, vips };
        self.vip_events.push_back(Arc::new(event));
    }
}

/// The answer to a record: no revision of the configuration, and nothing for watchers of it.
pub(super) fn noted(index: Revision) -> Applied {
    Applied { revision: index, outcome: Outcome::Noted, changes: Vec::new() }
}
