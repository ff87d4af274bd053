//! What this member says of the virtual IPs.

use std::time::{Duration, Instant};

use trestle_api::{convert, v1};
use trestle_engine::ownership::Standing;
use trestle_vip::{Facts, Fence};

use super::Vips;
use crate::member::Member;

impl Vips {
    /// How far this member is with serving them, in a word; empty while there are none.
    pub(crate) fn standing(&self) -> &'static str {
        let machine = self.shared.machine();
        let Some(machine) = machine.as_ref() else { return "" };
        if self.shared.shown().unable.is_some() {
            return "unable";
        }
        match machine.standing(self.shared.now()) {
            Standing::Scrubbing => "scrubbing",
            Standing::Idle => "",
            Standing::Following => "following",
            Standing::CatchingUp => "catching-up",
            Standing::WaitingForOldLease { .. } => "waiting-for-old-lease",
            Standing::Taking => "taking",
            Standing::Serving { .. } => "serving",
            Standing::WithoutQuorum => "without-quorum",
            Standing::Leaving { .. } => "leaving",
            Standing::Yielded => "yielded",
        }
    }
}

impl Member {
    /// Every virtual IP as this member's kernel has it.
    pub(crate) fn vip_views(&self) -> Vec<v1::VipView> {
        let state = self.consensus.view().borrow().state.clone();
        let shared = &self.vips.shared;
        let without_quorum: Vec<_> = shared.machine().as_ref().map_or_else(Vec::new, |machine| {
            machine.facts().filter(|facts| facts.without_quorum).map(|facts| facts.address).collect()
        });
        let shown = shared.shown();
        let facts = shown.kernel.as_ref().map(|kernel| kernel.facts());
        let member = convert::member_name(&self.config.name);
        let now = Instant::now();
        let views = state.vips.values().map(|vip| {
            let address = vip.spec.address.ip;
            let mut view = v1::VipView {
                vip: convert::vip_name(&vip.name),
                member: member.clone(),
                interface: shown.interfaces.get(&address).cloned().unwrap_or_default(),
                problems: shown.unable.iter().chain(shown.problems.get(&address)).cloned().collect(),
                ..Default::default()
            };
            if let Some(facts) = &facts {
                fill(&mut view, facts, address, now);
                // The machine also wants what has no place here.
                view.without_quorum = view.holds && without_quorum.contains(&address);
            }
            view
        });
        views.collect()
    }
}

/// Adds what the kernel has confirmed.
fn fill(view: &mut v1::VipView, facts: &Facts, address: std::net::IpAddr, now: Instant) {
    view.degraded_fence = matches!(facts.fence, Fence::Degraded { .. });
    let ago = |at: Instant| convert::duration(now.saturating_duration_since(at));
    view.fence_repairs = facts.tampering.repairs;
    if let Some((at, what)) = &facts.tampering.last_repair {
        view.fence_repaired_ago = Some(ago(*at));
        view.fence_change.clone_from(what);
    }
    let Some(found) = facts.vips.iter().find(|found| found.vip.address == address) else { return };
    if let Some(why) = &facts.tampering.failing {
        view.problems.push(format!("its fence cannot be renewed: {why}"));
    }
    if let Some(why) = &found.shut_by {
        view.problems.push(format!("its packets are dropped on this machine by {why}"));
    }
    let open_for = found.fence_until.map(|until| until.saturating_duration_since(now));
    let open_for = open_for.filter(|left| !left.is_zero());
    view.interface = found.vip.interface.clone();
    view.address_present = found.address_present;
    view.fence_open_for = open_for.map(convert::duration);
    view.holds = found.address_present
        && found.shut_by.is_none()
        && open_for.is_some_and(|left| left > Duration::ZERO);
    view.announced_ago = found.last_announcement.map(ago);
    if let Some((mac, at)) = found.last_conflict {
        view.foreign_mac = mac.to_string();
        view.foreign_ago = Some(ago(at));
    }
    if !found.link_up {
        view.problems.push(format!("interface {} is down", found.vip.interface));
    }
}
