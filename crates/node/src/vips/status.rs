//! What this member reports of the virtual IPs.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use trestle_api::peer::VipStanding;
use trestle_api::{convert, peer};
use trestle_engine::ownership::OwnershipState;
use trestle_model::ClusterState;
use trestle_vip::{Fence, KernelFacts};

use super::handle::Vips;
use super::shared::VipStatus;

impl Vips {
    /// This member's progress in serving them.
    pub(crate) fn standing(&self) -> VipStanding {
        let machine = self.shared.machine();
        let Some(machine) = machine.as_ref() else { return VipStanding::Unspecified };
        match machine.state(self.shared.now()) {
            OwnershipState::Idle => VipStanding::Unspecified,
            _ if self.shared.status().unable.is_some() => VipStanding::Unable,
            OwnershipState::Following => VipStanding::Following,
            OwnershipState::CatchingUp => VipStanding::CatchingUp,
            OwnershipState::WaitingForOldLease { .. } => VipStanding::WaitingForOldLease,
            OwnershipState::Taking => VipStanding::Taking,
            OwnershipState::Serving { .. } => VipStanding::Serving,
            OwnershipState::WithoutQuorum => VipStanding::WithoutQuorum,
            OwnershipState::Leaving { .. } => VipStanding::Leaving,
            OwnershipState::TermBarred => VipStanding::Yielded,
        }
    }
}

/// How long the status shows that another program changed the fence: it may do so again.
const REPAIR_SHOWN: Duration = Duration::from_secs(600);

impl Vips {
    /// What is wrong with the fence of the virtual IPs of `state`, in words.
    pub(crate) fn fence_problems(&self, state: &ClusterState) -> Vec<String> {
        let kernel = self.shared.status().kernel.clone();
        match kernel {
            Some(kernel) if !state.vips.is_empty() => fence_problems(&kernel.facts(), Instant::now()),
            _ => Vec::new(),
        }
    }

    /// Every virtual IP of `state` as this member's kernel has it.
    pub(crate) fn reports(&self, state: &ClusterState) -> Vec<peer::VipReport> {
        let shared = &self.shared;
        let without_quorum: Vec<_> = shared.machine().as_ref().map_or_else(Vec::new, |machine| {
            machine.facts().filter(|facts| facts.without_quorum).map(|facts| facts.address).collect()
        });
        let status = shared.status();
        let facts = status.kernel.as_ref().map(|kernel| kernel.facts());
        let now = Instant::now();
        let views = state.vips.values().map(|vip| {
            let address = vip.spec.address.ip;
            let mut view = peer::VipReport {
                name: convert::vip_name(&vip.name),
                interface: status.interfaces.get(&address).cloned().unwrap_or_default(),
                problems: in_the_way(&status, address),
                ..Default::default()
            };
            if let Some(facts) = &facts {
                fill(&mut view, facts, address, now);
                // The machine also has virtual IPs that cannot be served here.
                view.without_quorum = view.holds && without_quorum.contains(&address);
            }
            view
        });
        views.collect()
    }
}

fn fence_problems(facts: &KernelFacts, now: Instant) -> Vec<String> {
    let mut problems = Vec::new();
    if let Fence::Degraded { why } = &facts.fence {
        problems.push(format!(
            "virtual IPs are fenced by their lifetimes alone, so they move seconds later than they could: nftables cannot be used \
             ({why}); load nf_tables (\"modprobe nf_tables\") or run a kernel that has it, then restart trestled there"
        ));
    }
    let tampering = &facts.tampering;
    if let Some(why) = &tampering.failing {
        problems.push(format!(
            "its fence cannot be renewed, so it loses the virtual IPs it holds: {why}; \"nft list ruleset\" shows what is there"
        ));
    }
    if let Some((at, what)) = &tampering.last_repair {
        let ago = now.saturating_duration_since(*at);
        if ago <= REPAIR_SHOWN {
            let (times, ago) = (tampering.repairs, ago.as_secs());
            problems.push(format!(
                "its fence was changed by another program and put back, {times} times so far and last {ago} s ago ({what}): \
                 \"nft monitor\" shows who changes nftables there"
            ));
        }
    }
    problems
}

/// Why a virtual IP is not served here: what prevents it now, or how the last attempt failed.
fn in_the_way(status: &VipStatus, address: IpAddr) -> Vec<String> {
    let misplaced = status.misplaced.get(&address).map(|found| &found.problem);
    let refused = status.refused.get(&address);
    status.unable.iter().chain(misplaced).chain(refused).cloned().collect()
}

/// Adds what the kernel has confirmed.
fn fill(view: &mut peer::VipReport, facts: &KernelFacts, address: IpAddr, now: Instant) {
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
    view.problems.extend(found.failing.clone());
    if !found.link_up && found.failing.is_none() {
        view.problems.push(format!("interface {} is down", found.vip.interface));
    }
}

#[cfg(test)]
mod tests {
    use trestle_vip::{Punctuality, Tampering};

    use super::*;

    #[test]
    fn a_fence_is_told_to_be_degraded_failing_or_meddled_with() {
        let (start, later) = (Instant::now(), |seconds| Instant::now() + Duration::from_secs(seconds));
        let facts = |fence, tampering| KernelFacts {
            fence,
            punctuality: Punctuality::default(),
            tampering,
            vips: Vec::new(),
        };
        let full = || Fence::Full { announcements: true };
        assert_eq!(fence_problems(&facts(full(), Tampering::default()), start), [""; 0]);
        let degraded = Fence::Degraded { why: "no nf_tables".to_owned() };
        let told = fence_problems(&facts(degraded, Tampering::default()), start).join("");
        assert!(told.contains("(no nf_tables); load nf_tables"), "{told}");
        let seen = Tampering {
            repairs: 2,
            last_repair: Some((start, "table removed".to_owned())),
            failing: Some("busy".to_owned()),
        };
        let told = fence_problems(&facts(full(), seen.clone()), later(12));
        assert!(
            told[0].starts_with("its fence cannot be renewed") && told[0].contains(": busy; "),
            "{told:?}"
        );
        let words = "its fence was changed by another program and put back, 2 times so far and last 12 s ago (table removed)";
        assert!(told[1].starts_with(words), "{told:?}");
        // What has stopped is told no more.
        let over = Tampering { failing: None, ..seen };
        assert_eq!(fence_problems(&facts(full(), over), later(700)), [""; 0]);
    }
}
