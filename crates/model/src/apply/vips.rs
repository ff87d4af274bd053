//! Who holds the virtual IPs.

use std::sync::Arc;

use super::Result;
use crate::command::Outcome;
use crate::defaults;
use crate::machine::Applied;
use crate::member::MemberId;
use crate::refusal::Refusal;
use crate::revision::Revision;
use crate::state::ClusterState;
use crate::tenure::{Tenure, VipEvent, VipEventKind};

impl ClusterState {
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
